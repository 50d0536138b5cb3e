"""What the library asks of a message broker."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass
class Message:
    """A message for a broker.

    ``payload`` is what the broker's serializer takes; bytes pass unchanged. Messages with the same
    ``partition_key`` stay in order where the broker can keep order. ``correlation_id`` and
    ``causation_id`` say what the message belongs to and what caused it.
    """

    message_name: str
    topic: str
    payload: Any
    message_id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
    partition_key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    occurred_at: dt.datetime | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """The message as a dictionary, without what is unset."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        optional = ("partition_key", "correlation_id", "causation_id", "occurred_at", "headers")
        return {name: value for name, value in fields.items() if value or name not in optional}


class MessageBroker(abc.ABC):
    """Sends messages."""

    @abc.abstractmethod
    async def send_message(self, message: Message) -> None:
        """Send ``message``; when this returns, the broker has it.

        Cancelled, it leaves open whether the broker has the message.
        """
        raise NotImplementedError

    async def send_messages(self, messages: Sequence[Message]) -> None:
        """Send ``messages`` in order. Brokers that can do better than one by one override it.

        When it raises or is cancelled, any number of them may have been sent.
        """
        for message in messages:
            await self.send_message(message)
