"""What a saga may be made of: asked when its class is made, with answers that say what to do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest

import cqrs
from cqrs import Fallback, OnUnknown, Parallel, Pivot, RetryPolicy, Saga, SagaContext, SagaMap, SagaStepHandler
from cqrs.exceptions import CQRSError, InvalidOptionError, SagaDoesNotExist, SagaTypeError
from cqrs.saga.validation import ContextTypeValidator, SagaContextTypeExtractor, SagaStepValidator

AnyContext = TypeVar("AnyContext", bound=SagaContext)


@dataclasses.dataclass
class Order(SagaContext):
    total: int = 0


@dataclasses.dataclass
class GiftOrder(Order):
    wrapping: str = ""


@dataclasses.dataclass
class Refund(SagaContext):
    total: int = 0


class Undecorated(SagaContext):
    total: int = 0


class Plain:
    """Not a saga context."""


class Reserve(SagaStepHandler[Order]):
    async def act(self, context: Order) -> Any: ...


class Pay(SagaStepHandler[Order, str]):
    async def act(self, context: Order) -> Any: ...


class PayBack(SagaStepHandler[Refund, str]):
    async def act(self, context: Refund) -> Any: ...


class Wrap(SagaStepHandler[GiftOrder, str]):
    async def act(self, context: GiftOrder) -> Any: ...


class Untyped(SagaStepHandler):  # type: ignore[type-arg]
    async def act(self, context: Any) -> Any: ...


class Generic(SagaStepHandler[AnyContext, str]):
    async def act(self, context: Any) -> Any: ...


class GenericForOrders(Generic[Order]):
    pass


class CheckReserve(Reserve):
    """A subclass of a step."""


class OrderSaga(Saga[Order]):
    steps = [Reserve, Pay]


def with_options(**options: Any) -> type[Any]:
    return type("Optioned", (Reserve,), options)


def saga_of(*steps: Any, **attributes: Any) -> type[Saga[Any]]:
    class Made(Saga[Order]):
        locals().update(attributes)

    Made.steps = list(steps)
    Made.stages()
    return Made


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([], id="none"),
        pytest.param((Reserve, Pay), id="a tuple"),
        pytest.param([Reserve, Pay, Reserve], id="one of them twice"),
        pytest.param([Untyped, Generic, GenericForOrders, CheckReserve], id="untyped, generic, derived"),
        pytest.param([Fallback(step=Reserve, fallback=Pay)], id="a fallback"),
        pytest.param([Parallel(Reserve, Fallback(step=Pay, fallback=Untyped), limit=1)], id="a parallel group"),
        pytest.param([Reserve, Pivot(step=Pay), Reserve], id="a pivot"),
        pytest.param([Pivot(Fallback(Pay, Reserve)), Parallel(Reserve, Pay)], id="a fallback as pivot"),
        pytest.param([with_options(timeout=1, retry=RetryPolicy(2), on_unknown="park")], id="options"),
        pytest.param([Pivot(Pay), with_options(on_unknown=OnUnknown.RETRY)], id="retried behind a pivot"),
    ],
)
def test_what_can_be_a_step(steps: Any) -> None:
    """Steps, fallbacks, parallel groups and one pivot make a saga, and any of them may be listed again."""
    declared = steps

    class Made(Saga[Order]):
        steps = declared

    assert Made.steps is declared
    assert Made().steps_count == len(declared)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(
            [int], r"step at index 0, int, is none: name a class that derives from SagaStepHandler", id="a class"
        ),
        pytest.param([Reserve, "Pay"], r"index 1, 'Pay'", id="a name"),
        pytest.param([None], r"index 0, None", id="None"),
        pytest.param([Reserve()], r"index 0, .*Reserve.*name a class", id="an instance"),
        pytest.param([[Reserve, Pay]], r"index 0.*Parallel", id="a list"),
        pytest.param("Reserve", r"must be a list of steps, not 'Reserve'", id="a string for the list"),
        pytest.param(Reserve, r"must be a list of steps", id="a step for the list"),
        pytest.param(None, r"must be a list of steps", id="None for the list"),
        pytest.param(
            [Reserve, PayBack], r"PayBack \(index 1\) expects context type Refund.*has Order", id="other context"
        ),
        pytest.param([Wrap], r"Wrap \(index 0\) expects context type GiftOrder", id="narrower context"),
        pytest.param([Parallel(Reserve, PayBack)], r"PayBack \(index 0\) expects", id="other context, in a group"),
        pytest.param([Fallback(PayBack, Untyped)], r"PayBack \(index 0\) expects", id="other context, with a fallback"),
        pytest.param([Pivot(PayBack)], r"PayBack \(index 0\) expects", id="other context, as pivot"),
        pytest.param([Pivot(Reserve), Pivot(Pay)], r"several pivots: behind the first one", id="two pivots"),
        pytest.param(
            [Pivot(Pay), with_options(on_unknown="compensate")],
            r"Optioned is behind the pivot.*must be OnUnknown\.RETRY, OnUnknown\.PARK or None",
            id="compensated behind a pivot",
        ),
        pytest.param(
            [Pivot(Pay), Parallel(Reserve, with_options(on_unknown=OnUnknown.COMPENSATE))],
            r"Optioned is behind the pivot",
            id="compensated behind a pivot, in a group",
        ),
        pytest.param([with_options(timeout=0)], r"Optioned\.timeout is 0: it must be seconds", id="timeout of 0"),
        pytest.param([with_options(timeout=-1.5)], r"Optioned\.timeout is -1\.5", id="negative timeout"),
        pytest.param([with_options(timeout="1")], r"Optioned\.timeout is '1'", id="timeout in words"),
        pytest.param([with_options(timeout=float("nan"))], r"Optioned\.timeout is nan", id="timeout of nan"),
        pytest.param(
            [with_options(retry=3)], r"Optioned\.retry is 3: it must be a cqrs\.RetryPolicy", id="retry count"
        ),
        pytest.param([with_options(retry=RetryPolicy)], r"Optioned\.retry is .*RetryPolicy", id="retry class"),
        pytest.param(
            [with_options(on_unknown="ignore")],
            r"on_unknown is 'ignore': it must be OnUnknown\.COMPENSATE, OnUnknown\.RETRY, OnUnknown\.PARK",
            id="unknown on_unknown",
        ),
        pytest.param([with_options(on_unknown=1)], r"on_unknown is 1", id="on_unknown as a number"),
    ],
)
def test_what_cannot_be_a_step(steps: Any, message: str) -> None:
    """Making the class raises SagaTypeError, which names the saga and what is wrong, and says what to do."""
    declared = steps
    with pytest.raises(SagaTypeError, match=message) as caught:

        class Made(Saga[Order]):
            steps = declared

    assert "Made" in str(caught.value) or "Optioned" in str(caught.value)
    assert isinstance(caught.value, (CQRSError, TypeError))


@pytest.mark.parametrize(
    "deadline",
    [0, -1, "1 h", float("nan"), timedelta(0), timedelta(seconds=-1)],
    ids=["0", "-1", "words", "nan", "0 s", "-1 s"],
)
def test_what_cannot_be_a_deadline(deadline: Any) -> None:
    """Making the class raises SagaTypeError for a deadline that is no positive number of seconds or timedelta."""
    declared = deadline
    with pytest.raises(SagaTypeError, match=r"Made\.deadline is .*must be a timedelta or seconds"):

        class Made(Saga[Order]):
            steps = [Reserve]
            deadline = declared


@pytest.mark.parametrize("deadline", [None, 1, 0.5, timedelta(minutes=5)])
def test_what_can_be_a_deadline(deadline: Any) -> None:
    """Seconds, a timedelta and None are deadlines."""
    assert saga_of(Reserve, deadline=deadline).deadline == deadline


@pytest.mark.parametrize("deadline", [0, -1, "1 h"])
def test_a_deadline_that_is_given_at_the_start(deadline: Any) -> None:
    """A wrong deadline of one run is refused when the run is made."""
    with pytest.raises(SagaTypeError, match="deadline is"):
        OrderSaga().transaction(Order(), cqrs.PlainContainer(), cqrs.MemorySagaStorage(), deadline=deadline)


def test_a_context_without_its_decorator() -> None:
    """A context whose fields would be lost, as it lacks @dataclass, is refused; the message says to decorate it."""
    with pytest.raises(SagaTypeError, match=r"the fields of Undecorated would be lost: decorate it with @dataclasses"):

        class Made(Saga[Undecorated]):
            steps = []


def test_a_context_that_only_adds_methods_needs_no_decorator() -> None:
    """A subclass of a decorated context that adds no fields is a context as it is; class variables are no fields."""

    class Named(Order):
        kind: ClassVar[str] = "named"

        def describe(self) -> str:
            return f"{self.total}"

    class Made(Saga[Named]):
        steps = [Reserve]

    assert Made().steps_count == 1


def test_a_context_that_is_none() -> None:
    """A saga for a class that is no SagaContext is refused."""
    with pytest.raises(SagaTypeError, match="Plain is no saga context: derive it from SagaContext"):

        class Made(Saga[Plain]):  # type: ignore[type-var]
            steps = []


def test_a_saga_for_a_derived_context_takes_steps_for_its_base() -> None:
    """A step for a context serves sagas for contexts that derive from it."""

    class Made(Saga[GiftOrder]):
        steps = [Reserve, Wrap]

    assert Made.steps == [Reserve, Wrap]


def test_a_saga_that_names_no_context_takes_any_step() -> None:
    """Without a context in its declaration, a saga's steps are not asked for theirs."""

    class Made(Saga):  # type: ignore[type-arg]
        steps = [Reserve, PayBack]

    assert Made().steps_count == 2


def test_a_step_handler_with_one_argument() -> None:
    """``SagaStepHandler[Context]`` is valid at run time; its response is None."""
    assert SagaContextTypeExtractor.extract_from_step(Reserve) is Order


def test_a_step_handler_must_act() -> None:
    """A step without ``act`` cannot be made; one without ``compensate`` can."""

    class Lazy(SagaStepHandler[Order, str]):
        pass

    with pytest.raises(TypeError, match="act"):
        Lazy()  # type: ignore[abstract]
    assert list(Reserve().events) == []


def test_a_subclass_inherits_steps() -> None:
    """A subclass of a saga has its steps and deadline unless it says otherwise; its own are checked for its context."""

    class Quick(OrderSaga):
        deadline = 1.0

    class Longer(OrderSaga):
        steps = [*OrderSaga.steps, Pay]

    assert Quick.steps == OrderSaga.steps
    assert [stage.branches[0].primary.name for stage in Longer.stages()] == ["Reserve", "Pay", "Pay#2"]
    assert OrderSaga().steps_count == 2
    with pytest.raises(SagaTypeError, match="PayBack"):

        class Wrong(OrderSaga):
            steps = [*OrderSaga.steps, PayBack]


def test_a_generic_saga_is_checked_where_its_context_is_named() -> None:
    """A base that leaves the context open takes any steps; a subclass that names one is checked for it."""

    class Base(Saga[AnyContext]):
        steps = [Reserve]

    class ForOrders(Base[Order]):
        pass

    assert ForOrders().steps_count == 1
    with pytest.raises(SagaTypeError, match="expects context type Order"):

        class ForRefunds(Base[Refund]):
            pass


def test_steps_that_are_replaced_afterwards_are_checked_when_they_are_used() -> None:
    """Steps may be replaced on the class: the new ones count, and are checked at the next use."""
    made = saga_of(Reserve)
    made.steps = [Pay, Reserve]
    assert [stage.branches[0].primary.name for stage in made.stages()] == ["Pay", "Reserve"]
    made.steps = [Reserve, PayBack]
    with pytest.raises(SagaTypeError, match="PayBack"):
        made.stages()
    made.steps = [Pay]
    assert [stage.branches[0].primary.name for stage in made.stages()] == ["Pay"]


async def test_replaced_steps_of_a_base_count_for_its_subclasses(lab: Any) -> None:
    """Replacing the steps of a base replaces those that a subclass inherits, and runs act with the new ones."""
    base = lab.saga(lab.step("A"))
    derived = type("Derived", (base,), {})
    assert await lab.run(derived) == ["A"]
    base.steps = [lab.step("B")]
    lab.id = type(lab.id)(int=1)
    lab.results.clear()
    assert await lab.run(derived) == ["B"]


async def test_a_step_that_is_appended_afterwards_acts(lab: Any) -> None:
    """Changing the list in place is replacing the steps too."""
    saga = lab.saga(lab.step("A"))
    saga.steps.append(lab.step("B"))
    assert await lab.run(saga) == ["A", "B"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Parallel(), SagaTypeError, r"Parallel\(\) has no steps: name at least one"),
        (lambda: Parallel(Reserve, "Pay"), SagaTypeError, r"Parallel\(\) consists of steps, and 'Pay' is none"),
        (lambda: Parallel(Reserve()), SagaTypeError, r"Name the class, not an instance"),
        (lambda: Parallel(Pivot(Pay)), SagaTypeError, r"Parallel\(\) consists of steps"),
        (lambda: Parallel(Parallel(Pay)), SagaTypeError, r"Parallel\(\) consists of steps"),
        (lambda: Parallel(Reserve, limit=0), InvalidOptionError, r"limit is 0"),
        (lambda: Parallel(Reserve, limit=True), InvalidOptionError, r"limit is True"),
        (lambda: Pivot(Parallel(Pay)), SagaTypeError, r"Pivot\(\) consists of steps"),
        (lambda: Pivot(Pay()), SagaTypeError, r"Name the class, not an instance"),
        (lambda: Fallback(Reserve, int), SagaTypeError, r"A fallback consists of steps, and int is none"),
        (lambda: Fallback(Reserve(), Pay), SagaTypeError, r"Name the class, not an instance"),
        (lambda: Fallback(Reserve, Reserve), SagaTypeError, r"Reserve cannot be its own fallback"),
        (lambda: Fallback(Reserve, PayBack), SagaTypeError, r"must have the same context type.*Order.*Refund"),
    ],
)
def test_what_steps_cannot_be_combined(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    """Fallbacks, parallel groups and pivots check what they are made of, and say what to do."""
    with pytest.raises(error, match=message):
        make()


def test_a_fallback_knows_its_parts() -> None:
    """A fallback has its documented attributes, and takes its two steps by position or by name."""
    fallback = Fallback(step=Reserve, fallback=Pay, failure_exceptions=(ValueError,))
    assert fallback == Fallback(Reserve, Pay, (ValueError,))
    assert (fallback.step, fallback.primary, fallback.fallback) == (Reserve, Reserve, Pay)
    assert fallback.circuit_breaker is None
    assert repr(Parallel(Reserve, Pay)) == "Parallel(Reserve, Pay)"


def test_the_documented_validators() -> None:
    """The classes of ``cqrs.saga.validation`` do what their names say."""
    assert SagaContextTypeExtractor.extract_from_class(OrderSaga, Saga) is Order
    assert SagaContextTypeExtractor.extract_from_class(saga_of(), Saga) is Order
    assert SagaContextTypeExtractor.extract_from_step(Pay) is Order
    assert SagaContextTypeExtractor.extract_from_step(Untyped) is None
    assert ContextTypeValidator.validate(GiftOrder, Order, "Made", "Pay", 0) is True
    assert ContextTypeValidator.validate(Refund, Order, "Made", "Pay", 0, raise_on_mismatch=False) is False
    with pytest.raises(SagaTypeError, match=re.escape("Made: step Pay (index 3) expects context type Order")):
        ContextTypeValidator.validate(Refund, Order, "Made", "Pay", 3)
    SagaStepValidator("Made").validate_steps([Reserve, PayBack])
    with pytest.raises(SagaTypeError, match="Made: step PayBack"):
        SagaStepValidator("Made", Order).validate_steps([PayBack])


class OrderSagaV2(Saga[Order]):
    steps = [Pay]


def test_a_saga_map_runs_the_saga_that_was_bound_last() -> None:
    """A context can be bound again, as the documentation does: the last saga runs, the others stay known."""
    sagas = SagaMap()
    sagas.bind(Order, OrderSaga)
    sagas.bind(Order, OrderSagaV2)
    assert sagas[Order] is OrderSagaV2
    assert sagas.sagas_of(Order) == (OrderSaga, OrderSagaV2)
    sagas.bind(Order, OrderSaga)
    assert sagas.sagas_of(Order) == (OrderSagaV2, OrderSaga)
    assert list(sagas) == [Order]


def test_a_saga_for_a_base_context_can_be_bound_to_a_derived_one() -> None:
    """A saga runs for contexts that derive from the one that it declares."""
    sagas = SagaMap()
    sagas.bind(GiftOrder, OrderSaga)
    assert sagas[GiftOrder] is OrderSaga


@pytest.mark.parametrize(
    ("context", "saga", "message"),
    [
        (Refund, OrderSaga, "OrderSaga is a saga for Order and cannot be bound to Refund"),
        (Plain, OrderSaga, "Plain is not a saga context: derive it from SagaContext"),
        (Order(), OrderSaga, "is not a saga context"),
        (Order, Reserve, "Reserve is not a saga class: derive it from Saga"),
        (Order, OrderSaga(), "is not a saga class"),
    ],
)
def test_what_a_saga_map_refuses(context: Any, saga: Any, message: str) -> None:
    """Binding what does not fit raises SagaTypeError."""
    with pytest.raises(SagaTypeError, match=message):
        SagaMap().bind(context, saga)


def test_a_context_that_is_not_in_the_map() -> None:
    """Asking for the sagas of a context that has none raises SagaDoesNotExist."""
    with pytest.raises(SagaDoesNotExist, match="Order"):
        SagaMap().sagas_of(Order)


async def test_two_sagas_of_one_name_cannot_share_a_mediator_that_recovers(lab: Any) -> None:
    """Storages know sagas by name: a mediator says so when two sagas of one name are to be recovered."""
    from cqrs.exceptions import ConfigurationError

    first, second = lab.saga(lab.step("A")), lab.saga(lab.step("B"))
    mediator = lab.mediator(first)
    assert mediator.saga_names == ("OrderSaga",)

    def bind(sagas: SagaMap) -> None:
        sagas.bind(lab.Order, first)
        sagas.bind(lab.Order, second)

    from cqrs.saga import bootstrap as saga_bootstrap

    with pytest.raises(ConfigurationError, match="have one name"):
        _ = saga_bootstrap.bootstrap(lab.container, sagas_mapper=bind).saga_names
