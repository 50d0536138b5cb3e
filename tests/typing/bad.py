"""Mistakes that type checkers must report, each on the line that is marked. Read by mypy and pyright alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cqrs
from cqrs.requests.request_handler import RequestHandler


class OrderCreated(cqrs.Response):
    """A response."""

    order_id: str


class Create(cqrs.Request[OrderCreated]):
    """A request."""

    order_id: str


class Other(cqrs.Request[None]):
    """Another request."""


class WrongOverride(RequestHandler[Create, OrderCreated]):
    """Takes another request than it says."""

    async def handle(self, request: Other) -> OrderCreated:  # error
        """Handle."""
        return OrderCreated(order_id="")


class OtherHandler(cqrs.RequestHandler[Other, None]):
    """A handler of another request."""

    async def handle(self, request: Other) -> None:
        """Handle."""


class OtherLink(cqrs.CORRequestHandler[Other, None]):
    """A link for another request."""

    async def handle(self, request: Other) -> None:
        """Handle."""


class Created(cqrs.DomainEvent):
    """An event."""


class Deleted(cqrs.DomainEvent):
    """Another event."""


class DeletedHandler(cqrs.EventHandler[Deleted]):
    """A handler of another event."""

    async def handle(self, event: Deleted) -> None:
        """Handle."""


@dataclasses.dataclass
class Context(cqrs.SagaContext):
    """A saga context."""


@dataclasses.dataclass
class OtherContext(cqrs.SagaContext):
    """Another."""


class Step(cqrs.SagaStepHandler[Context]):
    """A step."""

    async def act(self, context: OtherContext) -> cqrs.SagaStepResult[Context, None]:  # error
        """Act."""
        return self._generate_step_result(1)  # error


class OtherStep(cqrs.SagaStepHandler[OtherContext]):
    """A step for another context."""

    async def act(self, context: OtherContext) -> cqrs.SagaStepResult[OtherContext, None]:
        """Act."""
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[Context]):
    """A saga."""

    steps = (Step, "OtherStep")  # error


async def saga_mistakes(saga_map: cqrs.SagaMap, storage: cqrs.MemorySagaStorage) -> None:
    """One mistake a line."""
    saga_map.bind(OtherContext, OrderSaga)  # error
    OrderSaga().transaction(OtherContext(), cqrs.PlainContainer(), storage)  # error
    cqrs.Parallel(Step, Step())  # error
    cqrs.Fallback[Context](step=Step, fallback=OtherStep)  # error


async def mistakes(
    mediator: cqrs.RequestMediator,
    streaming: cqrs.StreamingRequestMediator,
    request_map: cqrs.RequestMap,
    event_map: cqrs.EventMap,
) -> None:
    """One mistake a line."""
    number: int = await mediator.send(Create(order_id="1"))  # error
    (await mediator.send(Create(order_id="1"))).total  # error
    await mediator.send("not a request")  # error
    Create(order=1)  # error
    async for result in streaming.stream(Create(order_id="1")):
        result.total  # error
    request_map.bind(Create, OtherHandler)  # error
    links: Sequence[type[OtherLink]] = [OtherLink]
    request_map.bind(Create, links)  # error
    request_map.bind(Create, cqrs.RequestHandlerFallback(OtherHandler, OtherHandler))  # error
    event_map.bind(Created, DeletedHandler)  # error
    del number
