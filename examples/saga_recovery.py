"""Sagas that did not come to their end, brought there by ``recover_saga``, and their logs."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import uuid
from contextlib import aclosing

import anyio

import cqrs
from cqrs.exceptions import SagaRolledBackError
from cqrs.saga import bootstrap


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    """What the steps share."""

    order_id: str
    reservation_id: str | None = None


class Warehouse:
    """A service that is not always there."""

    is_up = True

    async def call(self, what: str) -> None:
        """Do something."""
        if not self.is_up:
            raise ConnectionError("warehouse is down")
        print(f"  warehouse: {what}")


class ReserveInventory(cqrs.SagaStepHandler[OrderContext]):
    """Reserves."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        context.reservation_id = f"r-{context.order_id}"
        await self._warehouse.call(f"reserve {context.reservation_id}")
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        await self._warehouse.call(f"release {context.reservation_id}")


class ProcessPayment(cqrs.SagaStepHandler[OrderContext]):
    """Takes the money, except for one order."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        if context.order_id == "order-2":
            raise ValueError("no such card")
        print("  bank: paid")
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[OrderContext]):
    """Two steps."""

    steps = [ReserveInventory, ProcessPayment]


class Service:
    """What one process has. Other processes have the same, and share the storage."""

    def __init__(self) -> None:
        self.storage = cqrs.MemorySagaStorage()
        self.warehouse = Warehouse()
        self.container = cqrs.PlainContainer()
        self.container.register_instance(Warehouse, self.warehouse)
        self.mediator = bootstrap.bootstrap(
            di_container=self.container,
            sagas_mapper=lambda mapper: mapper.bind(OrderContext, OrderSaga),
            saga_storage=self.storage,
            compensation_retry_delay=0.01,
        )

    async def show(self, saga_id: uuid.UUID) -> None:
        """What the storage knows of a saga."""
        status, context, _ = await self.storage.load_saga_state(saga_id)
        print(f"  {status}, {context}")
        for entry in await self.storage.get_step_history(saga_id):
            print(f"  {entry.step_name} - {entry.action} - {entry.status}")

    async def recover(self, saga_id: uuid.UUID) -> None:
        """Go on where the log ends."""
        await cqrs.recover_saga(OrderSaga(), saga_id, OrderContext, self.container, self.storage)


async def leave_after_one_step(service: Service) -> uuid.UUID:
    """As a process does that ends in between. The saga stays RUNNING."""
    saga_id = uuid.uuid4()
    async with aclosing(service.mediator.stream(OrderContext(order_id="order-1"), saga_id=saga_id)) as results:
        async for result in results:
            print(f"  step: {result.step_type.__name__}")
            break
    return saga_id


async def fail_while_the_warehouse_is_down(service: Service) -> uuid.UUID:
    """The payment fails, and then the reservation cannot be released."""
    saga_id = uuid.uuid4()
    try:
        async for result in service.mediator.stream(OrderContext(order_id="order-2"), saga_id=saga_id):
            print(f"  step: {result.step_type.__name__}")
            service.warehouse.is_up = False
    except ValueError as error:
        print(f"  failed: {error}")
        for failure in cqrs.compensation_errors(error):
            print(f"  as well: {type(failure).__name__}, because of {failure.__cause__!r}")
    return saga_id


async def main() -> None:
    """One saga goes on forward, one backward."""
    logging.getLogger("cqrs").setLevel(logging.CRITICAL)  # this page tells of the failures itself
    service = Service()

    print("A saga that was left")
    saga_id = await leave_after_one_step(service)
    await service.show(saga_id)
    print("recovered")
    await service.recover(saga_id)
    await service.show(saga_id)

    print("A saga that could not be rolled back")
    saga_id = await fail_while_the_warehouse_is_down(service)
    await service.show(saga_id)
    print("recovered")
    service.warehouse.is_up = True
    try:
        await service.recover(saga_id)
    except SagaRolledBackError as error:
        print(f"  it was {error.status}")
    await service.show(saga_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
