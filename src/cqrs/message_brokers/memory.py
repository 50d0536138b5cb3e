"""A broker inside one process."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from typing_extensions import Self

from cqrs.exceptions import SubscriberBufferFullError
from cqrs.message_brokers.protocol import Message, MessageBroker

ALL_TOPICS = "*"
"""Subscribes to every topic."""

DEFAULT_BUFFER_SIZE = 100

OnFull: TypeAlias = Literal["wait", "drop_oldest", "error"]
"""What happens to a message for a subscriber whose buffer is full."""


class InMemoryMessageBroker(MessageBroker):
    """Hands messages to subscribers in the same process.

    Nothing is kept: a message to a topic without a subscriber is dropped. Each subscriber gets a
    message of its own, a deep copy of what was sent. What one task sends, each subscriber gets in
    the order in which it was sent.

    It needs no running event loop to be made, and can serve several loops one after the other.
    ``async with broker:`` ends all subscriptions at its end.
    """

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []

    @contextlib.asynccontextmanager
    async def subscribe(
        self, topic: str = ALL_TOPICS, *, max_buffer_size: float = DEFAULT_BUFFER_SIZE, on_full: OnFull = "wait"
    ) -> AsyncGenerator[MemoryObjectReceiveStream[Message], None]:
        """A stream of the messages sent to ``topic`` from now on, until the block is left.

        What was not read by then is dropped. A subscriber that is cancelled while it waits for a
        message may lose that one.

        :param topic: the topic; ``"*"`` for all.
        :param max_buffer_size: how many messages may wait to be read; ``math.inf`` for any number.
        :param on_full: what a sender meets whose message finds the buffer full: ``"wait"`` lets it
            wait, so that a slow subscriber slows the senders; ``"drop_oldest"`` makes room;
            ``"error"`` raises ``SubscriberBufferFullError`` to it.
        :raises ValueError: there is no buffer to drop from or to be full.
        """
        if on_full != "wait" and max_buffer_size < 1:
            raise ValueError(f"on_full={on_full!r} needs max_buffer_size >= 1, not {max_buffer_size!r}")
        send, receive = anyio.create_memory_object_stream[Message](max_buffer_size)
        subscription = _Subscription(topic, on_full, send, receive)
        self._subscriptions.append(subscription)
        try:
            yield receive
        finally:
            subscription.close()
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    async def send_message(self, message: Message) -> None:
        """Hand ``message`` to the subscribers of its topic; when this returns, each has it in its buffer.

        Subscribers with room get it at once, also when another one is waited for.
        Cancelled while it waits, it leaves open which of those with a full buffer get it.

        :raises SubscriberBufferFullError: a subscriber wants this error; nobody was given the message.
        """
        await checkpoint()
        targets = [subscription for subscription in self._subscriptions if subscription.wants(message)]
        for subscription in targets:
            subscription.check_room(message)
        copies = [(subscription, copy.deepcopy(message)) for subscription in targets]
        for subscription, own in [pair for pair in copies if not pair[0].put(pair[1])]:
            await subscription.put_when_there_is_room(own)

    async def aclose(self) -> None:
        """End all subscriptions: their streams end after what was sent to them, sends that still wait included.

        The broker can be used again.
        """
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()
        await checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


@dataclasses.dataclass(frozen=True, eq=False)
class _Subscription:
    topic: str
    on_full: OnFull
    _send: MemoryObjectSendStream[Message]
    _receive: MemoryObjectReceiveStream[Message]

    def wants(self, message: Message) -> bool:
        return self.topic in (ALL_TOPICS, message.topic)

    def check_room(self, message: Message) -> None:
        buffer = self._send.statistics()
        if self.on_full == "error" and buffer.current_buffer_used >= buffer.max_buffer_size:
            raise SubscriberBufferFullError(message.topic)

    def put(self, message: Message) -> bool:
        """Whether ``message`` is in the buffer, or nobody is left to read it."""
        try:
            self._send.send_nowait(message)
        except anyio.WouldBlock:
            return self.on_full == "drop_oldest" and self._put_in_place_of_oldest(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return True
        return True

    async def put_when_there_is_room(self, message: Message) -> None:
        # A subscriber that left drops what it did not read. The clone outlives a broker that is closed meanwhile.
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError), self._send.clone() as send:
            await send.send(message)

    def _put_in_place_of_oldest(self, message: Message) -> bool:
        self._receive.receive_nowait()
        self._send.send_nowait(message)
        return True

    def end(self) -> None:
        self._send.close()

    def close(self) -> None:
        self._send.close()
        self._receive.close()
