"""Notification events as protobuf messages: to bytes, through a broker, and back."""

from __future__ import annotations

import argparse
import uuid
from datetime import datetime
from typing import Any

import anyio
from typing_extensions import Self

import cqrs
import user_joined_pb2
from cqrs.deserializers.protobuf import ProtobufDeserializer
from cqrs.serializers.protobuf import protobuf_serializer


class UserJoinedPayload(cqrs.Response):
    """Who joined what."""

    user_id: str
    meeting_id: str


class UserJoined(cqrs.NotificationEvent[UserJoinedPayload]):
    """An event that can be written as protobuf and read from it."""

    event_name: str = "UserJoined"
    topic: str = "user_notification_events"

    def proto(self) -> Any:
        return user_joined_pb2.UserJoinedNotification(
            event_id=str(self.event_id),
            event_timestamp=self.event_timestamp.isoformat(),
            event_name=self.event_name,
            payload=user_joined_pb2.UserJoinedPayload(user_id=self.payload.user_id, meeting_id=self.payload.meeting_id),
        )

    @classmethod
    def from_proto(cls, proto: Any) -> Self:
        return cls(
            event_id=uuid.UUID(proto.event_id),
            event_timestamp=datetime.fromisoformat(proto.event_timestamp),
            event_name=proto.event_name,
            payload=UserJoinedPayload(user_id=proto.payload.user_id, meeting_id=proto.payload.meeting_id),
        )


async def main() -> None:
    """Send an event as bytes, and read it again."""
    event = UserJoined(payload=UserJoinedPayload(user_id="ada", meeting_id="standup"))
    broker = cqrs.InMemoryMessageBroker()
    async with broker.subscribe(event.topic) as messages:
        await broker.send_message(cqrs.Message(event.event_name, event.topic, payload=protobuf_serializer(event)))
        message = await messages.receive()
    print(f"{len(message.payload)} bytes of protobuf on topic {message.topic}")

    deserialize = ProtobufDeserializer(UserJoined, user_joined_pb2.UserJoinedNotification)
    print("the same event again:", deserialize(message.payload) == event)
    print("something else:", type(deserialize(b"\xff\xff")).__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
