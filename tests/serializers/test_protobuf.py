"""protobuf_serializer and ProtobufDeserializer."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import uuid
from typing import Any

import pytest

pytest.importorskip("google.protobuf")

from google.protobuf import struct_pb2, wrappers_pb2

from cqrs.deserializers.exceptions import DeserializeProtobufError
from cqrs.deserializers.protobuf import ProtobufDeserializer
from cqrs.events.event import DCNotificationEvent, NotificationEvent
from cqrs.exceptions import BindingError, SerializationError
from cqrs.response import Response
from cqrs.serializers.protobuf import protobuf_serializer


class UserJoinedPayload(Response):
    user_id: str
    meeting_id: str


class UserJoined(NotificationEvent[UserJoinedPayload], frozen=True):
    event_name: str = "UserJoined"

    def proto(self) -> struct_pb2.Struct:
        message = struct_pb2.Struct()
        message.update(
            {
                "event_id": str(self.event_id),
                "event_timestamp": self.event_timestamp.isoformat(),
                "payload": self.payload.to_dict(),
            }
        )
        return message

    @classmethod
    def from_proto(cls, proto: struct_pb2.Struct) -> UserJoined:
        fields: Any = proto
        return cls(
            event_id=uuid.UUID(fields["event_id"]),
            event_timestamp=dt.datetime.fromisoformat(fields["event_timestamp"]),
            payload=UserJoinedPayload.from_dict(**dict(fields["payload"])),
        )


EVENT = UserJoined(payload=UserJoinedPayload(user_id="u1", meeting_id="m1"))


def test_event_survives_protobuf() -> None:
    """proto() and from_proto() of an event are all that the two need."""
    written = protobuf_serializer(EVENT)
    assert written == EVENT.proto().SerializeToString(deterministic=False)
    assert ProtobufDeserializer(UserJoined, struct_pb2.Struct)(written) == EVENT


def test_protobuf_message_and_bytes_are_written_as_they_are() -> None:
    """A protobuf message needs no event around it; bytes are written already."""
    assert protobuf_serializer(wrappers_pb2.StringValue(value="x")) == b"\n\x01x"
    assert protobuf_serializer(b"\xff") == b"\xff"


class ReturnsText(NotificationEvent[int], frozen=True):
    def proto(self) -> Any:
        return "text"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (NotificationEvent[int](event_name="Paid", payload=1), r"does not implement proto\(\)"),
        (DCNotificationEvent[int](event_name="Paid", payload=1), r"does not implement proto\(\)"),
        ({"no": "event"}, r"^dict cannot be serialised: it has no proto\(\)"),
        (ReturnsText(event_name="Paid", payload=1), r"proto\(\) returned 'text'"),
    ],
)
def test_message_without_protobuf_form_is_refused(message: Any, told: str) -> None:
    """The error says what is missing and what to do."""
    with pytest.raises(SerializationError, match=told):
        protobuf_serializer(message)


def test_unreadable_data_is_returned_as_an_error_value() -> None:
    """Data that is not protobuf, or not of this event, is returned with its cause and never raised."""
    deserialize = ProtobufDeserializer(UserJoined, struct_pb2.Struct)
    for data in (b"\xff\xff", b""):
        result = deserialize(data)
        assert isinstance(result, DeserializeProtobufError)
        assert result.message_data == data
        assert issubclass(result.error_type, Exception)
    assert deserialize(None) is None


def test_event_without_from_proto_is_a_mistake_of_the_application() -> None:
    """An event class that does not implement from_proto is told of, whatever the data."""
    with pytest.raises(NotImplementedError, match="from_proto"):
        ProtobufDeserializer(NotificationEvent[int], struct_pb2.Struct)(b"")


@pytest.mark.parametrize(("event", "proto"), [(dict, struct_pb2.Struct), (UserJoined, dict)])
def test_wrong_classes_are_refused_at_once(event: Any, proto: Any) -> None:
    """A deserializer that could never work is not made."""
    with pytest.raises(BindingError):
        ProtobufDeserializer(event, proto)


def test_modules_load_without_protobuf() -> None:
    """Neither module imports protobuf: events bring the messages themselves."""
    code = (
        "import sys, cqrs.serializers.protobuf, cqrs.deserializers.protobuf;sys.exit('google.protobuf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
