"""One mediator in several event loops: one after the other, on both backends, and in two threads at once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

import cqrs


@dataclasses.dataclass
class Meet(cqrs.DCRequest):
    meeting: Any


@dataclasses.dataclass(frozen=True)
class Arrive(cqrs.DCDomainEvent):
    meeting: Any


class Meeting:
    """Ends when as many have arrived as there are permits; notes how many were there at once."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.present = self.peak = self.left = 0
        self.everybody = anyio.Event()

    async def attend(self) -> None:
        self.present += 1
        self.peak = max(self.peak, self.present)
        if self.present == self.parties:
            self.everybody.set()
        await self.everybody.wait()
        await anyio.sleep(0.001)
        self.present -= 1
        self.left += 1


class Invites(cqrs.RequestHandler[Meet, None]):
    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: Meet) -> None:
        self._events = [Arrive(request.meeting) for _ in range(6)]


class Arrives(cqrs.EventHandler[Arrive]):
    async def handle(self, event: Arrive) -> None:
        await event.meeting.attend()


def make_mediator() -> cqrs.RequestMediator:
    requests, events = cqrs.RequestMap(), cqrs.EventMap()
    requests.bind(Meet, Invites)
    events.bind(Arrive, Arrives)
    return cqrs.RequestMediator(requests, cqrs.PlainContainer(), event_map=events, max_concurrent_event_handlers=3)


async def meet(mediator: cqrs.RequestMediator, times: int = 3) -> None:
    for _ in range(times):
        meeting = Meeting(3)
        with anyio.fail_after(10):
            await mediator.send(Meet(meeting))
        assert (meeting.peak, meeting.left) == (3, 6)


@pytest.mark.parametrize(
    "backends", [["asyncio", "asyncio"], ["asyncio", "trio"], ["trio", "asyncio"], ["trio", "trio", "asyncio"]]
)
def test_one_loop_after_the_other(backends: list[str]) -> None:
    """A mediator made outside of any loop serves one loop after the other, on either backend."""
    if "trio" in backends:
        pytest.importorskip("trio")
    mediator = make_mediator()
    for backend in backends:
        anyio.run(meet, mediator, backend=backend)


def test_a_loop_that_ended_in_the_middle_leaves_nothing_behind() -> None:
    """Permits that were held when a loop was torn down are not missing in the next one."""
    mediator = make_mediator()

    async def torn() -> None:
        with anyio.move_on_after(0.01):
            await mediator.send(Meet(Meeting(99)))
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            anyio.run(torn)
        anyio.run(meet, mediator)


@pytest.mark.parametrize("backends", [["asyncio", "asyncio"], ["asyncio", "trio"], ["trio", "trio"]])
def test_two_threads_at_once(backends: list[str]) -> None:
    """Two threads, each with its loop, share a mediator; the limit counts in each loop."""
    if "trio" in backends:
        pytest.importorskip("trio")
    mediator, errors = make_mediator(), list[BaseException]()
    both = threading.Barrier(2)

    def run(backend: str) -> None:
        try:
            both.wait(5)
            anyio.run(meet, mediator, 20, backend=backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(backend,)) for backend in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
