"""Every diagram is drawn by Mermaid itself, and shows the names that the classes have."""

from __future__ import annotations

import dataclasses
import pathlib
import types
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
)
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.mermaid import CoRMermaid
from cqrs.requests.request import DCRequest, Request
from cqrs.response import Response

T = TypeVar("T")


class Mermaid(Protocol):
    def read(self, diagrams: list[str]) -> list[dict[str, Any]]: ...

    def texts(self, diagram: str) -> list[str]: ...


class Page(Response, Generic[T]):
    items: list[T]
    note: str | None
    _hidden: int = 0


class Find(Request):
    __slots__ = ()
    style: dict[str, list[int]]
    end: int


@dataclasses.dataclass
class Größe(DCRequest):
    名前: str
    _private: int
    __dunder__: int


def handler(name: str, request: Any, response: Any, qualname: str | None = None) -> type[CORRequestHandler[Any, Any]]:
    async def handle(self: Any, request: Any) -> Any:
        return await self.next(request)

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(handle=handle, __qualname__=qualname or name, __module__=__name__)

    return types.new_class(name, (CORRequestHandler[request, response],), exec_body=body)


RESERVED = [
    "1. first", "direction TB", "TBook", "Xdirection", "TB",
    "end", "class", "participant", "alt", "else", "loop", "note", "Note", "namespace", "click", "style", "link",
    "href", "callback", "direction", "LR", "TD", "actor", "as", "activate", "title", "accTitle", "accDescr",
    "classDef", "cssClass", "default", "graph", "par", "rect", "box", "create", "destroy", "autonumber", "over",
    "constructor", "__proto__", "prototype", "toString", "None", "C", "H1", "c1", "c2", "wrap", "End",
]  # fmt: skip


def test_a_broken_diagram_is_refused(mermaid: Mermaid) -> None:
    """The check can fail: Mermaid names the error, and still reads the diagram after it."""
    broken = ["classDiagram\n class {", "sequenceDiagram\n A->>", "sequenceDiagram\n alt x\n A->>B: x", "nonsense"]
    *refused, accepted = mermaid.read([*broken, "sequenceDiagram\n A->>B: x"])
    assert all("error" in answer for answer in refused)
    assert accepted["type"] == "sequence"
    assert {"A", "B", "x"} <= set(accepted["texts"])


def test_an_unescaped_name_would_be_noticed(mermaid: Mermaid) -> None:
    """The check can fail: what Markdown eats is missing from the drawing."""
    assert "_a_" not in mermaid.texts('classDiagram\n class c1["_a_"]')


def test_ordinary_chains_are_drawn(mermaid: Mermaid) -> None:
    """All names, fields, signatures and arrows are in the drawing."""
    generator = CoRMermaid([handler("First", Find, Page[int]), handler("Second", Find, Page[int] | None)])
    in_sequence = mermaid.texts(generator.sequence())
    assert {"Chain", "First", "Second", "handle(request)", "next(request)", "[First can handle]"} <= set(in_sequence)
    assert {"Page[int]", "None", "answer of Second", "last of the chain"} <= set(in_sequence)
    in_classes = mermaid.texts(generator.class_diagram())
    assert {"«abstract»", "CORRequestHandler", "First", "Second", "Find", "Page[int]"} <= set(in_classes)
    assert {"+style: dict[str, list[int]]", "+end: int", "+items: list[int]", "+note: str | None"} <= set(in_classes)
    assert {"+handle(request: Find) : Page[int] | None", "next", "uses", "returns"} <= set(in_classes)


def test_unicode_and_underscored_fields_are_drawn(mermaid: Mermaid) -> None:
    """Field names arrive whole."""
    texts = mermaid.texts(CoRMermaid([handler("Обработчик", Größe, None)]).class_diagram())
    assert {"Обработчик", "Größe", "+名前: str", "+_private: int", "+__dunder__: int"} <= set(texts)


def test_nested_classes_of_one_name_are_two_boxes(mermaid: Mermaid) -> None:
    """Both are in the drawing, told apart by what encloses them."""
    generator = CoRMermaid([handler("H", Find, None, "A.H"), handler("H", Find, None, "make.<locals>.H")])
    for diagram in (generator.sequence(), generator.class_diagram()):
        assert {"A.H", "make.H"} <= set(mermaid.texts(diagram))


def sequence_of(names: Sequence[str]) -> str:
    """A sequence diagram with ``names`` everywhere a name can be."""
    participants = [Participant(f"P{number}", name) for number, name in enumerate(names)]
    steps = [
        step
        for one, name in zip(participants, names, strict=True)
        for step in (Message(one, one, name), Note([one], name), Block("opt", [Branch(name, [Note([one], name)])]))
    ]
    return SequenceDiagram(participants, steps).render()


def classes_of(names: Sequence[str]) -> str:
    """A class diagram with ``names`` everywhere a name can be."""
    boxes = [
        ClassBox(name, [Attribute(name, name), Method(name, [Attribute(name, name)], name)], stereotype=name)
        for name in names
    ]
    relations = [Relation(box, RelationKind.USES, boxes[0], box.name) for box in boxes]
    return ClassDiagram(boxes, relations).render()


def assert_all_shown(mermaid: Mermaid, names: Sequence[str]) -> None:
    shown = [mermaid.texts(sequence_of(names)), mermaid.texts(classes_of(names))]
    for name in (" ".join(name.split()) for name in names):
        assert shown[0].count(name) >= 5  # twice as a participant, a message, two notes
        assert {f"[{name}]"} <= set(shown[0])
        members = {f"+{name}: {name}", f"+{name}({name}: {name}) : {name}"}
        assert {name, f"«{name}»", *members} <= set(shown[1])
        assert shown[1].count(name) >= 2  # the box and the arrow


def test_mermaids_own_words_are_names_like_others(mermaid: Mermaid) -> None:
    """Handlers, messages and fields may be called what Mermaid's own words are called."""
    assert_all_shown(mermaid, RESERVED)


@pytest.mark.parametrize("name", ["end", "class", "Note", "__proto__"])
def test_a_chain_of_classes_called_like_mermaids_own_words(mermaid: Mermaid, name: str) -> None:
    """The handler and its response are called so; both are in the drawings."""
    response = types.new_class(name, (Response,), exec_body=lambda body: body.update(__qualname__="Answer." + name))
    generator = CoRMermaid([handler(name, Find, None, "Handler." + name), handler("Other", Find, response)])
    assert {f"Handler.{name}", "Other", f"Answer.{name}"} <= set(mermaid.texts(generator.sequence()))
    assert {f"Handler.{name}", "Other", f"Answer.{name}"} <= set(mermaid.texts(generator.class_diagram()))


identifiers = st.text(st.characters(categories=["L", "M", "N", "Pc"]), min_size=1, max_size=12).filter(str.isidentifier)
printable = st.characters(categories=["L", "N", "P", "S", "Zs"])
phrases = st.text(printable | st.sampled_from("#;:<>\"'`%{}[]()~*_^$@!-+=|., "), min_size=1, max_size=12).filter(
    str.strip
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(identifiers | phrases, min_size=1, max_size=6))
def test_any_name_arrives_whole(mermaid: Mermaid, names: list[str]) -> None:
    """Whatever a class, a field, a message or a condition is called, the drawing shows it."""
    assert_all_shown(mermaid, names)


def test_a_long_chain_is_drawn(mermaid: Mermaid) -> None:
    """Thirty handlers, one inside the other's alternative."""
    generator = CoRMermaid([handler(f"Handler{number}", Find, None) for number in range(30)])
    assert "Handler29" in mermaid.texts(generator.sequence())
    assert "Handler29" in mermaid.texts(generator.class_diagram())


def test_the_lock_names_no_registry() -> None:
    """The packages come from whatever registry npm is set up for."""
    assert '"resolved"' not in (pathlib.Path(__file__).parent / "package-lock.json").read_text(encoding="utf-8")
