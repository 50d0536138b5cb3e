"""A chain of responsibility: each link handles a payment or passes it on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import anyio

import cqrs
from cqrs.requests import bootstrap


class PaymentResult(cqrs.Response):
    """How a payment went."""

    paid_by: str


class ProcessPayment(cqrs.Request[PaymentResult]):
    """Pay an amount."""

    amount: float
    method: str


class PaymentProcessed(cqrs.DomainEvent):
    """A payment went through."""

    amount: float


class CreditCardLink(cqrs.CORRequestHandler[ProcessPayment, PaymentResult]):
    """Takes cards."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: ProcessPayment) -> PaymentResult | None:
        if request.method != "card":
            return await self.next(request)
        self._events.append(PaymentProcessed(amount=request.amount))
        return PaymentResult(paid_by="card")


class VoucherLink(cqrs.CORRequestHandler[ProcessPayment, PaymentResult]):
    """Takes vouchers for small amounts."""

    async def handle(self, request: ProcessPayment) -> PaymentResult | None:
        if request.method != "voucher" or request.amount > 50:
            return await self.next(request)
        return PaymentResult(paid_by="voucher")


class InvoiceLink(cqrs.CORRequestHandler[ProcessPayment, PaymentResult]):
    """Takes what nobody else took."""

    async def handle(self, request: ProcessPayment) -> PaymentResult | None:
        return PaymentResult(paid_by="invoice")


class TellBookkeeping(cqrs.EventHandler[PaymentProcessed]):
    """Is told of events, whichever link recorded them."""

    async def handle(self, event: PaymentProcessed) -> None:
        print(f"  booked: {event.amount:.2f}")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """A chain is bound as a list."""
    mapper.bind(ProcessPayment, [CreditCardLink, VoucherLink, InvoiceLink])


def bind_events(mapper: cqrs.EventMap) -> None:
    """Who is told of payments."""
    mapper.bind(PaymentProcessed, TellBookkeeping)


async def main() -> None:
    """Pay in three ways."""
    mediator = bootstrap.bootstrap(commands_mapper=bind_commands, domain_events_mapper=bind_events)
    for method, amount in (("card", 99.0), ("voucher", 20.0), ("voucher", 200.0)):
        result = await mediator.send(ProcessPayment(amount=amount, method=method))
        print(f"{amount:.2f} by {method}: paid by {result.paid_by}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
