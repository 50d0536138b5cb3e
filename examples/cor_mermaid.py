"""Draw a chain of responsibility as Mermaid diagrams, then run it.

Paste a diagram into a ``mermaid`` code block of a Markdown page, or into a Mermaid editor.
"""

from __future__ import annotations

import argparse

import anyio

import cqrs
from cqrs.requests.cor_request_handler import CORRequestHandler, build_chain
from cqrs.requests.mermaid import CoRMermaid


class PaymentAccepted(cqrs.Response):
    """What a payment is answered with."""

    transaction_id: str
    method: str


class ProcessPayment(cqrs.Request[PaymentAccepted]):
    """Pay an amount by the method the customer chose."""

    amount: float
    method: str


class CreditCardHandler(CORRequestHandler[ProcessPayment, PaymentAccepted]):
    """Takes card payments."""

    async def handle(self, request: ProcessPayment) -> PaymentAccepted | None:
        if request.method != "card":
            return await self.next(request)
        return PaymentAccepted(transaction_id="card-1", method="card")


class PayPalHandler(CORRequestHandler[ProcessPayment, PaymentAccepted]):
    """Takes PayPal payments."""

    async def handle(self, request: ProcessPayment) -> PaymentAccepted | None:
        if request.method != "paypal":
            return await self.next(request)
        return PaymentAccepted(transaction_id="paypal-1", method="paypal")


class DefaultHandler(CORRequestHandler[ProcessPayment, PaymentAccepted]):
    """Sends an invoice for everything else."""

    async def handle(self, request: ProcessPayment) -> PaymentAccepted | None:
        return PaymentAccepted(transaction_id="invoice-1", method="invoice")


async def main() -> None:
    """Print both diagrams and what the drawn chain answers."""
    handlers = [CreditCardHandler, PayPalHandler, DefaultHandler]
    generator = CoRMermaid(handlers)
    print(generator.sequence(), generator.class_diagram(), sep="\n\n", end="\n\n")

    chain = build_chain([handler() for handler in handlers])
    for method in ("card", "paypal", "cheque"):
        answer = await chain.handle(ProcessPayment(amount=9.5, method=method))
        print(f"{method}: {answer}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
