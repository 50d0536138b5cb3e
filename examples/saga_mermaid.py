"""Draw a saga as Mermaid diagrams.

Paste a diagram into a ``mermaid`` code block of a Markdown page, or into a Mermaid editor.
"""

from __future__ import annotations

import argparse
import dataclasses

import anyio

from cqrs.response import Response
from cqrs.saga.fallback import Fallback
from cqrs.saga.mermaid import SagaMermaid
from cqrs.saga.models import SagaContext
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler, SagaStepResult


@dataclasses.dataclass
class OrderContext(SagaContext):
    """What the steps of an order share."""

    order_id: str
    amount: float
    reservation_id: str | None = None


class Reserved(Response):
    """What a reservation is answered with."""

    reservation_id: str


class ReserveInventory(SagaStepHandler[OrderContext, Reserved]):
    """Reserves in the nearest warehouse."""

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, Reserved]:
        context.reservation_id = f"near-{context.order_id}"
        return self._generate_step_result(Reserved(reservation_id=context.reservation_id))

    async def compensate(self, context: OrderContext) -> None:
        context.reservation_id = None


class ReserveInFarWarehouse(ReserveInventory):
    """Reserves in the other one."""

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, Reserved]:
        context.reservation_id = f"far-{context.order_id}"
        return self._generate_step_result(Reserved(reservation_id=context.reservation_id))


class CheckFraud(SagaStepHandler[OrderContext]):
    """Looks, and changes nothing: there is nothing to compensate."""

    timeout = 5.0

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, None]:
        return self._generate_step_result(None)


class BookCourier(SagaStepHandler[OrderContext]):
    """Books a courier."""

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, None]:
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        print(f"courier for {context.order_id} cancelled")


class TakePayment(SagaStepHandler[OrderContext]):
    """Takes the money. From here on the order is delivered."""

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, None]:
        return self._generate_step_result(None)


class SendConfirmation(SagaStepHandler[OrderContext]):
    """Sends a mail, as often as is needed until it is accepted."""

    async def act(self, context: OrderContext) -> SagaStepResult[OrderContext, None]:
        return self._generate_step_result(None)


class OrderSaga(Saga[OrderContext]):
    """An order, from the warehouse to the mail."""

    steps = (
        Fallback(step=ReserveInventory, fallback=ReserveInFarWarehouse, failure_exceptions=(ConnectionError,)),
        Parallel(CheckFraud, BookCourier),
        Pivot(TakePayment),
        SendConfirmation,
    )


async def main() -> None:
    """Print both diagrams."""
    generator = SagaMermaid(OrderSaga())
    print(generator.sequence(), generator.class_diagram(), sep="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
