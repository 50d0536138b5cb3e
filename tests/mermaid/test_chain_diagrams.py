"""The diagrams of a chain, without Mermaid: who is in them, and in which order."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Generic, TypeVar

import pytest

from cqrs.exceptions import RequestHandlerTypeError
from cqrs.requests.cor_request_handler import CORRequestHandler
from cqrs.requests.mermaid import CoRMermaid
from cqrs.requests.request import DCRequest, IRequest, Request
from cqrs.requests.request_handler import RequestHandler
from cqrs.response import DCResponse, Response

T = TypeVar("T")


class Accepted(Response):
    transaction_id: str


class Refused(Response):
    reason: str


class Pay(Request):
    amount: float
    tags: list[str]


class Card(CORRequestHandler[Pay, Accepted]):
    async def handle(self, request: Pay) -> Accepted | None:
        return await self.next(request)


class Wallet(CORRequestHandler[Pay, Accepted | Refused | None]):
    async def handle(self, request: Pay) -> Accepted | Refused | None:
        return await self.next(request)


class Base(CORRequestHandler[Pay, Accepted]):
    @abc.abstractmethod
    def limit(self) -> int: ...


class Invoice(Base):
    def limit(self) -> int:
        return 1

    async def handle(self, request: Pay) -> Accepted | None:
        return None


def test_the_sequence_shows_each_handler_answering_or_passing_on() -> None:
    """Participants in the chain's order; an answer travels back the way the request came."""
    assert CoRMermaid([Card, Wallet]).sequence().splitlines() == [
        "sequenceDiagram",
        "    participant C as Chain",
        "    participant H1 as Card",
        "    participant H2 as Wallet",
        "    C->>H1: handle(request)",
        "    alt Card can handle",
        "        H1-->>C: Accepted",
        "    else cannot handle",
        "        H1->>H2: next(request)",
        "        alt Wallet can handle",
        "            H2-->>H1: Accepted | Refused | None",
        "        else cannot handle",
        "            Note over H2: last of the chain",
        "            H2-->>H1: None",
        "        end",
        "        H1-->>C: answer of Wallet",
        "    end",
    ]


def test_the_class_diagram_shows_handlers_messages_and_links() -> None:
    """Boxes with members, inheritance through bases in between, the order, requests and responses."""
    assert CoRMermaid((Card, Wallet, Invoice)).class_diagram().splitlines() == [
        "classDiagram",
        "    class CORRequestHandler {",
        "        <<abstract>>",
        "        +events: Sequence[IEvent]",
        "        +handle(request: Request) Response | None",
        "        +next(request: Request) Response | None",
        "    }",
        "    class Base {",
        "        <<abstract>>",
        "    }",
        "    class Card {",
        "        +handle(request: Pay) Accepted | None",
        "    }",
        "    class Wallet {",
        "        +handle(request: Pay) Accepted | Refused | None",
        "    }",
        "    class Invoice {",
        "        +handle(request: Pay) Accepted | None",
        "    }",
        "    class Pay {",
        "        +amount: float",
        "        +tags: list[str]",
        "    }",
        "    class Accepted {",
        "        +transaction_id: str",
        "    }",
        "    class Refused {",
        "        +reason: str",
        "    }",
        "    CORRequestHandler <|-- Base",
        "    CORRequestHandler <|-- Card",
        "    CORRequestHandler <|-- Wallet",
        "    Base <|-- Invoice",
        "    Card --> Wallet : next",
        "    Wallet --> Invoice : next",
        "    Card ..> Pay : uses",
        "    Card ..> Accepted : returns",
        "    Wallet ..> Pay : uses",
        "    Wallet ..> Accepted : returns",
        "    Wallet ..> Refused : returns",
        "    Invoice ..> Pay : uses",
        "    Invoice ..> Accepted : returns",
    ]


@dataclasses.dataclass
class Find(DCRequest):
    name: str


@dataclasses.dataclass
class Found(DCResponse, Generic[T]):
    items: list[T]


class FindOrders(CORRequestHandler[Find, Found[int]]):
    async def handle(self, request: Find) -> Found[int] | None:
        return None


def test_dataclass_messages_and_generic_responses_have_their_own_fields() -> None:
    """A generic response is shown with the arguments that the handler gives it."""
    diagram = CoRMermaid([FindOrders]).class_diagram()
    assert '    class c4["Found[int]"] {\n        +items: list[int]\n    }' in diagram
    assert "    class Find {\n        +name: str\n    }" in diagram
    assert "    FindOrders ..> c4 : returns" in diagram


class CardPay(Pay):
    number: str


class PayAgain(CORRequestHandler[CardPay, Any]):
    async def handle(self, request: CardPay) -> Any:
        return None


class PayOnceMore(PayAgain):
    async def handle(self, request: CardPay) -> Any:
        return None


def test_a_handler_derived_from_another_link_and_a_request_from_another_request() -> None:
    """Each class has one box; inheritance among the shown classes is drawn once."""
    diagram = CoRMermaid([Card, PayAgain, PayOnceMore]).class_diagram()
    assert diagram.count("class PayAgain {") == 1
    assert diagram.count("PayAgain <|-- PayOnceMore") == 1
    assert diagram.count("Pay <|-- CardPay") == 1
    assert "+handle(request: CardPay) Any" in diagram


class Silent(CORRequestHandler):  # type: ignore[type-arg]
    async def handle(self, request: Any) -> Any:
        return None


class Items(CORRequestHandler[Pay, list[Accepted]]):
    async def handle(self, request: Pay) -> list[Accepted] | None:
        return None


def test_handlers_that_do_not_name_their_types_are_drawn_without() -> None:
    """No request and response are invented for them."""
    generator = CoRMermaid([Silent])
    assert "H1-->>C: response" in generator.sequence()
    assert "+handle(request: Any) Any" in generator.class_diagram()
    assert "..>" not in generator.class_diagram()


def test_a_message_inside_a_container_is_linked() -> None:
    """``list[Accepted]`` is what the handler returns, ``Accepted`` is the box."""
    diagram = CoRMermaid([Items]).class_diagram()
    assert "+handle(request: Pay) list[Accepted] | None" in diagram
    assert "Items ..> Accepted : returns" in diagram


class Single(RequestHandler[Pay, Accepted]):
    async def handle(self, request: Pay) -> Accepted:
        raise NotImplementedError


@pytest.mark.parametrize(
    "handlers", [[], [Single], [Card, Card], [object()], [Pay], Card, "Card", None, [IRequest]], ids=repr
)
def test_what_is_no_chain_is_refused(handlers: Any) -> None:
    """Nothing is drawn of an empty list, other classes, repeated handlers or something that is no list."""
    with pytest.raises(RequestHandlerTypeError):
        CoRMermaid(handlers)
