"""RequestMap, RequestHandlerFallback and SagaMap: what may be bound."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic

import pytest
from typing_extensions import TypeVar

import cqrs
from cqrs.exceptions import AlreadyBoundError, BindingError, RequestHandlerTypeError, SagaDoesNotExist, SagaTypeError

T = TypeVar("T")


class Created(cqrs.Response):
    number: int


class CreatedWell(Created):
    pass


class Other(cqrs.Response):
    pass


class Create(cqrs.Request[Created]):
    number: int


class CreateSoon(Create):
    pass


class Ask(cqrs.Request):
    pass


class Tell(cqrs.Request[None]):
    pass


@dataclasses.dataclass
class TellDC(cqrs.DCRequest[None]):
    pass


class Numbers(cqrs.Request[list[int]]):
    pass


class CreateHandler(cqrs.RequestHandler[Create, Created]):
    async def handle(self, request: Create) -> Created:
        return Created(number=request.number)


class CreateWellHandler(cqrs.RequestHandler[Create, CreatedWell]):
    async def handle(self, request: Create) -> CreatedWell:
        return CreatedWell(number=request.number)


class CreateOther(cqrs.RequestHandler[Create, Other]):
    async def handle(self, request: Create) -> Other:
        return Other()


class CreateAny(cqrs.RequestHandler[Create, Any]):
    async def handle(self, request: Create) -> Any: ...


class CreateNone(cqrs.RequestHandler[Create, None]):
    async def handle(self, request: Create) -> None: ...


class CreateSync(cqrs.RequestHandler[Create, Created]):
    def handle(self, request: Create) -> Created:  # type: ignore[override]
        return Created(number=1)


class AskHandler(cqrs.RequestHandler[Ask, Other]):
    async def handle(self, request: Ask) -> Other:
        return Other()


class AskNone(cqrs.RequestHandler[Ask, None]):
    async def handle(self, request: Ask) -> None: ...


class TellHandler(cqrs.RequestHandler[Tell, None]):
    async def handle(self, request: Tell) -> None: ...


class TellOther(cqrs.RequestHandler[Tell, Other]):
    async def handle(self, request: Tell) -> Other:
        return Other()


class TellDCOther(cqrs.RequestHandler[TellDC, Other]):
    async def handle(self, request: TellDC) -> Other:
        return Other()


class NumbersHandler(cqrs.RequestHandler[Numbers, list[int]]):
    async def handle(self, request: Numbers) -> list[int]:
        return []


class CreateStream(cqrs.StreamingRequestHandler[Create, Created]):
    async def handle(self, request: Create) -> AsyncIterator[Created]:
        yield Created(number=1)


class CreateStreamToo(CreateStream):
    pass


class CreateStreamSync(cqrs.StreamingRequestHandler[Create, Created]):
    def handle(self, request: Create) -> list[Created]:  # type: ignore[override]
        return []


class CreateSend(cqrs.SendStreamRequestHandler[Create, Created]):
    async def handle(self, request: Create, results: Any) -> None: ...


class Link(cqrs.CORRequestHandler[Create, Created]):
    async def handle(self, request: Create) -> Created | None:
        return await self.next(request)


class LinkToo(Link):
    pass


class AskLink(cqrs.CORRequestHandler[Ask, Other]):
    async def handle(self, request: Ask) -> Other | None:
        return await self.next(request)


class SyncLink(cqrs.CORRequestHandler[Create, Created]):
    def handle(self, request: Create) -> Created | None:  # type: ignore[override]
        return None


class GenericHandler(cqrs.RequestHandler[T, Created], Generic[T]):
    async def handle(self, request: T) -> Created:
        return Created(number=1)


class ClosedHandler(GenericHandler[Create]):
    pass


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Decorated(cqrs.RequestHandler[Create, Created]):
    @traced
    async def handle(self, request: Create) -> Created:
        return Created(number=1)


@pytest.mark.parametrize(
    ("request_type", "binding"),
    [
        (Create, CreateHandler),
        (Create, CreateWellHandler),
        (Create, CreateAny),
        (Create, Decorated),
        (Create, ClosedHandler),
        (Create, GenericHandler),
        (CreateSoon, CreateHandler),
        (Ask, AskHandler),
        (Ask, AskNone),
        (Tell, TellHandler),
        (Numbers, NumbersHandler),
        (Create, CreateStream),
        (Create, CreateSend),
        (Create, [Link, LinkToo]),
        (Create, (Link,)),
        (Create, cqrs.RequestHandlerFallback(CreateHandler, CreateAny)),
        (Create, cqrs.RequestHandlerFallback(CreateStream, CreateStreamToo)),
        (Create, cqrs.RequestHandlerFallback(CreateStream, CreateSend)),
    ],
)
def test_what_handles_the_request_is_bound(request_type: Any, binding: Any) -> None:
    """Handlers of each kind, chains and fallbacks are bound as they are given."""
    request_map = cqrs.RequestMap()
    request_map.bind(request_type, binding)
    assert request_map[request_type] == binding
    assert request_map.get(Numbers if request_type is not Numbers else Ask) is None


@pytest.mark.parametrize(
    ("request_type", "binding", "told"),
    [
        (Create, AskHandler, r"AskHandler handles Ask and cannot be bound to Create: .*RequestHandler\[Create, ...\]"),
        (Create, CreateOther, "CreateOther answers Other, but Create asks for Created"),
        (Create, CreateNone, "CreateNone answers NoneType, but Create asks for Created"),
        (Tell, TellOther, "TellOther answers Other, but Tell asks for NoneType"),
        (TellDC, TellDCOther, "TellDCOther answers Other, but TellDC asks for NoneType"),
        (Create, CreateHandler(), "is not a handler class: bind the class"),
        (Create, None, "is not a handler class"),
        (Create, "CreateHandler", "is not a handler class"),
        (Create, int, "int is not a handler of this kind: derive it from RequestHandler or"),
        (Create, Create, "Create is not a handler of this kind"),
        (Create, CreateSync, r"CreateSync.handle is not async: write 'async def handle\(self, request\)'"),
        (Create, CreateStreamSync, "CreateStreamSync.handle is not async: .*with yield in it"),
        (Create, GenericHandler[T], "is not a handler class"),  # type: ignore[valid-type]
        (Create, GenericHandler[Create], "is not a handler class"),
        (Create, Link, r"Link is a link of a chain: bind a list, \[Link\]"),
        (Create, [], "at least one CORRequestHandler; an empty list was bound"),
        (Create, [Link, Link], "holds each handler once: Link, Link repeats one"),
        (
            Create,
            [Link, CreateHandler],
            "CreateHandler is not a handler of this kind: derive it from CORRequestHandler",
        ),
        (Create, [Link()], "is not a handler class"),
        (Create, [Link, AskLink], "AskLink handles Ask"),
        (Create, [SyncLink], "SyncLink.handle is not async"),
        (Ask, [AskLink, Link], "Link handles Create"),
        (Ask, cqrs.RequestHandlerFallback(CreateHandler, CreateAny), "CreateHandler handles Create"),
        (Create(number=1), CreateHandler, "is not a class: bind the class of the request"),
        (cqrs.Request[Created], CreateAny, "is not a class"),
        (list[int], CreateAny, "is not a class"),
    ],
)
def test_what_cannot_handle_the_request_is_refused(request_type: Any, binding: Any, told: str) -> None:
    """The error says what is wrong and how to put it right; nothing is bound."""
    request_map = cqrs.RequestMap()
    with pytest.raises(RequestHandlerTypeError, match=told) as caught:
        request_map.bind(request_type, binding)
    assert isinstance(caught.value, BindingError)
    assert isinstance(caught.value, TypeError)
    assert not request_map


def test_a_request_is_bound_once() -> None:
    """A second binding is refused, by bind and by item, and the first one stays."""
    request_map = cqrs.RequestMap()
    request_map.bind(Create, CreateHandler)
    with pytest.raises(AlreadyBoundError, match=r"Create already exists in RequestMap.*A request has one handler"):
        request_map.bind(Create, CreateAny)
    with pytest.raises(KeyError):
        request_map[Create] = CreateAny
    assert request_map == {Create: CreateHandler}
    refused: list[Any] = [
        lambda: request_map.pop(Create),
        request_map.popitem,
        request_map.clear,
        lambda: request_map.update({}),
        lambda: request_map.setdefault(Ask, AskHandler),
        lambda: request_map.__delitem__(Create),
        lambda: request_map.__ior__({}),
    ]
    for refuse in refused:
        with pytest.raises(TypeError, match="Use bind"):
            refuse()
    assert request_map == {Create: CreateHandler}


@pytest.mark.parametrize(
    ("primary", "fallback", "told"),
    [
        (CreateHandler, AskHandler, "must have the same request type: the primary has Create, the fallback Ask"),
        (CreateHandler, CreateOther, "must have the same response type: the primary has Created, the fallback Other"),
        (CreateHandler, CreateStream, "must be of one kind"),
        (CreateSend, CreateHandler, "must be of one kind"),
        (CreateHandler, Link, "Link is not a handler of this kind"),
        (CreateHandler(), CreateHandler, "is not a handler class"),
        (CreateHandler, CreateSync, "is not async"),
    ],
)
def test_fallback_of_two_that_do_not_fit_is_refused(primary: Any, fallback: Any, told: str) -> None:
    """A pair that could never work is not made."""
    with pytest.raises(RequestHandlerTypeError, match=told):
        cqrs.RequestHandlerFallback(primary, fallback)


def test_fallback_knows_whether_it_streams() -> None:
    """is_streaming tells the two kinds apart; generic responses are compared without an error."""
    assert cqrs.RequestHandlerFallback(CreateStream, CreateSend).is_streaming
    assert not cqrs.RequestHandlerFallback(NumbersHandler, NumbersHandler).is_streaming


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    order_id: int = 0


@dataclasses.dataclass
class OtherContext(cqrs.SagaContext):
    pass


class OrderSaga(cqrs.Saga[OrderContext]):
    steps = []


class NewOrderSaga(cqrs.Saga[OrderContext]):
    steps = []


class AnySaga(cqrs.Saga[Any]):
    steps = []


def test_saga_bound_last_runs_and_the_earlier_ones_stay_known() -> None:
    """A context can be bound again: new runs take the last saga, runs in storage find theirs."""
    saga_map = cqrs.SagaMap()
    saga_map.bind(OrderContext, OrderSaga)
    saga_map.bind(OrderContext, NewOrderSaga)
    assert saga_map[OrderContext] is NewOrderSaga
    assert saga_map.sagas_of(OrderContext) == (OrderSaga, NewOrderSaga)
    saga_map.bind(OrderContext, OrderSaga)
    assert saga_map[OrderContext] is OrderSaga
    assert saga_map.sagas_of(OrderContext) == (NewOrderSaga, OrderSaga)
    saga_map.bind(OtherContext, AnySaga)
    assert saga_map.sagas_of(OtherContext) == (AnySaga,)
    with pytest.raises(TypeError, match="Use bind"):
        saga_map.clear()


def test_context_without_a_saga_is_told() -> None:
    """Asking for the sagas of an unknown context raises the error that says how to bind one."""
    with pytest.raises(SagaDoesNotExist, match=r"mapper.bind\(OrderContext, YourSaga\)"):
        cqrs.SagaMap().sagas_of(OrderContext)


@pytest.mark.parametrize(
    ("context", "saga", "told"),
    [
        (OtherContext, OrderSaga, "OrderSaga is a saga for OrderContext and cannot be bound to OtherContext"),
        (Create, OrderSaga, "Create is not a saga context"),
        (OrderContext(), OrderSaga, "is not a saga context"),
        (OrderContext, OrderSaga(), "is not a saga class"),
        (OrderContext, CreateHandler, "CreateHandler is not a saga class"),
    ],
)
def test_saga_that_does_not_fit_is_refused(context: Any, saga: Any, told: str) -> None:
    """The error says what is wrong; nothing is bound."""
    saga_map = cqrs.SagaMap()
    with pytest.raises(SagaTypeError, match=told):
        saga_map.bind(context, saga)
    assert not saga_map
