"""Message and MessageBroker."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from cqrs.message_brokers import Message, MessageBroker


def test_message_is_made_of_the_documented_fields() -> None:
    """Name, topic and payload are enough; each message has an id of its own."""
    first, second = Message("Paid", "payments", {}), Message(message_name="Paid", topic="payments", payload={})
    assert isinstance(first.message_id, uuid.UUID)
    assert first.message_id != second.message_id
    assert first.headers == {}
    assert first.headers is not second.headers


def test_to_dict_leaves_out_what_is_unset() -> None:
    """The envelope is part of the dictionary where it is used; falsy payloads stay."""
    bare = Message("Paid", "payments", 0)
    assert bare.to_dict() == {"message_name": "Paid", "topic": "payments", "payload": 0, "message_id": bare.message_id}
    at = dt.datetime(2030, 1, 1, tzinfo=dt.timezone.utc)
    full: dict[str, Any] = {
        "message_name": "Paid",
        "topic": "payments",
        "payload": None,
        "message_id": uuid.UUID(int=1),
        "partition_key": "k",
        "correlation_id": "c",
        "causation_id": "d",
        "occurred_at": at,
        "headers": {"h": "v"},
    }
    assert Message(**full).to_dict() == full


def test_broker_without_send_message_cannot_be_made() -> None:
    """send_message is what a broker must bring."""
    with pytest.raises(TypeError, match="send_message"):
        MessageBroker()  # type: ignore[abstract]


async def test_send_messages_keeps_the_order_and_stops_at_a_failure() -> None:
    """Messages go one after the other; none after one that failed."""
    sent: list[str] = []

    class Broker(MessageBroker):
        async def send_message(self, message: Message) -> None:
            if message.message_name == "bad":
                raise ConnectionError("gone")
            sent.append(message.message_name)

    with pytest.raises(ConnectionError):
        await Broker().send_messages([Message(name, "t", None) for name in ("a", "b", "bad", "c")])
    assert sent == ["a", "b"]
