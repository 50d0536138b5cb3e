"""The order saga: reserve, take the money, ship. If a step fails, the steps before it are undone."""

from __future__ import annotations

import dataclasses

import anyio

import cqrs
from orders.handlers import Recorder
from orders.messages import PaymentTaken, status_changed
from orders.warehouse import PRICES, Bank, Warehouse


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    """What the steps share. It is stored with every step, and recovery begins with what was stored last."""

    order_id: str
    customer: str
    items: dict[str, int]
    payment_id: str | None = None
    parcel_id: str | None = None


class ReserveInventory(Recorder, cqrs.SagaStepHandler[OrderContext]):
    """Has a robot put the items aside."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await self._warehouse.reserve(context.order_id, context.items)
        self.record(status_changed(context.order_id, context.customer, "reserved"))
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        await self._warehouse.release(context.order_id)
        print(f"  {context.order_id}: put back on the shelf")


class ProcessPayment(Recorder, cqrs.SagaStepHandler[OrderContext, PaymentTaken]):
    """Takes the money. The bank has ten seconds; when they are over nobody knows, and the money is given back."""

    timeout = 10.0

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext, PaymentTaken]:
        amount = sum(PRICES[product] * quantity for product, quantity in context.items.items())
        context.payment_id = await self._bank.pay(context.order_id, context.customer, amount)
        self.record(status_changed(context.order_id, context.customer, "paid"))
        return self._generate_step_result(PaymentTaken(payment_id=context.payment_id, amount=amount))

    async def compensate(self, context: OrderContext) -> None:
        await self._bank.refund(context.order_id)
        print(f"  {context.order_id}: money given back")


class ShipOrder(Recorder, cqrs.SagaStepHandler[OrderContext]):
    """Hands the parcel over."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await anyio.sleep(0.02)
        context.parcel_id = f"parcel-of-{context.order_id}"
        self.record(status_changed(context.order_id, context.customer, "shipped"))
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[OrderContext]):
    """From the warehouse to the door."""

    steps = [ReserveInventory, ProcessPayment, ShipOrder]


def bind_sagas(mapper: cqrs.SagaMap) -> None:
    """Which saga runs for which context."""
    mapper.bind(OrderContext, OrderSaga)
