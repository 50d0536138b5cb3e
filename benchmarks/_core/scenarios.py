"""What is timed. Each scenario gives seconds an operation, by the name of the line it fills."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from _core import lines, mediators
from _core.containers import NewInstances, OneInstance
from _core.messages import (
    EVENTS,
    Ask,
    AskHandler,
    BuildingHandler,
    CheckpointHandler,
    Count,
    CountingHandler,
    Publish,
    Ticked,
    TickedHandler,
    YieldingHandler,
)
from _core.sagas import Order
from _core.timing import Call, Clock

Values = dict[str, float]
Scenario = Callable[[Clock], Coroutine[Any, Any, Values]]

ASK = Ask(number=1)
STREAM_ITEMS = 1_000


async def send_bootstrapped(clock: Clock) -> Values:
    return {lines.SEND_DI: await clock.seconds(mediators.bootstrapped().send, ASK)}


async def send_by_hand(clock: Clock) -> Values:
    async def make_and_handle(request: Ask) -> object:
        return await AskHandler().handle(request)

    handler, building = AskHandler(), BuildingHandler()
    calls: dict[str, Call] = {
        lines.DIRECT: handler.handle,
        lines.SEND_INSTANCE: mediators.by_hand(OneInstance(handler)).send,
        lines.DIRECT_NEW: make_and_handle,
        lines.SEND_NEW: mediators.by_hand(NewInstances()).send,
        lines.DIRECT_BUILDING: building.handle,
        lines.SEND_BUILDING: mediators.by_hand(OneInstance(building), BuildingHandler).send,
    }
    return {line: await clock.seconds(call, ASK) for line, call in calls.items()}


async def ten_events(clock: Clock) -> Values:
    handlers = {
        lines.TEN_PLAIN: TickedHandler,
        lines.TEN_YIELDING: YieldingHandler,
        lines.TEN_CHECKPOINT: CheckpointHandler,
    }
    sends = {line: mediators.by_hand(NewInstances(), event_handler=handler) for line, handler in handlers.items()}
    return {line: await clock.seconds(mediator.send, Publish(events=10)) for line, mediator in sends.items()}


async def all_events_arrive(clock: Clock) -> Values:
    """No line: a contender that dropped events would be a fast one."""
    for limit in lines.LIMITS:
        CountingHandler.handled = 0
        await mediators.by_hand(NewInstances(), event_handler=CountingHandler, limit=limit).send(Publish(events=1_000))
        if CountingHandler.handled != 1_000:
            raise RuntimeError(f"{CountingHandler.handled} of 1000 events were handled")
    return {}


async def bare_task_group(clock: Clock) -> Values:
    bare = {lines.BARE_YIELDING: YieldingHandler(), lines.BARE_CHECKPOINT: CheckpointHandler()}
    return {line: await clock.seconds(_in_task_group(handler.handle), EVENTS[:10]) for line, handler in bare.items()}


def _in_task_group(handle: Callable[[Ticked], Coroutine[Any, Any, None]]) -> Call:
    async def run(events: list[Ticked]) -> None:
        async with anyio.create_task_group() as group:
            for event in events:
                group.start_soon(handle, event)

    return run


async def many_events(clock: Clock) -> Values:
    values: Values = {}
    for limit in lines.LIMITS:
        mediator = mediators.by_hand(NewInstances(), event_handler=YieldingHandler, limit=limit)
        for events in lines.MANY:
            request = Publish(events=events)
            values[lines.many(events, limit)] = await clock.seconds(mediator.send, request)
    return values


async def stream(clock: Clock) -> Values:
    streaming = {
        lines.STREAM_BY_HAND: mediators.streaming_by_hand(NewInstances()),
        lines.STREAM_DI: mediators.streaming_bootstrapped(),
    }
    request = Count(items=STREAM_ITEMS)
    return {
        line: await clock.seconds(_consume(mediator), request, operations=STREAM_ITEMS)
        for line, mediator in streaming.items()
    }


def _consume(mediator: Any) -> Call:
    async def consume(request: Count) -> None:
        async for _ in mediator.stream(request):
            pass

    return consume


async def sagas(clock: Clock) -> Values:
    return {
        lines.SAGA_DI: await clock.seconds(_run_saga(mediators.sagas()), None),
        lines.SAGA_NEW: await clock.seconds(_run_saga(mediators.sagas(NewInstances())), None),
    }


def _run_saga(mediator: Any) -> Call:
    async def run(_: None) -> None:
        results = [result async for result in mediator.stream(Order(order_id="1"))]
        if len(results) != 3:
            raise RuntimeError(f"{len(results)} of 3 steps were done")

    return run


async def send_through_containers(clock: Clock) -> Values:
    from _core.libraries import LIBRARIES  # the other contenders' environments do not have them

    values = {lines.DIRECT_CALL: await clock.seconds(AskHandler().handle, ASK)}
    for line, container in LIBRARIES.items():
        values[line] = await clock.seconds(mediators.bootstrapped(container()).send, ASK)
    return values


_ALL: tuple[Scenario, ...] = (
    send_bootstrapped,
    send_by_hand,
    all_events_arrive,
    ten_events,
    bare_task_group,
    many_events,
    stream,
    sagas,
    send_through_containers,
)
SCENARIOS = {scenario.__name__: scenario for scenario in _ALL}
