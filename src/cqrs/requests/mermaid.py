"""Chains of responsibility as Mermaid diagrams."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from cqrs._generics import type_arguments
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
    Step,
    attributes_of,
    classes_with_fields,
    distinct_names,
    inheritance,
    type_name,
)
from cqrs.exceptions import RequestHandlerTypeError
from cqrs.requests._binding import check_chain
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.request import IRequest
from cqrs.response import IResponse

_MESSAGES = (IRequest, IResponse)


class CoRMermaid:
    """Draws a chain: who passes a request to whom, and which types take part.

    :param handlers: the classes of the chain in their order, as they are bound to a request.
    :raises RequestHandlerTypeError: ``handlers`` is empty, repeats a class, or has something in it
        that is no ``CORRequestHandler`` class.
    """

    def __init__(self, handlers: Sequence[type[CORRequestHandler[Any, Any]]]) -> None:
        self._links = tuple(_Link.of(handler) for handler in _checked(handlers))
        self._names = distinct_names(
            [CORRequestHandler, *(klass for link in self._links for klass in link.classes_in_sight())]
        )

    def sequence(self) -> str:
        """A sequence diagram: each handler answers, or passes the request to the next one."""
        caller = Participant("C", "Chain")
        handlers = [
            Participant(f"H{number}", self._names[link.handler]) for number, link in enumerate(self._links, start=1)
        ]
        steps = [Message(caller, handlers[0], "handle(request)"), *self._turn(caller, handlers)]
        return SequenceDiagram([caller, *handlers], steps).render()

    def class_diagram(self) -> str:
        """A class diagram: the handlers, their bases, requests and responses with their fields."""
        handlers = self._handler_boxes()
        messages = {
            message: ClassBox(type_name(message, self._names), attributes_of(message, self._names))
            for link in self._links
            for message in (*link.requests, *link.responses)
        }
        relations = [*inheritance({**handlers, **messages}), *self._passing(handlers)]
        for link in self._links:
            box = handlers[link.handler]
            relations += [Relation(box, RelationKind.USES, messages[one], "uses") for one in link.requests]
            relations += [Relation(box, RelationKind.USES, messages[one], "returns") for one in link.responses]
        return ClassDiagram([*handlers.values(), *messages.values()], relations).render()

    def _turn(self, caller: Participant, handlers: Sequence[Participant]) -> Iterator[Step]:
        """What the first of ``handlers`` does with a request of ``caller``, and those after it in turn."""
        handler, *following = handlers
        response = self._answer_of(self._links[-len(handlers)])
        answered = [Message(handler, caller, response, is_reply=True)]
        passed_on: list[Step] = [Note([handler], "last of the chain"), Message(handler, caller, "None", is_reply=True)]
        if following:
            passed_on = [
                Message(handler, following[0], "next(request)"),
                *self._turn(handler, following),
                Message(handler, caller, f"answer of {following[0].label}", is_reply=True),
            ]
        branches = [Branch(f"{handler.label} can handle", answered), Branch("cannot handle", passed_on)]
        yield Block("alt", branches)

    def _answer_of(self, link: _Link) -> str:
        return "response" if link.response is None else type_name(link.response, self._names)

    def _handler_boxes(self) -> dict[Any, ClassBox]:
        boxes: dict[Any, ClassBox] = {CORRequestHandler: self._base_box()}
        for link in self._links:
            for base in reversed(link.bases()):
                stereotype = "abstract" if inspect.isabstract(base) else None
                boxes.setdefault(base, ClassBox(self._names[base], stereotype=stereotype))
        # A link may be the base of another one: its own box, with its method, takes the place.
        return boxes | {
            link.handler: ClassBox(self._names[link.handler], [self._handle_method(link)]) for link in self._links
        }

    def _base_box(self) -> ClassBox:
        request = [Attribute("request", "Request")]
        members: list[Attribute | Method] = [
            Attribute("events", "Sequence[IEvent]"),
            Method("handle", request, "Response | None"),
            Method("next", request, "Response | None"),
        ]
        return ClassBox(self._names[CORRequestHandler], members, stereotype="abstract")

    def _handle_method(self, link: _Link) -> Method:
        request = "Any" if link.request is None else type_name(link.request, self._names)
        response = "Any" if link.response is None else type_name(link.response, self._names)
        may_be_none = response in {"Any", "None"} or response.endswith("| None")
        return Method("handle", [Attribute("request", request)], response if may_be_none else f"{response} | None")

    def _passing(self, boxes: dict[Any, ClassBox]) -> Iterator[Relation]:
        for link, following in zip(self._links, self._links[1:], strict=False):
            yield Relation(boxes[link.handler], RelationKind.LEADS_TO, boxes[following.handler], "next")


@dataclasses.dataclass(frozen=True)
class _Link:
    """A handler with what it takes and gives; None where it does not say."""

    handler: type[CORRequestHandler[Any, Any]]
    request: Any
    response: Any

    @classmethod
    def of(cls, handler: type[CORRequestHandler[Any, Any]]) -> _Link:
        request, response = (*(type_arguments(handler, CORRequestHandler) or ()), None, None)[:2]
        return cls(handler, request, response)

    @property
    def requests(self) -> Sequence[Any]:
        return classes_with_fields(self.request, _MESSAGES)

    @property
    def responses(self) -> Sequence[Any]:
        return classes_with_fields(self.response, _MESSAGES)

    def bases(self) -> Sequence[type]:
        """The classes between the handler and CORRequestHandler, nearest first."""
        between: list[type] = [base for base in self.handler.__mro__[1:] if issubclass(base, CORRequestHandler)]
        return between[:-1]

    def classes_in_sight(self) -> Sequence[type]:
        messages = (typing.get_origin(message) or message for message in (*self.requests, *self.responses))
        return [self.handler, *self.bases(), *messages]


def _checked(handlers: object) -> Sequence[type[CORRequestHandler[Any, Any]]]:
    if not isinstance(handlers, Sequence) or isinstance(handlers, str):
        raise RequestHandlerTypeError(
            f"{handlers!r} is not a chain: give a list of CORRequestHandler classes, in their order."
        )
    links = typing.cast("Sequence[type[CORRequestHandler[Any, Any]]]", handlers)
    check_chain(links)
    return links


__all__ = ["CoRMermaid"]
