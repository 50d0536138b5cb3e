"""An event handler with a second one to fall back on, guarded by a circuit breaker."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import anyio

import cqrs
from cqrs.adapters.circuit_breaker import AioBreakerAdapter
from cqrs.requests import bootstrap


class PlaceOrder(cqrs.Request[None]):
    """Place an order."""

    order_id: str


class OrderPlaced(cqrs.DomainEvent):
    """An order was placed."""

    order_id: str


class PlaceOrderHandler(cqrs.RequestHandler[PlaceOrder, None]):
    """Records the event."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: PlaceOrder) -> None:
        self._events.append(OrderPlaced(order_id=request.order_id))


class SendPush(cqrs.EventHandler[OrderPlaced]):
    """The way that is tried first."""

    async def handle(self, event: OrderPlaced) -> None:
        print(f"{event.order_id}: push service called")
        raise ConnectionError("push service is down")


class SendMail(cqrs.EventHandler[OrderPlaced]):
    """The way that always works."""

    async def handle(self, event: OrderPlaced) -> None:
        print(f"{event.order_id}: told by mail")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(PlaceOrder, PlaceOrderHandler)


def bind_events(mapper: cqrs.EventMap) -> None:
    """The event and both its handlers."""
    mapper.bind(
        OrderPlaced,
        cqrs.EventHandlerFallback(
            primary=SendPush,
            fallback=SendMail,
            circuit_breaker=AioBreakerAdapter(fail_max=2, timeout_duration=60),
        ),
    )


async def main() -> None:
    """Three orders; the third one finds the circuit open."""
    mediator = bootstrap.bootstrap(commands_mapper=bind_commands, domain_events_mapper=bind_events)
    for number in range(1, 4):
        await mediator.send(PlaceOrder(order_id=f"order {number}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
