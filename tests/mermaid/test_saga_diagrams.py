"""The diagrams of a saga: who is in them, in which order, and that Mermaid draws them."""

from __future__ import annotations

import abc
import dataclasses
import datetime as dt
import types
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqrs.exceptions import SagaTypeError
from cqrs.response import DCResponse, IResponse, Response
from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import Fallback
from cqrs.saga.mermaid import SagaMermaid
from cqrs.saga.models import SagaContext
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.saga import Saga
from cqrs.saga.step import OnUnknown, SagaStepHandler, SagaStepResult

T = TypeVar("T")


class Mermaid(Protocol):
    def read(self, diagrams: list[str]) -> list[dict[str, Any]]: ...

    def texts(self, diagram: str) -> list[str]: ...


@dataclasses.dataclass
class Order(SagaContext):
    order_id: str
    items: list[str]
    payment_id: str | None = None


class Reserved(Response):
    reservation_id: str


@dataclasses.dataclass
class Page(DCResponse, Generic[T]):
    entries: list[T]


class Own(IResponse):
    text: str


class Reserve(SagaStepHandler[Order, Reserved]):
    async def act(self, context: Order) -> SagaStepResult[Order, Reserved]:
        raise NotImplementedError

    async def compensate(self, context: Order) -> None: ...


class Pay(SagaStepHandler[Order]):
    async def act(self, context: Order) -> SagaStepResult[Order, None]:
        raise NotImplementedError

    async def compensate(self, context: Order) -> None: ...


class Tell(SagaStepHandler[Order, None]):
    async def act(self, context: Order) -> SagaStepResult[Order, None]:
        raise NotImplementedError


class Breaker:
    async def call(self, identifier: type | str, func: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def is_circuit_breaker_error(self, exc: Exception) -> bool:
        raise NotImplementedError


def step(
    name: str, response: Any = None, *, undoes: bool = True, context: Any = Order, **namespace: Any
) -> type[SagaStepHandler[Any, Any]]:
    """A step class of that name."""

    async def act(self: Any, context: Any) -> Any: ...

    async def compensate(self: Any, context: Any) -> None: ...

    def body(contents: dict[str, Any]) -> None:
        contents.update({"act": act, "__module__": __name__, "__qualname__": name} | namespace)
        if undoes:
            contents["compensate"] = compensate

    return types.new_class(name, (SagaStepHandler[context, response],), exec_body=body)


def saga(*steps: Any, name: str = "Shop", context: Any = Order, **namespace: Any) -> type[Saga[Any]]:
    """A saga class of these steps."""
    contents = {"steps": list(steps), "__module__": __name__, "__qualname__": name, **namespace}
    return types.new_class(name, (Saga[context],), exec_body=lambda body: body.update(contents))


def sequence(*steps: Any, **namespace: Any) -> list[str]:
    """The lines of the saga's sequence diagram, without the participants and the indentation."""
    lines = (line.strip() for line in SagaMermaid(saga(*steps, **namespace)).sequence().splitlines())
    return [line for line in lines if not line.startswith("participant ")]


def branch(lines: Sequence[str], condition: str) -> list[str]:
    """What is between the one branch of that condition and the next."""
    start = next(number for number, line in enumerate(lines) if line.removeprefix("else ") == condition) + 1
    depth = 0
    for number, line in enumerate(lines[start:], start=start):
        if depth == 0 and line.split()[0] in {"else", "end", "and"}:
            return list(lines[start:number])
        depth += {"alt": 1, "opt": 1, "par": 1, "end": -1}.get(line.split()[0], 0)
    raise AssertionError(lines)


ROLLBACK = "a step fails or the run is cancelled"


def test_the_sequence_shows_the_way_forward_and_the_way_back() -> None:
    """Each step acts and answers; rolled back, the latest step comes first, and one without compensation is absent."""
    assert SagaMermaid(saga(Reserve, Tell, Pay)()).sequence().splitlines() == [
        "sequenceDiagram",
        "    participant C as Caller",
        "    participant S as Shop",
        "    participant S1 as Reserve",
        "    participant S2 as Tell",
        "    participant S3 as Pay",
        "    C->>S: stream(context)",
        "    alt every step is done",
        "        S->>S1: act(context)",
        "        S1-->>S: Reserved",
        "        S->>S2: act(context)",
        "        S2-->>S: done",
        "        S->>S3: act(context)",
        "        S3-->>S: done",
        "        S-->>C: saga COMPLETED",
        "    else a step fails or the run is cancelled",
        "        opt Pay acted, or may have",
        "            S->>S3: compensate(context)",
        "        end",
        "        opt Reserve acted, or may have",
        "            S->>S1: compensate(context)",
        "        end",
        "        S-->>C: error, saga FAILED",
        "    end",
    ]


def test_the_class_diagram_shows_saga_steps_context_and_responses() -> None:
    """Members, places in the saga, fallbacks and fields; compensate only where it does something."""
    steps = Fallback(Reserve, step("Order2", Page[int])), Parallel(Pay, Tell), Pivot(Tell)
    assert SagaMermaid(saga(*steps)).class_diagram().splitlines() == [
        "classDiagram",
        "    class Shop {",
        "        <<saga>>",
        "        +transaction(context: Order) SagaTransaction[Order]",
        "    }",
        "    class SagaStepHandler {",
        "        <<abstract>>",
        "        +events: Sequence[IEvent]",
        "        +act(context: Context) SagaStepResult[Context, Response]",
        "        +compensate(context: Context) None",
        "    }",
        "    class Reserve {",
        "        +act(context: Order) SagaStepResult[Order, Reserved]",
        "        +compensate(context: Order) None",
        "    }",
        "    class Order2 {",
        "        +act(context: Order) SagaStepResult[Order, Page[int]]",
        "        +compensate(context: Order) None",
        "    }",
        "    class Pay {",
        "        +act(context: Order) SagaStepResult[Order, None]",
        "        +compensate(context: Order) None",
        "    }",
        "    class Tell {",
        "        +act(context: Order) SagaStepResult[Order, None]",
        "    }",
        "    class Order {",
        "        +order_id: str",
        "        +items: list[str]",
        "        +payment_id: str | None",
        "    }",
        "    class Reserved {",
        "        +reservation_id: str",
        "    }",
        '    class c9["Page[int]"] {',
        "        +entries: list[int]",
        "    }",
        "    SagaStepHandler <|-- Reserve",
        "    SagaStepHandler <|-- Order2",
        "    SagaStepHandler <|-- Pay",
        "    SagaStepHandler <|-- Tell",
        "    Shop --> Reserve : step 1",
        "    Shop --> Pay : step 2 in parallel",
        "    Shop --> Tell : step 2 in parallel, step 3 as pivot",
        "    Reserve --> Order2 : fallback",
        "    Shop ..> Order : uses",
        "    Reserve ..> Order : uses",
        "    Reserve ..> Reserved : returns",
        "    Order2 ..> Order : uses",
        "    Order2 ..> c9 : returns",
        "    Pay ..> Order : uses",
        "    Tell ..> Order : uses",
    ]


def test_a_step_listed_twice_is_one_participant_that_acts_twice() -> None:
    """``[A, B, A]``: the second turn has the number that it has in the log, and is undone first."""
    generator = SagaMermaid(saga(Reserve, Pay, Reserve))
    assert generator.sequence().count("participant") == 4
    lines = sequence(Reserve, Pay, Reserve)
    forward = [line for line in branch(lines, "alt every step is done") if line.startswith("S->>")]
    assert forward == ["S->>S1: act(context)", "S->>S2: act(context)", "S->>S1: act(context)"]
    back = branch(lines, ROLLBACK)
    assert [line for line in back if line.startswith("opt")] == [
        "opt Reserve#35;2 acted, or may have",
        "opt Pay acted, or may have",
        "opt Reserve acted, or may have",
    ]
    assert "Shop --> Reserve : step 1, step 3" in generator.class_diagram()


def test_an_empty_saga_completes_at_once() -> None:
    """There is nothing to fail and nothing to draw but the saga and its context."""
    assert sequence() == [
        "sequenceDiagram",
        "C->>S: stream(context)",
        "Note over S: no steps",
        "S-->>C: saga COMPLETED",
    ]
    diagram = SagaMermaid(saga()).class_diagram()
    assert diagram.count("class ") == 2
    assert "Shop ..> Order : uses" in diagram


def test_a_saga_that_changes_nothing_says_so_when_it_is_rolled_back() -> None:
    """No empty branch: the reader sees that nothing was forgotten."""
    assert branch(sequence(Tell), ROLLBACK) == ["Note over S: nothing to compensate", "S-->>C: error, saga FAILED"]


@pytest.mark.parametrize(
    ("policy", "condition"),
    [
        ({}, "Pay fails"),
        ({"circuit_breaker": Breaker()}, "Pay fails, or its circuit is open"),
        ({"failure_exceptions": (OSError, ValueError)}, "Pay fails with OSError or ValueError"),
    ],
)
def test_a_fallback_acts_when_the_first_step_failed(policy: Any, condition: str) -> None:
    """The condition names what leads to it; the one that acted is compensated."""
    lines = sequence(Fallback(Pay, Reserve, **policy))
    assert branch(lines, "alt every step is done") == [
        "alt Pay acts",
        "S->>S1: act(context)",
        "S1-->>S: done",
        f"else {condition}",
        "S->>S2: act(context)",
        "S2-->>S: Reserved",
        "end",
        "S-->>C: saga COMPLETED",
    ]
    assert branch(lines, ROLLBACK) == [
        "alt Pay acted, or may have",
        "S->>S1: compensate(context)",
        "else Reserve acted, or may have",
        "S->>S2: compensate(context)",
        "end",
        "S-->>C: error, saga FAILED",
    ]


def test_of_a_fallback_only_the_step_that_can_compensate_is_shown_doing_so() -> None:
    """The other one is left out of the way back."""
    assert branch(sequence(Fallback(Tell, Pay)), ROLLBACK)[:-1] == [
        "opt Pay acted, or may have",
        "S->>S2: compensate(context)",
        "end",
    ]


@pytest.mark.parametrize(
    ("options", "errors", "is_shown"),
    [
        ({"timeout": 2.5}, (), True),
        ({"timeout": 2.5}, (OSError,), True),
        ({"timeout": 2.5}, (ValueError,), False),
        ({"timeout": 2.5, "undoes": False}, (), False),
        ({"timeout": 2.5, "on_unknown": "retry"}, (), True),
        ({}, (), False),
    ],
)
def test_a_first_step_that_timed_out_is_undone_before_the_fallback_acts(
    options: Any, errors: tuple[type[Exception], ...], is_shown: bool
) -> None:
    """Shown where it can time out, the timeout leads to the fallback, and there is something to undo."""
    first = step("First", **options)
    within = branch(sequence(Fallback(first, Tell, failure_exceptions=errors)), "alt every step is done")
    undone = ["opt First timed out", "S->>S1: compensate(context)", "end"]
    failed = next(number for number, line in enumerate(within) if line.startswith("else First fails")) + 1
    assert (within[failed : failed + 3] == undone) is is_shown
    assert ("S->>S1: compensate(context)" in within) is is_shown


def test_parallel_steps_act_and_compensate_side_by_side() -> None:
    """A frame with a branch for each, a fallback inside its branch; the limit is a note."""
    lines = sequence(Pay, Parallel(Reserve, Fallback(Tell, Pay), Tell, limit=2))
    assert branch(lines, "alt every step is done")[2:-1] == [
        "Note over S: at most 2 at once",
        "par Reserve",
        "S->>S2: act(context)",
        "S2-->>S: Reserved",
        "and Tell or Pay#35;2",
        "alt Tell acts",
        "S->>S3: act(context)",
        "S3-->>S: done",
        "else Tell fails",
        "S->>S1: act(context)",
        "S1-->>S: done",
        "end",
        "and Tell#35;2",
        "S->>S3: act(context)",
        "S3-->>S: done",
        "end",
    ]
    assert branch(lines, ROLLBACK) == [
        "par Reserve",
        "opt Reserve acted, or may have",
        "S->>S2: compensate(context)",
        "end",
        "and Tell or Pay#35;2",
        "opt Pay#35;2 acted, or may have",
        "S->>S1: compensate(context)",
        "end",
        "end",
        "opt Pay acted, or may have",
        "S->>S1: compensate(context)",
        "end",
        "S-->>C: error, saga FAILED",
    ]


def test_a_group_of_one_needs_no_frame() -> None:
    """``Parallel(A)`` is drawn as A, and so is the only compensation of a group."""
    assert sequence(Parallel(Pay)) == sequence(Pay)
    assert not any(line.startswith("par ") for line in branch(sequence(Parallel(Pay, Tell)), ROLLBACK))


def test_behind_a_pivot_nothing_is_compensated() -> None:
    """A note marks it; neither the pivot nor what is behind it is undone; failing there leaves it to recovery."""
    lines = sequence(Reserve, Pivot(Pay), Reserve)
    forward = branch(lines, "alt every step is done")
    assert forward[4:6] == ["Note over S: point of no return, from here on only forward", forward[5]]
    assert forward[5] == "S->>S1: act(context), up to 5 attempts"
    assert branch(lines, "up to Pay, a step fails or the run is cancelled") == [
        "opt Reserve acted, or may have",
        "S->>S1: compensate(context)",
        "end",
        "S-->>C: error, saga FAILED",
    ]
    stuck = "Pay is interrupted, a step behind the point of no return fails or is interrupted"
    assert branch(lines, stuck) == ["Note over S: recovery goes on forward", "S-->>C: error, saga RUNNING"]


def test_a_pivot_may_be_a_fallback_and_the_last_step() -> None:
    """Both of its steps are named, and there is nothing behind it."""
    lines = sequence(Reserve, Pivot(Fallback(Pay, Tell)))
    assert "else up to Pay or Tell, a step fails or the run is cancelled" in lines
    assert branch(lines, "Pay is interrupted or Tell is interrupted")[-1] == "S-->>C: error, saga RUNNING"


def test_a_pivot_that_asks_for_it_is_compensated_when_it_may_have_acted() -> None:
    """Once it is certain that it acted there is no way back."""
    lines = sequence(Pivot(step("Pay", on_unknown=OnUnknown.COMPENSATE)))
    assert "opt Pay may have acted" in lines
    assert not any("RUNNING" in line for line in lines)


def test_what_an_interrupted_step_asks_for_is_an_ending_of_its_own() -> None:
    """Left to recovery, or parked; such a step is compensated only when it is known to have acted."""
    lines = sequence(step("Poll", on_unknown="retry"), step("Wire", on_unknown="park"))
    assert "opt Poll acted" in lines
    assert "opt Wire acted" in lines
    assert "opt Poll acted, or may have" in sequence(Parallel(step("Poll", on_unknown="retry"), Tell))
    assert branch(lines, "Poll is interrupted")[-1] == "S-->>C: error, saga RUNNING"
    assert branch(lines, "Wire is interrupted")[-1] == "S-->>C: error, saga parked"


@pytest.mark.parametrize("deadline", [90, dt.timedelta(seconds=90)])
def test_limits_are_shown(deadline: Any) -> None:
    """A step's timeout and attempts, where there are several, and the saga's deadline."""
    steps = step("Poll", timeout=0.5, retry=RetryPolicy(3)), step("Once", retry=RetryPolicy(1))
    lines = sequence(*steps, deadline=deadline)
    assert "S->>S1: act(context), within 0.5 s, up to 3 attempts" in lines
    assert "S->>S2: act(context)" in lines
    assert "else a step fails, the run is cancelled or 90 s are over" in lines


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (None, "done"),
        (Reserved, "Reserved"),
        (Page[int], "Page[int]"),
        (list[Reserved], "list[Reserved]"),
        (Reserved | None, "Reserved | None"),
        (dict[str, Any], "dict[str, Any]"),
        (Own, "Own"),
        (int, "int"),
    ],
)
def test_a_step_answers_with_its_response(mermaid: Mermaid, response: Any, shown: str) -> None:
    """The type is the reply, and the result of ``act``; Mermaid shows it whole."""
    generator = SagaMermaid(saga(step("Only", response)))
    assert f"S1-->>S: {shown}" in generator.sequence()
    assert shown in mermaid.texts(generator.sequence())
    name = "None" if response is None else shown
    assert f"+act(context: Order) : SagaStepResult[Order, {name}]" in mermaid.texts(generator.class_diagram())


def test_responses_with_fields_are_boxes_and_others_are_not() -> None:
    """Also inside a container, also one of the reader's own kind, and each once."""
    steps = [step("A", list[Reserved]), step("B", Reserved), step("C", Own), step("D", int), step("E", Page[str])]
    diagram = SagaMermaid(saga(*steps)).class_diagram()
    assert diagram.count("class Reserved {") == 1
    assert "A ..> Reserved : returns" in diagram
    assert "C ..> Own : returns" in diagram
    assert "+text: str" in diagram
    assert "+entries: list[str]" in diagram
    assert diagram.count(": returns") == 4


class Mailing(SagaStepHandler[Order, T], abc.ABC):
    @abc.abstractmethod
    def address(self) -> str: ...

    async def compensate(self, context: Order) -> None: ...


class Mail(Mailing[Reserved]):
    def address(self) -> str:
        raise NotImplementedError

    async def act(self, context: Order) -> SagaStepResult[Order, Reserved]:
        raise NotImplementedError


class Again(Mail):
    async def act(self, context: Order) -> SagaStepResult[Order, Reserved]:
        raise NotImplementedError


def test_bases_between_are_drawn_and_what_they_compensate_counts() -> None:
    """A step with an inherited ``compensate`` has one; a step that is another's base has one box."""
    generator = SagaMermaid(saga(Again, Mail))
    diagram = generator.class_diagram()
    assert "class Mailing {\n        <<abstract>>\n    }" in diagram
    arrows = [line.strip() for line in diagram.splitlines() if "<|--" in line]
    assert arrows == ["SagaStepHandler <|-- Mailing", "Mailing <|-- Mail", "Mail <|-- Again"]
    assert diagram.count("class Mail {") == 1
    assert diagram.count("+compensate(context: Order) None") == 2
    assert "S->>S1: compensate(context)" in generator.sequence()


@dataclasses.dataclass
class RichOrder(Order):
    discount: float = 0.0


def test_a_step_for_a_base_of_the_sagas_context_uses_that_base() -> None:
    """Both contexts are boxes, one above the other."""
    diagram = SagaMermaid(saga(Pay, context=RichOrder)).class_diagram()
    assert "Order <|-- RichOrder" in diagram
    assert "Shop ..> RichOrder : uses" in diagram
    assert "Pay ..> Order : uses" in diagram


class Silent(SagaStepHandler):  # type: ignore[type-arg]
    async def act(self, context: Any) -> Any:
        raise NotImplementedError


class AnySaga(Saga):  # type: ignore[type-arg]
    steps = [Silent]


def test_a_saga_and_steps_that_do_not_name_their_types_are_drawn_without() -> None:
    """Nothing is invented for them."""
    generator = SagaMermaid(AnySaga)
    assert "S1-->>S: response" in generator.sequence()
    assert "+act(context: Any) SagaStepResult[Any, Any]" in generator.class_diagram()
    assert "+transaction(context: SagaContext) SagaTransaction[SagaContext]" in generator.class_diagram()
    assert "..>" not in generator.class_diagram()


def test_classes_of_one_name_are_told_apart(mermaid: Mermaid) -> None:
    """A saga and two steps called the same are three participants and three boxes."""
    namesakes = [step("Shop", __qualname__="A.Shop"), step("Shop", __qualname__="B.Shop")]
    generator = SagaMermaid(saga(*namesakes, __qualname__="C.Shop"))
    for diagram in (generator.sequence(), generator.class_diagram()):
        assert {"A.Shop", "B.Shop", "C.Shop"} <= set(mermaid.texts(diagram))


@pytest.mark.parametrize("wrong", [None, Pay, [Pay], "Shop", object(), SagaContext, Saga[Order]], ids=repr)
def test_what_is_no_saga_is_refused(wrong: Any) -> None:
    """A class or an instance of one is asked for."""
    with pytest.raises(SagaTypeError, match="is no saga"):
        SagaMermaid(wrong)


def test_the_base_of_all_sagas_is_an_empty_one() -> None:
    """Saga itself has no steps."""
    assert "no steps" in SagaMermaid(Saga).sequence()


def test_mermaid_draws_every_part_of_a_saga(mermaid: Mermaid) -> None:
    """What the reader is to see is in the drawing."""
    steps = [Fallback(Reserve, Pay, circuit_breaker=Breaker()), Parallel(Pay, Tell, limit=1), Pivot(Pay), Tell]
    generator = SagaMermaid(saga(*steps, deadline=60))
    in_sequence = set(mermaid.texts(generator.sequence()))
    assert {"Caller", "Shop", "stream(context)", "act(context)", "compensate(context)", "done"} <= in_sequence
    assert {"[Reserve fails, or its circuit is open]", "[Pay#2]", "at most 1 at once"} <= in_sequence
    assert {"[every step is done]", "saga COMPLETED", "error, saga FAILED", "error, saga RUNNING"} <= in_sequence
    assert "[up to Pay#3, a step fails, the run is cancelled or 60 s are over]" in in_sequence
    in_classes = set(mermaid.texts(generator.class_diagram()))
    assert {"«saga»", "step 1", "step 2 in parallel, step 3 as pivot", "fallback", "uses", "returns"} <= in_classes
    assert {"+payment_id: str | None", "+reservation_id: str", "+compensate(context: Order) : None"} <= in_classes


def test_mermaid_draws_an_empty_saga(mermaid: Mermaid) -> None:
    """Both diagrams of a saga without steps are diagrams."""
    generator = SagaMermaid(saga())
    assert "no steps" in mermaid.texts(generator.sequence())
    assert "+order_id: str" in mermaid.texts(generator.class_diagram())


NAMES = ["end", "note", "Ünïcödé", "__dunder__", "par", "and", "alt", "class", "S1", "C", "Caller", "step", "opt"]
POOL = [
    *(step(name, undoes=False) for name in NAMES[:4]),
    *(step(name, Page[int]) for name in NAMES[4:8]),
    *(step(name, Reserved | None, timeout=1.5, on_unknown="park") for name in NAMES[8:10]),
    *(step(name, list[Reserved], timeout=3, retry=RetryPolicy(4)) for name in NAMES[10:]),
]
plain = st.sampled_from(POOL)
fallback = st.builds(
    lambda pair, breaker, errors: Fallback(*pair, circuit_breaker=breaker, failure_exceptions=errors),
    st.lists(plain, min_size=2, max_size=2, unique=True),
    st.sampled_from([None, Breaker()]),
    st.sampled_from([(), (OSError,), (KeyError, ValueError)]),
)
single = plain | fallback
parallel = st.builds(
    lambda members, limit: Parallel(*members, limit=limit),
    st.lists(single, min_size=1, max_size=4),
    st.none() | st.integers(1, 4),
)


@st.composite
def step_lists(draw: st.DrawFn) -> list[Any]:
    """One to five steps of all kinds, at most one of them the pivot."""
    steps: list[Any] = draw(st.lists(single | parallel, min_size=1, max_size=5))
    if draw(st.booleans()):
        steps[draw(st.integers(0, len(steps) - 1))] = Pivot(draw(single))
    return steps


def handlers(item: Any) -> list[Any]:
    """The step classes in ``item``."""
    if isinstance(item, Pivot):
        return handlers(item.step)
    if isinstance(item, Parallel):
        return [handler for member in item.steps for handler in handlers(member)]
    return [item.step, item.fallback] if isinstance(item, Fallback) else [item]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=step_lists(), deadline=st.sampled_from([None, 0.5, 3600]))
def test_any_saga_is_drawn(mermaid: Mermaid, steps: list[Any], deadline: float | None) -> None:
    """Mermaid accepts both diagrams, and shows all of their steps."""
    generator = SagaMermaid(saga(*steps, name="loop", deadline=deadline))
    names = {handler.__name__ for item in steps for handler in handlers(item)}
    assert names <= set(mermaid.texts(generator.sequence()))
    assert names <= set(mermaid.texts(generator.class_diagram()))


@settings(max_examples=150, deadline=None)
@given(steps=step_lists())
def test_any_saga_acts_in_order_and_is_undone_in_reverse(steps: list[Any]) -> None:
    """Each turn acts once; compensated are those before a pivot that can be, the latest first."""
    lines = sequence(*steps)
    turns = [handler for item in steps for handler in handlers(item)]
    keys = {handler: f"S{number}" for number, handler in enumerate(dict.fromkeys(turns), start=1)}
    completed = lines.index("S-->>C: saga COMPLETED")
    assert called(lines, "act(context)") == [keys[handler] for handler in turns]
    assert called(lines[completed:], "compensate(context)") == [keys[one] for one in undone_last_first(steps)]


def called(lines: list[str], call: str) -> list[str]:
    """Whom the saga calls so."""
    return [line.split(":")[0].removeprefix("S->>") for line in lines if f": {call}" in line]


def undone_last_first(steps: list[Any]) -> list[Any]:
    """The steps that a rollback can undo: those before the pivot that override ``compensate``."""
    pivots = [number for number, item in enumerate(steps) if isinstance(item, Pivot)]
    before = steps[: pivots[0]] if pivots else steps
    default = SagaStepHandler.compensate
    return [one for item in reversed(before) for one in handlers(item) if one.compensate is not default]
