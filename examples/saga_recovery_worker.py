"""Two workers that bring abandoned sagas to their end, and a saga that they give up."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import uuid
from collections import Counter
from contextlib import aclosing

import anyio

import cqrs
from cqrs.saga import bootstrap
from cqrs.saga.storage import SagaRecord


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    """What the steps share."""

    order_id: str


class Bank:
    """Does not know one of the cards."""

    def __init__(self) -> None:
        self.payments: Counter[str] = Counter()
        self.unknown_card = "order-3"
        self.all_paid = anyio.Event()

    async def pay(self, order_id: str) -> None:
        """Take the money."""
        await anyio.sleep(0.02)
        if order_id == self.unknown_card:
            raise LookupError("no such card")
        self.payments[order_id] += 1
        if len(self.payments) == 3:
            self.all_paid.set()


class ReserveInventory(cqrs.SagaStepHandler[OrderContext]):
    """The step that is done when the process ends."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        return self._generate_step_result(None)


class SendInvoice(cqrs.SagaStepHandler[OrderContext]):
    """From here on the order must be paid."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        return self._generate_step_result(None)


class CollectMoney(cqrs.SagaStepHandler[OrderContext]):
    """Is tried once in each recovery."""

    retry = cqrs.RetryPolicy(attempts=1)

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await self._bank.pay(context.order_id)
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[OrderContext]):
    """Behind the pivot there is no way back."""

    steps = [ReserveInventory, cqrs.Pivot(SendInvoice), CollectMoney]


def bind_sagas(mapper: cqrs.SagaMap) -> None:
    """Which saga runs for which context."""
    mapper.bind(OrderContext, OrderSaga)


async def leave_sagas(mediator: cqrs.SagaMediator) -> None:
    """Three processes end after the first step."""
    for order_id in ("order-1", "order-2", "order-3"):
        async with aclosing(mediator.stream(OrderContext(order_id=order_id), saga_id=uuid.uuid4())) as results:
            async for _ in results:
                break


async def first_parked(storage: cqrs.ILeasedSagaStorage) -> SagaRecord:
    """Wait until a saga has been given up."""
    while True:
        parked = await storage.get_parked_sagas(limit=1)
        if parked:
            return parked[0]
        await anyio.sleep(0.02)


async def main() -> None:
    """Two workers, as in two processes; then somebody repairs what they could not."""
    logging.getLogger("cqrs").setLevel(logging.CRITICAL)  # each recovery that fails is in the log
    storage, bank, container = cqrs.MemorySagaStorage(), Bank(), cqrs.PlainContainer()
    container.register_instance(Bank, bank)
    mediator = bootstrap.bootstrap(di_container=container, sagas_mapper=bind_sagas, saga_storage=storage)
    await leave_sagas(mediator)
    print("left behind:", len(await storage.get_sagas_for_recovery(limit=10)))

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            worker = cqrs.SagaRecoveryWorker(mediator, poll_interval=0.02, max_recovery_attempts=3, backoff=0.02)
            await tasks.start(worker.run)
        parked = await first_parked(storage)
        print("paid:", ", ".join(f"{order} x {count}" for order, count in sorted(bank.payments.items())))
        print(f"parked: {parked.context['order_id']}, {parked.parked_reason}")

        bank.unknown_card = ""
        await storage.unpark_saga(parked.saga_id)
        await bank.all_paid.wait()
        tasks.cancel_scope.cancel()
    print("after repair and unpark_saga(): order-3 paid", bank.payments["order-3"], "time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
