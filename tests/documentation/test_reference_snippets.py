"""The documented API, used as its documentation shows: each test is one section of the reference README.

What the sections leave out, an application's messages and services, is supplied here.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
import uuid
from collections import defaultdict
from contextlib import aclosing

import anyio
import pydantic
import pytest

import cqrs
from cqrs import events, requests
from cqrs.events import bootstrap as event_bootstrap
from cqrs.events.event import Event
from cqrs.requests import bootstrap
from cqrs.requests import bootstrap as request_bootstrap
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.mermaid import CoRMermaid
from cqrs.requests.request_handler import RequestHandler, StreamingRequestHandler
from cqrs.response import Response
from cqrs.saga import bootstrap as saga_bootstrap
from cqrs.saga.fallback import Fallback
from cqrs.saga.mermaid import SagaMermaid
from cqrs.saga.models import SagaContext
from cqrs.saga.recovery import recover_saga
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler, SagaStepResult
from cqrs.saga.storage.memory import MemorySagaStorage

Binder = typing.Callable[[typing.Any], None]


def bind(*pairs: tuple[typing.Any, typing.Any]) -> Binder:
    """A mapper function that binds ``pairs``."""

    def mapper(map_: typing.Any) -> None:
        for message, handler in pairs:
            map_.bind(message, handler)

    return mapper


# --- what the meeting sections leave out


class MeetingAPIProtocol(typing.Protocol):
    async def join_user(self, user_id: str, meeting_id: str) -> None: ...
    async def get_link(self, meeting_id: str) -> str: ...


class MeetingAPI:
    def __init__(self) -> None:
        self.joined: list[tuple[str, str]] = []

    async def join_user(self, user_id: str, meeting_id: str) -> None:
        self.joined.append((user_id, meeting_id))

    async def get_link(self, meeting_id: str) -> str:
        return f"https://meet/{meeting_id}"


class JoinMeetingCommand(cqrs.Request):
    user_id: str
    meeting_id: str


class ReadMeetingQuery(cqrs.Request):
    meeting_id: str


class ReadMeetingQueryResult(cqrs.Response):
    meeting_id: str
    link: str


class JoinMeetingCommandHandler(RequestHandler[JoinMeetingCommand, None]):
    def __init__(self, meetings_api: MeetingAPIProtocol) -> None:
        self._meetings_api = meetings_api
        self._events: list[Event] = []

    @property
    def events(self) -> typing.List[events.Event]:  # noqa: UP006
        return self._events

    async def handle(self, request: JoinMeetingCommand) -> None:
        await self._meetings_api.join_user(request.user_id, request.meeting_id)


class ReadMeetingQueryHandler(RequestHandler[ReadMeetingQuery, ReadMeetingQueryResult]):
    def __init__(self, meetings_api: MeetingAPIProtocol) -> None:
        self._meetings_api = meetings_api
        self._events: list[Event] = []

    @property
    def events(self) -> typing.List[events.Event]:  # noqa: UP006
        return self._events

    async def handle(self, request: ReadMeetingQuery) -> ReadMeetingQueryResult:
        link = await self._meetings_api.get_link(request.meeting_id)
        return ReadMeetingQueryResult(link=link, meeting_id=request.meeting_id)


def meeting_container(api: MeetingAPI) -> cqrs.PlainContainer:
    container = cqrs.PlainContainer()
    container.register_instance(MeetingAPIProtocol, api)
    return container


async def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    """Section "Quick Start"."""
    di = pytest.importorskip("di")

    class CreateOrderCommand(cqrs.Request):
        order_id: str
        amount: float

    class CreateOrderHandler(cqrs.RequestHandler[CreateOrderCommand, None]):
        async def handle(self, request: CreateOrderCommand) -> None:
            print(f"Order {request.order_id}, amount {request.amount}")  # noqa: T201

    def commands_mapper(mapper: cqrs.RequestMap) -> None:
        mapper.bind(CreateOrderCommand, CreateOrderHandler)

    container = di.Container()
    mediator = bootstrap.bootstrap(di_container=container, commands_mapper=commands_mapper)
    await mediator.send(CreateOrderCommand(order_id="ord-1", amount=99.99))
    assert capsys.readouterr().out == "Order ord-1, amount 99.99\n"


async def test_request_and_response_types() -> None:
    """Section "Request and Response Types"."""

    class CreateUserCommand(cqrs.Request):
        username: str
        email: str

    class UserResponse(cqrs.Response):
        user_id: str
        username: str

    @dataclasses.dataclass
    class CreateProductCommand(cqrs.DCRequest):
        name: str
        price: float

    @dataclasses.dataclass
    class ProductResponse(cqrs.DCResponse):
        product_id: str
        name: str

    class CustomRequest(cqrs.IRequest):
        def __init__(self, user_id: str, action: str) -> None:
            self.user_id = user_id
            self.action = action

        def to_dict(self) -> dict:
            return {"user_id": self.user_id, "action": self.action}

        @classmethod
        def from_dict(cls, **kwargs) -> CustomRequest:
            return cls(user_id=kwargs["user_id"], action=kwargs["action"])

    class CustomResponse(cqrs.IResponse):
        def __init__(self, result: str, status: int) -> None:
            self.result = result
            self.status = status

        def to_dict(self) -> dict:
            return {"result": self.result, "status": self.status}

        @classmethod
        def from_dict(cls, **kwargs) -> CustomResponse:
            return cls(result=kwargs["result"], status=kwargs["status"])

    class UserHandler(cqrs.RequestHandler[CreateUserCommand, UserResponse]):
        async def handle(self, request: CreateUserCommand) -> UserResponse:
            return UserResponse(user_id="1", username=request.username)

    class ProductHandler(cqrs.RequestHandler[CreateProductCommand, ProductResponse]):
        async def handle(self, request: CreateProductCommand) -> ProductResponse:
            return ProductResponse(product_id="2", name=request.name)

    class CustomHandler(cqrs.RequestHandler[CustomRequest, CustomResponse]):
        async def handle(self, request: CustomRequest) -> CustomResponse:
            return CustomResponse(result=request.action, status=200)

    mediator = bootstrap.bootstrap(
        commands_mapper=bind(
            (CreateUserCommand, UserHandler), (CreateProductCommand, ProductHandler), (CustomRequest, CustomHandler)
        )
    )
    for request, answer in (
        (CreateUserCommand(username="ada", email="a@b"), UserResponse(user_id="1", username="ada")),
        (CreateProductCommand(name="lamp", price=1.5), ProductResponse(product_id="2", name="lamp")),
        (CustomRequest("3", "jump"), CustomResponse("jump", 200)),
    ):
        again = type(request).from_dict(**request.to_dict())
        response = await mediator.send(again)
        assert type(response) is type(answer)
        assert response.to_dict() == type(answer).from_dict(**answer.to_dict()).to_dict()


async def test_command_handler() -> None:
    """Section "Command Handler"."""
    api = MeetingAPI()
    mediator = bootstrap.bootstrap(
        di_container=meeting_container(api), commands_mapper=bind((JoinMeetingCommand, JoinMeetingCommandHandler))
    )
    assert await mediator.send(JoinMeetingCommand(user_id="ada", meeting_id="1")) is None
    assert api.joined == [("ada", "1")]


async def test_query_handler() -> None:
    """Section "Query handler"."""
    mediator = bootstrap.bootstrap(
        di_container=meeting_container(MeetingAPI()), queries_mapper=bind((ReadMeetingQuery, ReadMeetingQueryHandler))
    )
    result = await mediator.send(ReadMeetingQuery(meeting_id="1"))
    assert result == ReadMeetingQueryResult(meeting_id="1", link="https://meet/1")


# --- what the streaming sections leave out


class ProcessFilesCommand(cqrs.Request):
    file_ids: list[str]


class FileProcessedResult(cqrs.Response):
    file_id: str
    status: str


class FileProcessedEvent(cqrs.DomainEvent):
    file_id: str


class ProcessFilesCommandHandler(StreamingRequestHandler[ProcessFilesCommand, FileProcessedResult]):
    def __init__(self) -> None:
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events.copy()

    def clear_events(self) -> None:
        self._events.clear()

    async def handle(self, request: ProcessFilesCommand) -> typing.AsyncIterator[FileProcessedResult]:
        for file_id in request.file_ids:
            result = FileProcessedResult(file_id=file_id, status="completed")
            self._events.append(FileProcessedEvent(file_id=file_id))
            yield result


async def test_streaming_request_handler() -> None:
    """Section "Streaming Request Handler"."""
    told: list[str] = []

    class NoteFile(cqrs.EventHandler[FileProcessedEvent]):
        async def handle(self, event: FileProcessedEvent) -> None:
            told.append(event.file_id)

    mediator = bootstrap.bootstrap_streaming(
        commands_mapper=bind((ProcessFilesCommand, ProcessFilesCommandHandler)),
        domain_events_mapper=bind((FileProcessedEvent, NoteFile)),
    )
    seen = [(result.file_id, list(told)) async for result in mediator.stream(ProcessFilesCommand(file_ids=["a", "b"]))]
    assert seen == [("a", ["a"]), ("b", ["a", "b"])]


# --- what the payment sections leave out


class ProcessPaymentCommand(cqrs.Request):
    payment_method: str
    amount: float


class PaymentResult(cqrs.Response):
    success: bool
    transaction_id: str


class PaymentProcessedEvent(cqrs.DomainEvent):
    transaction_id: str


class Transaction(typing.NamedTuple):
    id: str


class PaymentServiceProtocol(typing.Protocol):
    async def process_credit_card(self, request: ProcessPaymentCommand) -> Transaction: ...


class PayPalServiceProtocol(typing.Protocol):
    async def process_payment(self, request: ProcessPaymentCommand) -> Transaction: ...


class Services:
    async def process_credit_card(self, request: ProcessPaymentCommand) -> Transaction:
        return Transaction("card")

    async def process_payment(self, request: ProcessPaymentCommand) -> Transaction:
        return Transaction("paypal")


class CreditCardPaymentHandler(CORRequestHandler[ProcessPaymentCommand, PaymentResult]):
    def __init__(self, payment_service: PaymentServiceProtocol) -> None:
        self._payment_service = payment_service
        self._events: typing.List[Event] = []  # noqa: UP006

    @property
    def events(self) -> typing.List[Event]:  # noqa: UP006
        return self._events

    async def handle(self, request: ProcessPaymentCommand) -> PaymentResult | None:
        if request.payment_method == "credit_card":
            result = await self._payment_service.process_credit_card(request)
            self._events.append(PaymentProcessedEvent(transaction_id=result.id))
            return PaymentResult(success=True, transaction_id=result.id)
        return await self.next(request)


class PayPalPaymentHandler(CORRequestHandler[ProcessPaymentCommand, PaymentResult]):
    def __init__(self, paypal_service: PayPalServiceProtocol) -> None:
        self._paypal_service = paypal_service
        self._events: typing.List[Event] = []  # noqa: UP006

    @property
    def events(self) -> typing.List[Event]:  # noqa: UP006
        return self._events

    async def handle(self, request: ProcessPaymentCommand) -> PaymentResult | None:
        if request.payment_method == "paypal":
            result = await self._paypal_service.process_payment(request)
            return PaymentResult(success=True, transaction_id=result.id)
        return await self.next(request)


class DefaultPaymentHandler(CORRequestHandler[ProcessPaymentCommand, PaymentResult]):
    @property
    def events(self) -> typing.List[Event]:  # noqa: UP006
        return []

    async def handle(self, request: ProcessPaymentCommand) -> PaymentResult | None:
        return PaymentResult(success=False, transaction_id="none")


def payment_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(
        ProcessPaymentCommand,
        [
            CreditCardPaymentHandler,
            PayPalPaymentHandler,
            DefaultPaymentHandler,
        ],
    )


async def test_chain_of_responsibility_handler() -> None:
    """Sections "Chain of Responsibility Request Handler" and "Mapping" (the chain)."""
    told: list[str] = []

    class NotePayment(cqrs.EventHandler[PaymentProcessedEvent]):
        async def handle(self, event: PaymentProcessedEvent) -> None:
            told.append(event.transaction_id)

    container = cqrs.PlainContainer()
    container.register(PaymentServiceProtocol, Services)
    container.register(PayPalServiceProtocol, Services)
    mediator = bootstrap.bootstrap(
        di_container=container,
        commands_mapper=payment_mapper,
        domain_events_mapper=bind((PaymentProcessedEvent, NotePayment)),
    )
    results = [
        await mediator.send(ProcessPaymentCommand(payment_method=method, amount=1))
        for method in ("credit_card", "paypal", "cheque")
    ]
    assert [result.transaction_id for result in results] == ["card", "paypal", "none"]
    assert told == ["card"]


def test_mermaid_diagrams_of_a_chain() -> None:
    """Section "Mermaid Diagram Generation" (chains)."""
    handlers = [CreditCardPaymentHandler, PayPalPaymentHandler, DefaultPaymentHandler]
    generator = CoRMermaid(handlers)
    sequence_diagram = generator.sequence()
    class_diagram = generator.class_diagram()
    assert sequence_diagram.startswith("sequenceDiagram")
    assert class_diagram.startswith("classDiagram")
    assert all(handler.__name__ in sequence_diagram and handler.__name__ in class_diagram for handler in handlers)


# --- what the mapping and bootstrap sections leave out


class NotificationMeetingRoomClosed(pydantic.BaseModel):
    room: str


class ECSTMeetingRoomClosed(pydantic.BaseModel):
    room: str
    reason: str


closed: list[object] = []


class MeetingRoomClosedNotificationHandler(cqrs.EventHandler[events.NotificationEvent[NotificationMeetingRoomClosed]]):
    async def handle(self, event: events.NotificationEvent[NotificationMeetingRoomClosed]) -> None:
        closed.append(event.payload)


class UpdateMeetingRoomReadModelHandler(cqrs.EventHandler[events.NotificationEvent[ECSTMeetingRoomClosed]]):
    async def handle(self, event: events.NotificationEvent[ECSTMeetingRoomClosed]) -> None:
        closed.append(event.payload)


def init_commands(mapper: requests.RequestMap) -> None:
    mapper.bind(JoinMeetingCommand, JoinMeetingCommandHandler)


def init_queries(mapper: requests.RequestMap) -> None:
    mapper.bind(ReadMeetingQuery, ReadMeetingQueryHandler)


def init_events(mapper: events.EventMap) -> None:
    mapper.bind(events.NotificationEvent[NotificationMeetingRoomClosed], MeetingRoomClosedNotificationHandler)
    mapper.bind(events.NotificationEvent[ECSTMeetingRoomClosed], UpdateMeetingRoomReadModelHandler)


def test_mapping_of_commands_queries_and_events() -> None:
    """Section "Mapping" (commands, queries and events), with the maps under ``cqrs.requests`` and ``cqrs.events``."""
    request_map, event_map = requests.RequestMap(), events.EventMap()
    init_commands(request_map)
    init_queries(request_map)
    init_events(event_map)
    assert request_map == {
        JoinMeetingCommand: JoinMeetingCommandHandler,
        ReadMeetingQuery: ReadMeetingQueryHandler,
    }
    assert list(event_map.values()) == [
        [MeetingRoomClosedNotificationHandler],
        [UpdateMeetingRoomReadModelHandler],
    ]


def test_mapping_of_a_streaming_handler() -> None:
    """Section "Mapping" (streaming handler)."""

    def commands_mapper(mapper: cqrs.RequestMap) -> None:
        mapper.bind(ProcessFilesCommand, ProcessFilesCommandHandler)

    mapper = cqrs.RequestMap()
    commands_mapper(mapper)
    assert mapper[ProcessFilesCommand] is ProcessFilesCommandHandler


# --- what the saga sections leave out


@dataclasses.dataclass
class OrderContext(SagaContext):
    order_id: str
    user_id: str
    items: list[str]
    total_amount: float
    inventory_reservation_id: str | None = None
    payment_id: str | None = None


class ReserveInventoryResponse(Response):
    reservation_id: str


class ReserveInventoryStep(SagaStepHandler[OrderContext, ReserveInventoryResponse]):
    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, ReserveInventoryResponse]:
        context.inventory_reservation_id = f"reservation_{context.order_id}"
        return self._generate_step_result(ReserveInventoryResponse(reservation_id=context.inventory_reservation_id))

    async def compensate(self, context: OrderContext) -> None:
        context.inventory_reservation_id = None


class PaymentRefused(Exception):
    pass


class ProcessPaymentStep(SagaStepHandler[OrderContext]):
    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext]:
        if context.total_amount > 1000:
            raise PaymentRefused
        context.payment_id = f"payment_{context.order_id}"
        return self._generate_step_result(None)


class OrderSaga(Saga[OrderContext]):
    steps = [
        ReserveInventoryStep,
        ProcessPaymentStep,
    ]


class OrderSagaWithFallback(Saga[OrderContext]):
    steps = [ProcessPaymentStep]


def test_mapping_of_sagas() -> None:
    """Section "Mapping" (sagas): a second bind of one context is allowed, and counts from then on."""

    def saga_mapper(mapper: cqrs.SagaMap) -> None:
        mapper.bind(OrderContext, OrderSaga)
        mapper.bind(OrderContext, OrderSagaWithFallback)

    mapper = cqrs.SagaMap()
    saga_mapper(mapper)
    assert mapper[OrderContext] is OrderSagaWithFallback
    assert mapper.sagas_of(OrderContext) == (OrderSaga, OrderSagaWithFallback)


async def test_saga_declaration() -> None:
    """Section "Saga Pattern", the declaration: context, steps, and the result of a step."""
    context = OrderContext(order_id="123", user_id="user_1", items=["item_1"], total_amount=100.0)
    assert OrderContext.from_dict(context.to_dict()) == context
    assert OrderSaga().steps_count == 2
    step_result = await ReserveInventoryStep().act(context)
    assert step_result.step_type.__name__ == "ReserveInventoryStep"
    assert step_result.response.reservation_id == context.inventory_reservation_id == "reservation_123"


def order_mediator(saga: type[Saga[OrderContext]], storage: MemorySagaStorage | None = None) -> cqrs.SagaMediator:
    return saga_bootstrap.bootstrap(
        di_container=cqrs.PlainContainer(), sagas_mapper=bind((OrderContext, saga)), saga_storage=storage
    )


async def test_saga_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Section "Saga Pattern", "Example": the saga is run by the mediator, and its results are printed."""
    mediator = order_mediator(OrderSaga, MemorySagaStorage())

    context = OrderContext(order_id="123", user_id="user_1", items=["item_1"], total_amount=100.0)
    saga_id = uuid.uuid4()

    async for step_result in mediator.stream(context, saga_id=saga_id):
        print(f"Step completed: {step_result.step_type.__name__}")  # noqa: T201

    assert capsys.readouterr().out == "Step completed: ReserveInventoryStep\nStep completed: ProcessPaymentStep\n"
    assert context.payment_id == "payment_123"
    status, stored, _ = await mediator.storage.load_saga_state(saga_id)
    assert status is cqrs.SagaStatus.COMPLETED
    assert OrderContext.from_dict(stored) == context


async def test_saga_example_whose_payment_fails() -> None:
    """Section "Saga Pattern", "Example": if any step fails, compensation happens, and the failure is raised."""
    mediator = order_mediator(OrderSaga)
    context = OrderContext(order_id="123", user_id="user_1", items=["item_1"], total_amount=5000.0)
    saga_id = uuid.uuid4()
    done: list[str] = []
    with pytest.raises(PaymentRefused):  # noqa: PT012
        async for step_result in mediator.stream(context, saga_id=saga_id):
            done.append(step_result.step_type.__name__)  # noqa: PERF401
    assert done == ["ReserveInventoryStep"]
    assert context.inventory_reservation_id is None
    status, _, _ = await mediator.storage.load_saga_state(saga_id)
    assert status is cqrs.SagaStatus.FAILED


async def test_saga_fallback_with_circuit_breaker() -> None:
    """Section "Fallback Pattern with Circuit Breaker": the fallback acts, and after two failures it alone does."""
    pytest.importorskip("aiobreaker")
    from cqrs.adapters.circuit_breaker import AioBreakerAdapter

    calls: list[str] = []

    class PrimaryStep(SagaStepHandler[OrderContext, ReserveInventoryResponse]):
        async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, ReserveInventoryResponse]:
            calls.append("primary")
            raise RuntimeError("Service unavailable")

    class FallbackStep(SagaStepHandler[OrderContext, ReserveInventoryResponse]):
        async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, ReserveInventoryResponse]:
            reservation_id = f"fallback_reservation_{context.order_id}"
            context.reservation_id = reservation_id
            return self._generate_step_result(ReserveInventoryResponse(reservation_id=reservation_id))

    class OrderSagaWithFallback(Saga[OrderContext]):
        steps = [
            Fallback(
                step=PrimaryStep,
                fallback=FallbackStep,
                circuit_breaker=AioBreakerAdapter(
                    fail_max=2,
                    timeout_duration=60,
                ),
            ),
        ]

    mediator = order_mediator(OrderSagaWithFallback)
    for order_id in ("1", "2", "3"):
        context = OrderContext(order_id=order_id, user_id="user_1", items=[], total_amount=1.0)
        (result,) = [result async for result in mediator.stream(context)]
        assert result.step_type is FallbackStep
        assert result.response.reservation_id == f"fallback_reservation_{order_id}"
    assert calls == ["primary", "primary"]


async def test_saga_recovery_and_history(capsys: pytest.CaptureFixture[str]) -> None:
    """Section "Saga Pattern", recovery: an interrupted saga resumes behind its last step, and its log is printed."""
    storage, di_container, saga_id = MemorySagaStorage(), cqrs.PlainContainer(), uuid.uuid4()
    context = OrderContext(order_id="123", user_id="user_1", items=["item_1"], total_amount=100.0)
    async with aclosing(order_mediator(OrderSaga, storage).stream(context, saga_id=saga_id)) as results:
        await anext(results)

    saga = OrderSaga()

    await recover_saga(
        saga=saga,
        saga_id=saga_id,
        context_builder=OrderContext,
        container=di_container,
        storage=storage,
    )

    history = await storage.get_step_history(saga_id)
    for entry in history:
        print(f"{entry.timestamp}: {entry.step_name} - {entry.action} - {entry.status}")  # noqa: T201

    printed = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [
        "ReserveInventoryStep - act - started",
        "ReserveInventoryStep - act - completed",
        "ProcessPaymentStep - act - started",
        "ProcessPaymentStep - act - not_started",
        "ProcessPaymentStep - act - started",
        "ProcessPaymentStep - act - completed",
    ]
    assert (await storage.load_saga_state(saga_id))[0] is cqrs.SagaStatus.COMPLETED


async def test_saga_recovery_continues_a_compensation() -> None:
    """Section "Saga Pattern", recovery: a saga that was being compensated is, and says so by a RuntimeError."""
    storage, saga_id = MemorySagaStorage(), uuid.uuid4()
    context = OrderContext(order_id="123", user_id="user_1", items=[], total_amount=1.0)
    async with aclosing(order_mediator(OrderSaga, storage).stream(context, saga_id=saga_id)) as results:
        await anext(results)
    await storage.update_status(saga_id, cqrs.SagaStatus.COMPENSATING)
    with pytest.raises(RuntimeError, match="compensating"):
        await recover_saga(OrderSaga(), saga_id, OrderContext, cqrs.PlainContainer(), storage)
    status, stored, _ = await storage.load_saga_state(saga_id)
    assert status is cqrs.SagaStatus.FAILED
    assert stored["inventory_reservation_id"] is None


def test_mermaid_diagrams_of_a_saga() -> None:
    """Section "Mermaid Diagram Generation" (sagas)."""
    saga = OrderSaga()
    generator = SagaMermaid(saga)

    sequence_diagram = generator.sequence()

    class_diagram = generator.class_diagram()

    assert sequence_diagram.startswith("sequenceDiagram")
    assert class_diagram.startswith("classDiagram")
    steps = ("ReserveInventoryStep", "ProcessPaymentStep")
    assert all(step in sequence_diagram and step in class_diagram for step in steps)


async def test_di_library() -> None:
    """Section "di library"."""
    di = pytest.importorskip("di")
    from di import dependent

    def setup_di() -> typing.Any:
        container = di.Container()
        container.bind(
            di.bind_by_type(
                dependent.Dependent(MeetingAPI, scope="request"),
                MeetingAPIProtocol,
            )
        )
        return container

    mediator = bootstrap.bootstrap(di_container=setup_di(), queries_mapper=init_queries)
    assert (await mediator.send(ReadMeetingQuery(meeting_id="7"))).link == "https://meet/7"


async def test_dependency_injector_library() -> None:
    """Section "dependency-injector library"."""
    pytest.importorskip("dependency_injector")
    from dependency_injector import containers, providers

    from cqrs.container.dependency_injector import DependencyInjectorCQRSContainer

    class ApplicationContainer(containers.DeclarativeContainer):
        service = providers.Factory(MeetingAPI)
        handler = providers.Factory(ReadMeetingQueryHandler, meetings_api=service)

    cqrs_container = DependencyInjectorCQRSContainer(ApplicationContainer())
    mediator = bootstrap.bootstrap(
        di_container=cqrs_container,
        commands_mapper=init_queries,
    )
    assert (await mediator.send(ReadMeetingQuery(meeting_id="7"))).link == "https://meet/7"


async def test_bootstrap() -> None:
    """Section "Bootstrap": cached factories of a request, an event and a saga mediator, with ``on_startup``."""
    started: list[str] = []
    orm = types.SimpleNamespace(init_store_event_mapper=lambda: started.append("mapped"))

    @functools.lru_cache
    def mediator_factory() -> cqrs.RequestMediator:
        return request_bootstrap.bootstrap(
            di_container=meeting_container(MeetingAPI()),
            commands_mapper=init_commands,
            queries_mapper=init_queries,
            domain_events_mapper=init_events,
            on_startup=[orm.init_store_event_mapper],
        )

    @functools.lru_cache
    def event_mediator_factory() -> cqrs.EventMediator:
        return event_bootstrap.bootstrap(
            di_container=meeting_container(MeetingAPI()),
            events_mapper=init_events,
            on_startup=[orm.init_store_event_mapper],
        )

    @functools.lru_cache
    def saga_mediator_factory() -> cqrs.SagaMediator:
        return saga_bootstrap.bootstrap(
            di_container=cqrs.PlainContainer(),
            sagas_mapper=bind((OrderContext, OrderSaga)),
            domain_events_mapper=init_events,
            saga_storage=MemorySagaStorage(),
        )

    assert (await mediator_factory().send(ReadMeetingQuery(meeting_id="1"))).meeting_id == "1"
    order = OrderContext(order_id="1", user_id="ada", items=[], total_amount=1.0)
    assert len([step async for step in saga_mediator_factory().execute(order)]) == 2
    closed.clear()
    payload = NotificationMeetingRoomClosed(room="blue")
    await event_mediator_factory().send(
        events.NotificationEvent[NotificationMeetingRoomClosed](event_name="RoomClosed", payload=payload)
    )
    assert closed == [payload]
    assert mediator_factory() is mediator_factory()
    assert started == ["mapped", "mapped"]


# --- what the event sections leave out


class UserJoinedNotificationPayload(pydantic.BaseModel):
    user_id: str
    meeting_id: str


class UserJoinedECSTPayload(pydantic.BaseModel):
    user_id: str
    meeting_id: str


async def test_producing_notification_events() -> None:
    """Section "Producing Notification Events"."""

    class Handler(cqrs.RequestHandler[JoinMeetingCommand, None]):
        def __init__(self):
            self._events = []

        @property
        def events(self):
            return self._events

        async def handle(self, request: JoinMeetingCommand) -> None:
            self._events.append(
                cqrs.NotificationEvent[UserJoinedNotificationPayload](
                    event_name="UserJoined",
                    topic="user_notification_events",
                    payload=UserJoinedNotificationPayload(
                        user_id=request.user_id,
                        meeting_id=request.meeting_id,
                    ),
                )
            )
            self._events.append(
                cqrs.NotificationEvent[UserJoinedECSTPayload](
                    event_name="UserJoined",
                    topic="user_ecst_events",
                    payload=UserJoinedECSTPayload(
                        user_id=request.user_id,
                        meeting_id=request.meeting_id,
                    ),
                )
            )

    broker = cqrs.InMemoryMessageBroker()
    mediator = bootstrap.bootstrap(message_broker=broker, commands_mapper=bind((JoinMeetingCommand, Handler)))
    async with broker.subscribe() as messages:
        await mediator.send(JoinMeetingCommand(user_id="ada", meeting_id="1"))
        with anyio.fail_after(5):
            received = [await messages.receive(), await messages.receive()]
    assert [message.topic for message in received] == ["user_notification_events", "user_ecst_events"]
    assert all(message.payload["payload"] == {"user_id": "ada", "meeting_id": "1"} for message in received)
    assert all(isinstance(message.message_id, uuid.UUID) for message in received)


class UserJoined(cqrs.DomainEvent):
    user_id: str
    meeting_id: str


async def test_event_handlers() -> None:
    """Section "Event Handlers"."""
    storage: dict[str, list[str]] = defaultdict(list)
    told: list[str] = []

    class Handler(cqrs.RequestHandler[JoinMeetingCommand, None]):
        def __init__(self):
            self._events = []

        @property
        def events(self):
            return self._events

        async def handle(self, request: JoinMeetingCommand) -> None:
            storage[request.meeting_id].append(request.user_id)
            self._events.append(
                UserJoined(user_id=request.user_id, meeting_id=request.meeting_id),
            )

    class UserJoinedEventHandler(cqrs.EventHandler[UserJoined]):
        async def handle(self, event: UserJoined) -> None:
            told.append(f"user {event.user_id} joined {event.meeting_id}")

    mediator = bootstrap.bootstrap(
        commands_mapper=bind((JoinMeetingCommand, Handler)),
        domain_events_mapper=bind((UserJoined, UserJoinedEventHandler)),
    )
    await mediator.send(JoinMeetingCommand(user_id="ada", meeting_id="1"))
    assert storage == {"1": ["ada"]}
    assert told == ["user ada joined 1"]


async def test_parallel_event_processing() -> None:
    """Section "Parallel Event Processing": three of a result's events are handled at once, and not four."""
    running, most = 0, 0
    all_in = anyio.Event()

    class Part(cqrs.DomainEvent):
        number: int

    class Handler(StreamingRequestHandler[ProcessFilesCommand, FileProcessedResult]):
        def __init__(self) -> None:
            self._events: list[Event] = []

        @property
        def events(self) -> list[Event]:
            return self._events

        async def handle(self, request: ProcessFilesCommand) -> typing.AsyncIterator[FileProcessedResult]:
            self._events += [Part(number=number) for number in range(6)]
            yield FileProcessedResult(file_id="a", status="completed")

    class PartHandler(cqrs.EventHandler[Part]):
        async def handle(self, event: Part) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                all_in.set()
            with anyio.fail_after(5):
                await all_in.wait()
            running -= 1

    mediator = bootstrap.bootstrap_streaming(
        di_container=cqrs.PlainContainer(),
        commands_mapper=bind((ProcessFilesCommand, Handler)),
        domain_events_mapper=bind((Part, PartHandler)),
        message_broker=cqrs.DevnullMessageBroker(),
        max_concurrent_event_handlers=3,
        concurrent_event_handle_enable=True,
    )
    assert len([result async for result in mediator.stream(ProcessFilesCommand(file_ids=["a"]))]) == 1
    assert (most, running) == (3, 0)


def test_no_optional_library_is_needed_for_these_sections() -> None:
    """The sections on messages, handlers, maps and mediators import nothing but the core."""
    import subprocess

    optional = ("di", "dishka", "dependency_injector", "aiobreaker", "google.protobuf", "opentelemetry", "fastapi")
    code = f"import sys, cqrs, cqrs.requests.bootstrap; print([name for name in {optional} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"
