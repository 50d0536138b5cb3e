"""InMemoryMessageBroker."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream

from cqrs.exceptions import CQRSError, SubscriberBufferFullError
from cqrs.message_brokers import InMemoryMessageBroker, Message


def message(number: int, topic: str = "t") -> Message:
    return Message(f"m{number}", topic, {"number": number})


def waiting(stream: MemoryObjectReceiveStream[Message]) -> list[str]:
    """The names of the messages in the buffer of ``stream``."""
    return [stream.receive_nowait().message_name for _ in range(stream.statistics().current_buffer_used)]


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    with anyio.fail_after(5):
        yield


async def test_subscribers_of_the_topic_have_the_message_when_send_returns() -> None:
    """Subscribers of the topic and of all topics get a message, others do not."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe("t") as mine, broker.subscribe() as everything, broker.subscribe("other") as other:
        await broker.send_message(message(1))
        await broker.send_message(message(2, "other"))
        assert waiting(mine) == ["m1"]
        assert waiting(everything) == ["m1", "m2"]
        assert waiting(other) == ["m2"]


async def test_send_messages_keeps_the_order() -> None:
    """What one task sends arrives in its order."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe("t") as received:
        await broker.send_messages([message(number) for number in range(20)])
        assert waiting(received) == [f"m{number}" for number in range(20)]


async def test_order_is_kept_under_backpressure() -> None:
    """Also when the sender must wait for each subscriber, each gets all messages in order."""
    broker = InMemoryMessageBroker()
    got: dict[int, list[str]] = {0: [], 1: [], 2: []}

    async def read(size: int, stream: MemoryObjectReceiveStream[Message]) -> None:
        async for received in stream:
            got[size].append(received.message_name)
            for _ in range(size):
                await checkpoint()

    with anyio.fail_after(5):
        async with (
            anyio.create_task_group() as group,
            broker.subscribe(max_buffer_size=0) as a,
            broker.subscribe(max_buffer_size=1) as b,
            broker.subscribe(max_buffer_size=2) as c,
        ):
            for size, stream in enumerate((a, b, c)):
                group.start_soon(read, size, stream)
            await broker.send_messages([message(number) for number in range(50)])
            await broker.aclose()
            await anyio.wait_all_tasks_blocked()
    assert list(got.values()) == [[f"m{number}" for number in range(50)]] * 3


async def test_message_without_subscriber_is_dropped() -> None:
    """Nothing is kept for a subscriber that comes later, nor in the broker."""
    broker = InMemoryMessageBroker()
    sent = message(1)
    gone = weakref.ref(sent)
    await broker.send_message(sent)
    del sent
    gc.collect()
    assert gone() is None
    async with broker.subscribe() as received:
        assert waiting(received) == []


async def test_left_subscriber_gets_nothing_and_is_forgotten() -> None:
    """Leaving the block ends the subscription, also by an error."""
    broker = InMemoryMessageBroker()
    with pytest.raises(ZeroDivisionError):
        async with broker.subscribe() as received:
            raise ZeroDivisionError
    await broker.send_message(message(1))
    with pytest.raises(anyio.ClosedResourceError):
        received.receive_nowait()
    assert broker._subscriptions == []


async def test_each_subscriber_has_a_message_of_its_own() -> None:
    """What one subscriber or the sender changes, nobody else sees."""
    broker = InMemoryMessageBroker()
    sent = message(1)
    async with broker.subscribe() as a, broker.subscribe() as b:
        await broker.send_message(sent)
        sent.payload["number"] = "changed by the sender"
        first = a.receive_nowait()
        first.payload["number"] = "changed by a"
        second = b.receive_nowait()
    assert second.payload == {"number": 1}
    assert second.message_id == sent.message_id


async def test_slow_subscriber_slows_the_sender_and_nobody_else() -> None:
    """A full buffer makes the sender wait; subscribers with room have the message meanwhile."""
    broker = InMemoryMessageBroker()
    async with bounded(), broker.subscribe(max_buffer_size=1) as slow, broker.subscribe() as fast:
        await broker.send_message(message(1))
        sent = anyio.Event()

        async def send() -> None:
            await broker.send_message(message(2))
            sent.set()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set()
            assert waiting(fast) == ["m1", "m2"]
            assert (await slow.receive()).message_name == "m1"
            await sent.wait()
        assert waiting(slow) == ["m2"]


@pytest.mark.parametrize("ending", ["unsubscribe", "close"])
async def test_subscriber_that_leaves_sets_a_waiting_sender_free(ending: str) -> None:
    """A sender that waits for a subscriber goes on when it leaves, and others get their message."""
    broker = InMemoryMessageBroker()
    leave = anyio.Event()

    async def slow_subscriber(*, task_status: Any) -> None:
        async with broker.subscribe(max_buffer_size=0) as stream:
            task_status.started()
            await leave.wait()
            if ending == "close":
                stream.close()

    async with bounded(), broker.subscribe(max_buffer_size=math.inf) as other, anyio.create_task_group() as group:
        await group.start(slow_subscriber)
        group.start_soon(broker.send_message, message(1))
        group.start_soon(broker.send_message, message(2))
        await anyio.wait_all_tasks_blocked()
        leave.set()
    assert broker._subscriptions == []
    with pytest.raises(anyio.ClosedResourceError):
        waiting(other)


async def test_several_waiting_senders_all_get_through() -> None:
    """Senders that wait for one slow subscriber are served in the order in which they came."""
    broker = InMemoryMessageBroker()
    async with bounded(), broker.subscribe(max_buffer_size=0) as slow, anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(broker.send_message, message(number))
            await anyio.wait_all_tasks_blocked()
        assert [(await slow.receive()).message_name for _ in range(5)] == [f"m{number}" for number in range(5)]


async def test_cancelled_send_leaves_no_trace_in_a_full_buffer() -> None:
    """A send that is cancelled while it waits withdraws its message; those with room have theirs."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe(max_buffer_size=1) as slow, broker.subscribe() as fast:
        await broker.send_message(message(1))
        with anyio.move_on_after(0.01) as scope:
            await broker.send_message(message(2))
        assert scope.cancelled_caught
        assert waiting(slow) == ["m1"]
        assert slow.statistics().tasks_waiting_send == 0
        assert waiting(fast) == ["m1", "m2"]
        await broker.send_message(message(3))
        assert waiting(slow) == ["m3"]


async def test_cancelled_before_it_began_a_send_delivers_nothing() -> None:
    """send_message is a point of cancellation, and a message is not handed out after it."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe() as received:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await broker.send_message(message(1))
        assert scope.cancelled_caught
        assert waiting(received) == []


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})], ids=["asyncio"])
async def test_native_cancellation_of_a_waiting_send() -> None:
    """task.cancel() ends a waiting send as a scope does."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe(max_buffer_size=1) as slow:
        await broker.send_message(message(1))
        task = asyncio.get_running_loop().create_task(broker.send_message(message(2)))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting(slow) == ["m1"]
        assert slow.statistics().tasks_waiting_send == 0


async def test_cancelled_subscriber_unsubscribes() -> None:
    """A subscriber that is cancelled while it reads is forgotten, and senders go on."""
    broker = InMemoryMessageBroker()

    async def subscriber(*, task_status: Any) -> None:
        async with broker.subscribe() as stream:
            task_status.started()
            await stream.receive()

    async with bounded(), anyio.create_task_group() as group:
        await group.start(subscriber)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert broker._subscriptions == []
    await broker.send_message(message(1))


async def test_drop_oldest_makes_room() -> None:
    """With on_full="drop_oldest" the sender never waits and the newest messages are kept."""
    broker = InMemoryMessageBroker()
    async with bounded(), broker.subscribe(max_buffer_size=2, on_full="drop_oldest") as received:
        await broker.send_messages([message(number) for number in range(5)])
        assert waiting(received) == ["m3", "m4"]


async def test_error_is_raised_before_anybody_is_given_the_message() -> None:
    """With on_full="error" the sender is told, and nobody has the message, so that it can be sent again."""
    broker = InMemoryMessageBroker()
    async with broker.subscribe() as other, broker.subscribe("t", max_buffer_size=1, on_full="error") as strict:
        await broker.send_message(message(1))
        with pytest.raises(SubscriberBufferFullError, match="'t'") as caught:
            await broker.send_message(message(2))
        assert caught.value.topic == "t"
        assert isinstance(caught.value, CQRSError)
        assert waiting(other) == ["m1"]
        assert waiting(strict) == ["m1"]
        await broker.send_message(message(2))
        assert waiting(strict) == ["m2"]


@pytest.mark.parametrize("on_full", ["drop_oldest", "error"])
async def test_policies_that_need_a_buffer_are_refused_without_one(on_full: Any) -> None:
    """There is nothing to drop from, or to be full, where the buffer has no room at all."""
    with pytest.raises(ValueError, match="max_buffer_size >= 1"):
        async with InMemoryMessageBroker().subscribe(max_buffer_size=0, on_full=on_full):
            pytest.fail("subscribed")


async def test_message_that_cannot_be_copied_reaches_nobody() -> None:
    """The copies are made before the first is handed out."""

    class Uncopyable:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies")

    broker = InMemoryMessageBroker()
    async with broker.subscribe() as received:
        with pytest.raises(TypeError, match="no copies"):
            await broker.send_message(Message("m", "t", Uncopyable()))
        assert waiting(received) == []


async def test_leaving_the_broker_ends_its_subscriptions() -> None:
    """Subscribers read what was sent to them, and then their iteration ends; the broker serves on."""
    got: list[str] = []

    async def read(broker: InMemoryMessageBroker, *, task_status: Any) -> None:
        async with broker.subscribe() as stream:
            task_status.started()
            got.extend([received.message_name async for received in stream])

    async with bounded(), anyio.create_task_group() as group, InMemoryMessageBroker() as broker:
        await group.start(read, broker)
        await broker.send_message(message(1))
    assert got == ["m1"]
    async with broker.subscribe() as again:
        await broker.send_message(message(2))
        assert waiting(again) == ["m2"]


async def test_close_lets_a_waiting_send_finish() -> None:
    """A send that waits for room when the broker is closed ends when its subscriber reads or leaves."""
    broker = InMemoryMessageBroker()
    async with bounded(), anyio.create_task_group() as group, broker.subscribe(max_buffer_size=0) as slow:
        group.start_soon(broker.send_message, message(1))
        await anyio.wait_all_tasks_blocked()
        await broker.aclose()
        assert [received.message_name async for received in slow] == ["m1"]


def test_one_broker_serves_several_loops_in_turn() -> None:
    """A broker made outside any loop works in one after the other."""
    broker = InMemoryMessageBroker()

    async def use() -> list[str]:
        async with broker.subscribe(max_buffer_size=1) as received, anyio.create_task_group() as group:
            group.start_soon(broker.send_messages, [message(1), message(2)])
            return [(await received.receive()).message_name for _ in range(2)]

    assert [anyio.run(use), anyio.run(use)] == [["m1", "m2"]] * 2
