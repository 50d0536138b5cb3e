"""What ``protoc`` would generate from this file, made at import instead, so that no compiler is needed::

syntax = "proto3";
package examples;

message UserJoinedPayload { string user_id = 1; string meeting_id = 2; }

message UserJoinedNotification {
    string event_id = 1;
    string event_timestamp = 2;
    string event_name = 3;
    UserJoinedPayload payload = 4;
}
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _message(name: str, **fields: str) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    for number, (field, kind) in enumerate(fields.items(), start=1):
        if kind == "string":
            message.field.add(name=field, number=number, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
        else:
            message.field.add(
                name=field, number=number, type=_FIELD.TYPE_MESSAGE, type_name=kind, label=_FIELD.LABEL_OPTIONAL
            )
    return message


_FILE = descriptor_pb2.FileDescriptorProto(
    name="examples/user_joined.proto",
    package="examples",
    syntax="proto3",
    message_type=[
        _message("UserJoinedPayload", user_id="string", meeting_id="string"),
        _message(
            "UserJoinedNotification",
            event_id="string",
            event_timestamp="string",
            event_name="string",
            payload=".examples.UserJoinedPayload",
        ),
    ],
)

_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_FILE)


def _class_of(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"examples.{name}"))


UserJoinedPayload = _class_of("UserJoinedPayload")
UserJoinedNotification = _class_of("UserJoinedNotification")
