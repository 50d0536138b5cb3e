"""The diagram model, its text, and the names of classes and types in it."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, Literal, Optional, TypeVar

import pydantic
import pytest

from cqrs._mermaid import (
    Attribute,
    Block,
    Branch,
    ClassBox,
    ClassDiagram,
    Message,
    Method,
    Note,
    Participant,
    Relation,
    RelationKind,
    SequenceDiagram,
    attributes_of,
    classes_with_fields,
    distinct_names,
    escape,
    inheritance,
    type_name,
)

T = TypeVar("T")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Page[int]", "Page[int]"),
        ("order_id", "order_id"),
        ("_private", "#95;private"),
        ("__dunder__", "#95;#95;dunder#95;#95;"),
        ("Größe", "Größe"),
        ('a<b>;"c"', "a#60;b#62;#59;#34;c#34;"),
        ("#35;", "#35;35#59;"),
        ("%%{init}", "#37;#37;#123;init#125;"),
        ("two\n  lines ", "two lines"),
        ("1. list", "1#46; list"),
        ("direction TB", "#100;irection TB"),
        ("redirection", "re#100;irection"),
        ("directions", "directions"),
        ("🙂", "#128578;"),
        ("", "#63;"),
    ],
)
def test_what_mermaid_reads_as_syntax_becomes_an_entity(text: str, escaped: str) -> None:
    """Names and plain words stay readable; everything else is an entity."""
    assert escape(text) == escaped


def test_a_sequence_diagram_is_written_line_by_line() -> None:
    """Participants first, then the steps, blocks indented and closed."""
    a, b = Participant("A", "Alice"), Participant("B", "end")
    inner = Block("par", [Branch("one", [Message(b, a, "x")]), Branch("two", [Note([a, b], "meanwhile")])])
    steps = [
        Message(a, b, "act(context)"),
        Block("alt", [Branch("it works", [inner]), Branch("else", [Message(b, a, "no", is_reply=True)])]),
    ]
    assert SequenceDiagram([a, b], steps).render().splitlines() == [
        "sequenceDiagram",
        "    participant A as Alice",
        "    participant B as end",
        "    A->>B: act(context)",
        "    alt it works",
        "        par one",
        "            B->>A: x",
        "        and two",
        "            Note over A,B: meanwhile",
        "        end",
        "    else else",
        "        B-->>A: no",
        "    end",
    ]


def test_a_class_diagram_is_written_line_by_line() -> None:
    """A plain name is its own key; any other name is a label, and so is a name that two boxes have."""
    base = ClassBox("Base", [Method("run", [Attribute("x", "int")], "str | None")], stereotype="abstract")
    boxes = [base, ClassBox("end"), ClassBox("Same", [Attribute("a", "list[int]")]), ClassBox("Same")]
    relations = [
        Relation(boxes[1], RelationKind.INHERITS, base),
        Relation(boxes[2], RelationKind.LEADS_TO, boxes[3], "next"),
        Relation(boxes[2], RelationKind.USES, base, "uses"),
    ]
    assert ClassDiagram(boxes, relations).render().splitlines() == [
        "classDiagram",
        "    class Base {",
        "        <<abstract>>",
        "        +run(x: int) str | None",
        "    }",
        '    class c2["end"]',
        '    class c3["Same"] {',
        "        +a: list[int]",
        "    }",
        '    class c4["Same"]',
        "    Base <|-- c2",
        "    c3 --> c4 : next",
        "    c3 ..> Base : uses",
    ]


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int, "int"),
        (None, "None"),
        (Any, "Any"),
        (list[int], "list[int]"),
        (dict[str, list["int | None"]], "dict[str, list[int | None]]"),
        (Optional[int], "int | None"),  # noqa: UP045
        (int | str, "int | str"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Callable[[int, str], bool], "Callable[[int, str], bool]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[int, "metres"], "int"),
        ("Later", "Later"),
        (T, "T"),
    ],
)
def test_types_are_named_as_one_writes_them(annotation: Any, name: str) -> None:
    """Short names, unions with a bar, arguments in brackets."""
    assert type_name(annotation, {}) == name


def _class(name: str, module: str, qualname: str) -> type:
    return types.new_class(name, exec_body=lambda body: body.update(__module__=module, __qualname__=qualname))


def test_classes_of_one_name_are_told_apart() -> None:
    """So much of the path is added as is needed, and a number where the paths are the same."""
    order, inner_a, inner_b = _class("Order", "m", "Order"), _class("X", "m", "A.X"), _class("X", "m", "f.<locals>.X")
    here, there = _class("Pay", "a.b", "Pay"), _class("Pay", "a.c", "Pay")
    twins = _class("T", "m", "T"), _class("T", "m", "T")
    assert list(distinct_names([order, inner_a, inner_b, here, there, *twins]).values()) == [
        "Order", "A.X", "f.X", "b.Pay", "c.Pay", "m.T (1)", "m.T (2)",
    ]  # fmt: skip


class Model(pydantic.BaseModel):
    number: int
    _hidden: int = 0


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    total: int


class Plain:
    shared: ClassVar[int] = 0
    name: str
    _hidden: str


class Unresolved:
    other: DefinedNowhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("klass", "fields"),
    [
        (Model, [("number", "int")]),
        (Page, [("items", "list[T]"), ("total", "int")]),
        (Page[str], [("items", "list[str]"), ("total", "int")]),
        (Plain, [("name", "str")]),
        (Unresolved, [("other", "DefinedNowhere")]),
    ],
)
def test_fields_are_found_in_every_kind_of_class(klass: Any, fields: list[tuple[str, str]]) -> None:
    """Pydantic models, dataclasses (generic ones with their arguments) and annotated classes."""
    assert [(one.name, one.type_name) for one in attributes_of(klass, {})] == fields


class SubModel(Model):
    pass


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (Model, (Model,)),
        (Page[int], (Page[int],)),
        (list[Model] | None, (Model,)),
        (dict[str, Model | list[Model | Page[str]]], (Model, Page[str])),
        (int, ()),
        (None, ()),
        (Any, ()),
        (T, ()),
        (Plain, ()),
        ("Model", ()),
    ],
)
def test_models_and_dataclasses_are_found_inside_annotations(annotation: Any, found: tuple[Any, ...]) -> None:
    """Each once, a generic one with its arguments; nothing else is worth a box."""
    assert tuple(classes_with_fields(annotation)) == found


def test_other_classes_are_found_when_they_are_asked_for() -> None:
    """Their subclasses as well."""
    assert tuple(classes_with_fields(list[Unresolved] | Plain, (Plain,))) == (Plain,)
    assert tuple(classes_with_fields(bool, (int,))) == (bool,)


def test_inheritance_is_drawn_between_the_boxes_that_are_there() -> None:
    """Bases that have no box, and generic classes with arguments, have no arrow."""
    boxes: dict[Any, ClassBox] = {klass: ClassBox(str(klass)) for klass in (SubModel, Model, Page[int], Page)}
    assert list(inheritance(boxes)) == [Relation(boxes[SubModel], RelationKind.INHERITS, boxes[Model])]
