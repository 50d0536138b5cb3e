"""Mermaid text: sequence and class diagrams as data, and Python classes as boxes in them.

A diagram is built of the dataclasses below, with names as they are, and ``render()`` writes it,
escaping whatever Mermaid would read as syntax.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import inspect
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import pydantic
from typing_extensions import TypeVar

from cqrs._generics import substitute

_INDENT = "    "
_UPPER_CASE_IDENTIFIER = re.compile(r"[A-Z][A-Za-z0-9_]*")
# Mermaid runs Markdown over labels: an underscore is emphasis unless it is inside a word, a point
# after a number makes a list unless more text follows at once.
_HARMLESS = r"(?<=[^\W_])_+(?=[^\W_])|\.(?=\S)|[ ,|\[\]]"
# In a class diagram "direction TB" is a statement wherever it stands, even across the end of a line.
_STATEMENT = r"d(?=irection(?:\s|$))"
_PIECES = re.compile(f"({_HARMLESS})|({_STATEMENT})|(.)")


def escape(text: str) -> str:
    """``text`` on one line, with entities for all that is not a letter, a digit or harmless punctuation."""
    return _PIECES.sub(_escape_piece, " ".join(text.split()) or "?")


def escape_call(text: str) -> str:
    """``text`` escaped as by :func:`escape`, but for parentheses, which a message may have."""
    return escape(text).replace("#40;", "(").replace("#41;", ")")


def _escape_piece(match: re.Match[str]) -> str:
    piece = match[0]
    if match[1] or (match[3] and piece != "_" and f"a{piece}".isidentifier()):
        return piece
    return f"#{ord(piece)};"


@dataclasses.dataclass(frozen=True)
class Participant:
    """A lifeline.

    :param key: what the diagram's source calls it: letters and digits, chosen by the program.
    :param label: what readers see.
    """

    key: str
    label: str

    def lines(self) -> Iterator[str]:
        """The declaration."""
        yield f"participant {self.key} as {escape(self.label)}"


@dataclasses.dataclass(frozen=True)
class Message:
    """An arrow from one participant to another, dashed where it is a reply."""

    source: Participant
    target: Participant
    text: str
    is_reply: bool = False

    def lines(self) -> Iterator[str]:
        """The arrow."""
        arrow = "-->>" if self.is_reply else "->>"
        yield f"{self.source.key}{arrow}{self.target.key}: {escape_call(self.text)}"


@dataclasses.dataclass(frozen=True)
class Note:
    """A remark over one participant, or across the space between two."""

    over: Sequence[Participant]
    text: str

    def lines(self) -> Iterator[str]:
        """The remark."""
        yield f"Note over {','.join(participant.key for participant in self.over)}: {escape(self.text)}"


@dataclasses.dataclass(frozen=True)
class Branch:
    """One of the ways through a block."""

    condition: str
    steps: Sequence[Step]


@dataclasses.dataclass(frozen=True)
class Block:
    """Steps in a frame: ``alt`` and ``par`` may have several branches, the others have one."""

    kind: Literal["alt", "par", "opt", "loop", "break"]
    branches: Sequence[Branch]

    def lines(self) -> Iterator[str]:
        """The frame and what is in it."""
        opening: str = self.kind
        for branch in self.branches:
            yield f"{opening} {escape(branch.condition)}"
            yield from _indented(branch.steps)
            opening = "and" if self.kind == "par" else "else"
        yield "end"


Step: TypeAlias = Message | Note | Block
"""What happens in a sequence diagram."""


@dataclasses.dataclass(frozen=True)
class SequenceDiagram:
    """Participants, from left to right, and what happens between them, from top to bottom."""

    participants: Sequence[Participant]
    steps: Sequence[Step]

    def render(self) -> str:
        """The diagram as Mermaid text."""
        return "\n".join(["sequenceDiagram", *_indented(self.participants), *_indented(self.steps)])


@dataclasses.dataclass(frozen=True)
class Attribute:
    """A field and its type."""

    name: str
    type_name: str

    def lines(self) -> Iterator[str]:
        """The member."""
        yield f"+{escape(self.name)}: {escape(self.type_name)}"


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, its parameters and what it returns."""

    name: str
    parameters: Sequence[Attribute]
    returns: str

    def lines(self) -> Iterator[str]:
        """The member."""
        parameters = ", ".join(f"{escape(one.name)}: {escape(one.type_name)}" for one in self.parameters)
        yield f"+{escape(self.name)}({parameters}) {escape(self.returns)}"


@dataclasses.dataclass(frozen=True, eq=False)
class ClassBox:
    """A class. Boxes are told apart by identity: two may have one name.

    :param stereotype: a word shown in guillemets above the name, such as ``abstract``.
    """

    name: str
    members: Sequence[Attribute | Method] = ()
    stereotype: str | None = None

    def lines(self, key: str) -> Iterator[str]:
        """The box, called ``key`` in the diagram's source."""
        label = escape(self.name)
        title = f"class {key}" if label == key else f'class {key}["{label}"]'
        if not self.members and not self.stereotype:
            yield title
            return
        yield f"{title} {{"
        if self.stereotype:
            yield f"{_INDENT}<<{escape(self.stereotype)}>>"
        yield from _indented(self.members)
        yield "}"


class RelationKind(enum.Enum):
    """How one class relates to another; the value is Mermaid's arrow."""

    INHERITS = "<|--"
    LEADS_TO = "-->"
    USES = "..>"


@dataclasses.dataclass(frozen=True)
class Relation:
    """``source`` inherits from, leads to or uses ``target``."""

    source: ClassBox
    kind: RelationKind
    target: ClassBox
    label: str | None = None

    def line(self, keys: Mapping[ClassBox, str]) -> str:
        """The arrow; the base class comes first, so that it is drawn above."""
        ends = [keys[self.source], keys[self.target]]
        if self.kind is RelationKind.INHERITS:
            ends.reverse()
        arrow = f" {self.kind.value} ".join(ends)
        return f"{arrow} : {escape(self.label)}" if self.label else arrow


@dataclasses.dataclass(frozen=True)
class ClassDiagram:
    """Classes and their relations. The boxes of all relations must be among ``boxes``."""

    boxes: Sequence[ClassBox]
    relations: Sequence[Relation]

    def render(self) -> str:
        """The diagram as Mermaid text."""
        keys = self._keys()
        boxes = (line for box in self.boxes for line in box.lines(keys[box]))
        relations = (relation.line(keys) for relation in self.relations)
        return "\n".join(["classDiagram", *(_INDENT + line for line in (*boxes, *relations))])

    def _keys(self) -> dict[ClassBox, str]:
        times = Counter(box.name for box in self.boxes)
        return {
            box: box.name if times[box.name] == 1 and _is_key(box.name) else f"c{number}"
            for number, box in enumerate(self.boxes, start=1)
        }


def _is_key(name: str) -> bool:
    # Mermaid's own words and the numbered keys begin with a small letter.
    return _UPPER_CASE_IDENTIFIER.fullmatch(name) is not None and escape(name) == name


def _indented(parts: Iterable[Participant | Step | Attribute | Method]) -> Iterator[str]:
    return (_INDENT + line for part in parts for line in part.lines())


def inheritance(boxes: Mapping[Any, ClassBox]) -> Iterator[Relation]:
    """The arrows between those of ``boxes``, each under its class, of which one is a base of the other."""
    for klass, box in boxes.items():
        for base in getattr(klass, "__bases__", ()):
            if base in boxes:
                yield Relation(box, RelationKind.INHERITS, boxes[base])


def distinct_names(classes: Iterable[type]) -> dict[type, str]:
    """A name for each class: its own, or where others have it too, with so much of its path as is needed."""
    unnamed = {klass: _path(klass) for klass in classes}
    names: dict[type, str] = {}
    for length in range(1, max(map(len, unnamed.values()), default=0) + 1):
        candidates = {klass: ".".join(path[-length:]) for klass, path in unnamed.items()}
        times = Counter(candidates.values())
        found = {klass: name for klass, name in candidates.items() if times[name] == 1}
        names |= found
        unnamed = {klass: path for klass, path in unnamed.items() if klass not in found}
    return names | {klass: f"{'.'.join(path)} ({n})" for n, (klass, path) in enumerate(unnamed.items(), start=1)}


def _path(klass: type) -> list[str]:
    enclosing = f"{klass.__module__}.{klass.__qualname__.removesuffix(klass.__name__)}".split(".")
    return [*(part for part in enclosing if part not in {"", "<locals>"}), klass.__name__]


def type_name(annotation: Any, names: Mapping[type, str]) -> str:
    """``annotation`` as one would write it, classes under their short names.

    :param names: the names of classes that have another in this diagram.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0], names)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if is_union(annotation):
        return _joined(" | ", arguments, names)
    if origin is not None:
        return f"{type_name(origin, names)}[{_joined(', ', arguments, names)}]"
    if _is_list_of_parameters(annotation):
        return f"[{_joined(', ', annotation, names)}]"
    return _bare_name(annotation, names)


def _joined(separator: str, annotations: Iterable[Any], names: Mapping[type, str]) -> str:
    return separator.join(type_name(annotation, names) for annotation in annotations)


def _is_list_of_parameters(annotation: Any) -> bool:
    """Whether ``annotation`` is the first argument of a ``Callable``."""
    return isinstance(annotation, list)


def _bare_name(annotation: Any, names: Mapping[type, str]) -> str:
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, type):
        return names.get(annotation, annotation.__name__)
    if isinstance(annotation, (str, typing.ForwardRef)):
        return annotation if isinstance(annotation, str) else annotation.__forward_arg__
    return annotation.__name__ if isinstance(annotation, TypeVar) else repr(annotation).removeprefix("typing.")


def is_union(annotation: Any) -> bool:
    """Whether ``annotation`` is ``A | B``, ``Optional[A]`` or ``Union[A, B]``."""
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def classes_with_fields(annotation: Any, kinds: tuple[type, ...] = ()) -> Sequence[Any]:
    """The classes in ``annotation`` that are worth a box: ``Order`` in ``list[Order] | None``.

    A generic class comes with its arguments. Models and dataclasses are worth one.

    :param kinds: classes whose subclasses are, too.
    """
    klass: Any = typing.get_origin(annotation) or annotation
    if not is_union(annotation) and isinstance(klass, type) and _has_fields(klass, kinds):
        return (annotation,)
    parts = (found for argument in typing.get_args(annotation) for found in classes_with_fields(argument, kinds))
    return tuple(dict.fromkeys(parts))


def _has_fields(klass: Any, kinds: tuple[type, ...]) -> bool:
    return issubclass(klass, (pydantic.BaseModel, *kinds)) or dataclasses.is_dataclass(klass)


def attributes_of(annotation: Any, names: Mapping[type, str]) -> list[Attribute]:
    """The public fields of a class, or of a generic class with arguments: ``Page[int]``.

    :param names: the names of classes that have another in this diagram.
    """
    origin: Any = typing.get_origin(annotation) or annotation
    bindings = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(annotation), strict=False))
    return [
        Attribute(name, type_name(substitute(field_type, bindings), names))
        for name, field_type in _field_types(origin).items()
    ]


def _field_types(klass: Any) -> dict[str, Any]:
    if issubclass(klass, pydantic.BaseModel):
        return {name: field.annotation for name, field in klass.model_fields.items()}
    hints = _type_hints(klass)
    if dataclasses.is_dataclass(klass):
        return {field.name: hints.get(field.name, field.type) for field in dataclasses.fields(klass)}
    return {
        name: hint
        for name, hint in hints.items()
        if not name.startswith("_") and typing.ClassVar not in {hint, typing.get_origin(hint)}
    }


def _type_hints(klass: Any) -> dict[str, Any]:
    """The annotations of ``klass`` and its bases; as they were written where names in them are unknown."""
    try:
        return typing.get_type_hints(klass)
    except (NameError, AttributeError, TypeError, SyntaxError):
        written: dict[str, Any] = {}
        for base in reversed(klass.__mro__):
            with contextlib.suppress(NameError):
                written |= inspect.get_annotations(base)
        return written
