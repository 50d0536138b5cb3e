"""Chains of responsibility: linked for each request, whatever the links' lifetime."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import cqrs
from cqrs.requests.cor_request_handler import CORRequestHandler, build_chain


@dataclasses.dataclass
class Pay(cqrs.DCRequest):
    method: str
    trace: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Refund(Pay):
    pass


class Step(CORRequestHandler[Pay, str]):
    """Handles the method of its own name, and passes on the rest."""

    async def handle(self, request: Pay) -> str | None:
        name = type(self).__name__.lower()
        request.trace.append(name)
        await checkpoint()
        if request.method == name:
            return f"paid by {name}"
        return await self.next(request)


class Card(Step):
    pass


class Cash(Step):
    pass


class Points(Step):
    async def handle(self, request: Pay) -> str | None:
        if request.method == "super":
            request.trace.append("super")
            return await CORRequestHandler.handle(self, request)
        return await super().handle(request)


def mediator(*singletons: type, **bindings: Sequence[type[Any]]) -> cqrs.RequestMediator:
    container, requests = cqrs.PlainContainer(), cqrs.RequestMap()
    for type_ in singletons:
        container.register(type_, lifetime=cqrs.Lifetime.SINGLETON)
    for name, links in bindings.items():
        requests.bind({"pay": Pay, "refund": Refund}[name], links)
    return cqrs.RequestMediator(requests, container)


@pytest.mark.parametrize(
    ("method", "trace", "answer"),
    [
        ("card", ["card"], "paid by card"),
        ("cash", ["card", "cash"], "paid by cash"),
        ("points", ["card", "cash", "points"], "paid by points"),
        ("shells", ["card", "cash", "points"], None),
        ("super", ["card", "cash", "super"], None),
    ],
)
async def test_the_first_link_that_handles_answers(method: str, trace: list[str], answer: str | None) -> None:
    """The request goes from link to link until one answers; None where none does."""
    request = Pay(method)
    assert await mediator(pay=[Card, Cash, Points]).send(request) == answer
    assert request.trace == trace


async def test_super_handle_passes_on() -> None:
    """``return await super().handle(request)`` passes the request to the next link."""

    class Asks(CORRequestHandler[Pay, str]):
        async def handle(self, request: Pay) -> str | None:
            request.trace.append("asks")
            return await super().handle(request)  # type: ignore[safe-super]

    request = Pay("cash")
    assert await mediator(pay=[Asks, Cash]).send(request) == "paid by cash"
    assert request.trace == ["asks", "cash"]


async def test_singleton_links_serve_two_chains_at_once() -> None:
    """Links that two chains share, in another order, never lead a request from one chain into the other."""
    subject = mediator(Card, Cash, Points, pay=[Card, Cash, Points], refund=[Points, Card])
    requests = [Pay("shells") for _ in range(20)] + [Refund("shells") for _ in range(20)]
    async with anyio.create_task_group() as tasks:
        for request in requests:
            tasks.start_soon(subject.send, request)
    for request in requests:
        expected = ["points", "card"] if isinstance(request, Refund) else ["card", "cash", "points"]
        assert request.trace == expected


async def test_a_link_may_send_through_a_chain_that_it_is_in() -> None:
    """A singleton link that sends a request through its own chain, and then passes on, gets to its own next link."""

    class Nests(CORRequestHandler[Pay, str]):
        async def handle(self, request: Pay) -> str | None:
            if request.method == "nested":
                inner = Pay("shells")
                await subject.send(inner)
                request.trace.extend(f"inner {name}" for name in inner.trace)
            request.trace.append("nests")
            return await self.next(request)

    subject = mediator(Nests, Cash, pay=[Nests, Cash])
    request = Pay("nested")
    assert await subject.send(request) is None
    assert request.trace == ["inner nests", "inner cash", "nests", "cash"]


async def test_a_link_may_pass_on_from_a_task_of_its_own() -> None:
    """``next`` called in a child task, or twice, goes to the link behind the one that called it."""

    class Twice(CORRequestHandler[Pay, str]):
        async def handle(self, request: Pay) -> str | None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.next, request)
            return await self.next(request)

    request = Pay("cash")
    assert await mediator(Twice, Cash, pay=[Twice, Cash]).send(request) == "paid by cash"
    assert request.trace == ["cash", "cash"]


async def test_every_link_is_resolved_once_and_before_any_runs() -> None:
    """All links of a chain are resolved, once each, in one scope."""
    resolved: list[str] = []

    class Container:
        async def resolve(self, type_: type[Any]) -> Any:
            resolved.append(type_.__name__)
            return type_()

    requests = cqrs.RequestMap()
    requests.bind(Pay, [Card, Cash])
    request = Pay("card")
    await cqrs.RequestMediator(requests, Container()).send(request)  # type: ignore[arg-type]
    assert resolved == ["Card", "Cash"]
    assert request.trace == ["card"]


@dataclasses.dataclass(frozen=True)
class Noted(cqrs.DCDomainEvent):
    name: str


class Noting(Step):
    def __init__(self) -> None:
        self.noted: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self.noted

    async def handle(self, request: Pay) -> str | None:
        self.noted.append(Noted(type(self).__name__))
        answer = await super().handle(request)
        self.noted.append(Noted(f"{type(self).__name__} again"))
        return answer


class One(Noting):
    pass


class Two(Noting):
    pass


class Three(Noting):
    pass


@pytest.mark.parametrize("is_singleton", [False, True])
async def test_events_of_the_links_that_were_reached_are_published(is_singleton: bool) -> None:
    """Every link that the request reached publishes, in the order of the chain; the ones behind do not."""
    emitted: list[str] = []

    class Emitter:
        async def emit(self, event: Any) -> Sequence[cqrs.IEvent]:
            emitted.append(event.name)
            return ()

    container, requests = cqrs.PlainContainer(), cqrs.RequestMap()
    if is_singleton:
        for type_ in (One, Two, Three):
            container.register(type_, lifetime=cqrs.Lifetime.SINGLETON)
    requests.bind(Pay, [One, Two, Three])
    subject = cqrs.RequestMediator(requests, container, Emitter())
    for _ in range(2):
        emitted.clear()
        await subject.send(Pay("two"))
        assert emitted == ["One", "One again", "Two", "Two again"]


async def test_a_chain_built_by_hand_works_without_a_mediator() -> None:
    """``build_chain`` and ``set_next`` link handlers that are called directly."""
    request = Pay("points")
    assert await build_chain([Card(), Cash(), Points()]).handle(request) == "paid by points"
    assert request.trace == ["card", "cash", "points"]
    first, second, third = Card(), Cash(), Points()
    assert first.set_next(second) is second
    second.set_next(third)
    assert await first.handle(Pay("shells")) is None
    with pytest.raises(ValueError, match="at least one"):
        build_chain([])


async def test_set_next_does_not_join_chains_of_a_mediator() -> None:
    """Links joined by hand, singletons as well, are run by the mediator in the order that was bound."""

    class Joins(Step):
        async def handle(self, request: Pay) -> str | None:
            self.set_next(Points())
            request.trace.append("joins")
            return await self.next(request)

    request = Pay("shells")
    await mediator(Joins, pay=[Joins, Cash]).send(request)
    assert request.trace == ["joins", "cash"]
