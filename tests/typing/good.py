"""What users write, and what type checkers infer from it. Read by mypy and pyright, and executed by nobody."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic

import pydantic
from anyio.abc import ObjectSendStream
from typing_extensions import TypeVar, assert_type

import cqrs
from cqrs import events, requests
from cqrs.requests.bootstrap import bootstrap, bootstrap_streaming
from cqrs.saga import bootstrap as saga_bootstrap

T = TypeVar("T")


class OrderCreated(cqrs.Response):
    """A response."""

    order_id: str


class Page(pydantic.BaseModel, Generic[T]):
    """A generic response."""

    items: list[T]


class Create(cqrs.Request[OrderCreated]):
    """A request that names its response."""

    order_id: str


@dataclasses.dataclass
class CreateDC(cqrs.DCRequest[OrderCreated]):
    """The same as a dataclass."""

    order_id: str


class Find(cqrs.Request["OrderCreated | None"]):
    """A forward reference."""


class Cancel(cqrs.Request[None]):
    """No response."""


class ListOrders(cqrs.Request[Page[OrderCreated]]):
    """A generic response."""


class ListAny(cqrs.Request[Page[T]], Generic[T]):
    """A generic request with a generic response."""


class Plain(cqrs.Request):
    """A request that names no response."""


class UserGeneric(cqrs.Request, Generic[T]):
    """A request that the user made generic."""

    value: T


class CreateHandler(cqrs.RequestHandler[Create, OrderCreated]):
    """A handler with the documented ``events``."""

    def __init__(self) -> None:
        self._events: list[cqrs.Event] = []

    @property
    def events(self) -> list[cqrs.Event]:
        """What it records."""
        return self._events

    async def handle(self, request: Create) -> OrderCreated:
        """Handle."""
        return OrderCreated(order_id=request.order_id)


class CreateStream(cqrs.StreamingRequestHandler[Create, OrderCreated]):
    """A generator."""

    async def handle(self, request: Create) -> AsyncIterator[OrderCreated]:
        """Stream."""
        yield OrderCreated(order_id=request.order_id)


class CreateSender(cqrs.SendStreamRequestHandler[Create, OrderCreated]):
    """A sender."""

    async def handle(self, request: Create, results: ObjectSendStream[OrderCreated]) -> None:
        """Send."""
        await results.send(OrderCreated(order_id=request.order_id))


class Link(cqrs.CORRequestHandler[Create, OrderCreated]):
    """A link of a chain."""

    async def handle(self, request: Create) -> OrderCreated | None:
        """Handle or pass on."""
        return await self.next(request)


class LastLink(cqrs.CORRequestHandler[Create, OrderCreated]):
    """A link of a chain that calls its base."""

    async def handle(self, request: Create) -> OrderCreated | None:
        """Pass on."""
        return await super().handle(request)


class Created(cqrs.DomainEvent):
    """An event."""

    order_id: str


class Invoiced(cqrs.NotificationEvent[OrderCreated]):
    """A notification event with a name of its own."""

    event_name: str = "Invoiced"


class CreatedHandler(cqrs.EventHandler[Created]):
    """An event handler."""

    async def handle(self, event: Created) -> None:
        """Handle."""


class NotificationHandler(cqrs.EventHandler[cqrs.NotificationEvent[OrderCreated]]):
    """A handler of notification events."""

    async def handle(self, event: cqrs.NotificationEvent[OrderCreated]) -> None:
        """Handle."""
        assert_type(event.payload, OrderCreated)


@dataclasses.dataclass
class Context(cqrs.SagaContext):
    """A saga context."""

    order_id: str = ""


class Step(cqrs.SagaStepHandler[Context]):
    """A step with one type argument."""

    async def act(self, context: Context) -> cqrs.SagaStepResult[Context, None]:
        """Act."""
        return self._generate_step_result(None)


class Pay(cqrs.SagaStepHandler[Context, OrderCreated]):
    """A step with options and a response."""

    timeout = 3.0
    retry = cqrs.RetryPolicy(attempts=2)
    on_unknown = cqrs.OnUnknown.PARK

    async def act(self, context: Context) -> cqrs.SagaStepResult[Context, OrderCreated]:
        """Act."""
        return self._generate_step_result(OrderCreated(order_id=context.order_id))

    async def compensate(self, context: Context) -> None:
        """Compensate."""


class OrderSaga(cqrs.Saga[Context]):
    """A saga."""

    steps = (
        Step,
        cqrs.Fallback(step=Step, fallback=Pay),
        cqrs.Parallel(Step, cqrs.Fallback(Pay, Step), limit=2),
        cqrs.Pivot(Pay),
    )
    deadline = 60


def log(request: cqrs.IRequest) -> None:
    """Takes any request."""


def bind(request_map: requests.RequestMap, event_map: events.EventMap, saga_map: cqrs.SagaMap) -> None:
    """Everything that can be bound."""
    request_map.bind(Create, CreateHandler)
    request_map.bind(Create, CreateStream)
    request_map.bind(Create, CreateSender)
    request_map.bind(Create, [Link, LastLink])
    request_map.bind(Create, cqrs.RequestHandlerFallback(CreateHandler, CreateHandler))
    event_map.bind(Created, CreatedHandler)
    event_map.bind(Created, cqrs.EventHandlerFallback(CreatedHandler, CreatedHandler), include_subclasses=True)
    event_map.bind(cqrs.NotificationEvent[OrderCreated], NotificationHandler)
    saga_map.bind(Context, OrderSaga)


async def send(mediator: cqrs.RequestMediator) -> None:
    """What ``send`` gives."""
    assert_type(await mediator.send(Create(order_id="1")), OrderCreated)
    assert_type(await mediator.send(CreateDC(order_id="1")), OrderCreated)
    assert_type(await mediator.send(Find()), "OrderCreated | None")
    assert_type(await mediator.send(ListOrders()), Page[OrderCreated])
    assert_type(await mediator.send(ListAny[int]()), Page[int])
    assert_type(await mediator.send(Plain()), Any)
    declared: OrderCreated = await mediator.send(Plain())
    await mediator.send(Cancel())
    log(Create(order_id=declared.order_id))
    log(UserGeneric[int](value=1))


async def stream(mediator: cqrs.StreamingRequestMediator) -> None:
    """What ``stream`` gives."""
    async for result in mediator.stream(Create(order_id="1")):
        assert_type(result, OrderCreated)
    async with mediator.stream(Create(order_id="1"), max_buffer_size=10) as results:
        async for result in results:
            assert_type(result, OrderCreated)


async def run_sagas(mediator: cqrs.SagaMediator, saga_id: uuid.UUID) -> None:
    """What running a saga gives."""
    async for result in mediator.stream(Context(), saga_id=saga_id, deadline=timedelta(minutes=1)):
        assert_type(result, cqrs.SagaStepResult[Context, Any])
    async with mediator.execute(Context(), max_buffer_size=3) as results:
        async for result in results:
            assert_type(result.saga_id, "uuid.UUID | None")
    storage = cqrs.MemorySagaStorage()
    async with OrderSaga().transaction(Context(), cqrs.PlainContainer(), storage, saga_id) as transaction:
        async for result in transaction:
            assert_type(result, cqrs.SagaStepResult[Context, Any])
    await cqrs.recover_saga(OrderSaga(), saga_id, Context, cqrs.PlainContainer(), storage)
    await cqrs.recover_saga(OrderSaga(), saga_id, Context.from_dict, cqrs.PlainContainer(), storage)
    await cqrs.recover_saga(OrderSaga(), saga_id, lambda stored: Context(**stored), cqrs.PlainContainer(), storage)
    await cqrs.recover_saga(
        saga=OrderSaga(),
        saga_id=saga_id,
        context_builder=Context,
        container=cqrs.PlainContainer(),
        storage=storage,
        compensation_timeout=5.0,
    )
    await cqrs.SagaRecoveryWorker(mediator, poll_interval=1).run()


def make() -> None:
    """What constructors take."""
    Created(order_id="1")
    Invoiced(payload=OrderCreated(order_id="1"))
    notification = cqrs.NotificationEvent[OrderCreated](event_name="n", payload=OrderCreated(order_id="1"))
    assert_type(notification.payload, OrderCreated)
    dataclass_event = cqrs.DCNotificationEvent[OrderCreated]("n", OrderCreated(order_id="1"))
    assert_type(dataclass_event.payload, OrderCreated)


def set_up() -> None:
    """What bootstraps give."""
    assert_type(bootstrap(), cqrs.RequestMediator)
    assert_type(saga_bootstrap.bootstrap(sagas_mapper=lambda sagas: sagas.bind(Context, OrderSaga)), cqrs.SagaMediator)
    assert_type(bootstrap_streaming(cqrs.PlainContainer()), cqrs.StreamingRequestMediator)
