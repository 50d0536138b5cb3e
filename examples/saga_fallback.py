"""A saga's step with a second one to fall back on, guarded by a circuit breaker."""

from __future__ import annotations

import argparse
import dataclasses

import anyio

import cqrs
from cqrs.adapters.circuit_breaker import AioBreakerAdapter
from cqrs.saga import bootstrap


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    """What the steps share."""

    order_id: str
    amount: float
    reservation_id: str | None = None


class Reserved(cqrs.Response):
    """What a reservation is answered with."""

    reservation_id: str


class NearWarehouse:
    """A service on the network, down for the time being."""

    def __init__(self) -> None:
        self.calls = 0

    async def reserve(self, order_id: str) -> str:
        """Fail."""
        self.calls += 1
        raise ConnectionError(f"{order_id}: connection refused")


class ReserveNearby(cqrs.SagaStepHandler[OrderContext, Reserved]):
    """What is tried first."""

    def __init__(self, warehouse: NearWarehouse) -> None:
        self._warehouse = warehouse

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext, Reserved]:
        context.reservation_id = "of a step that fails, and is not kept"
        context.reservation_id = await self._warehouse.reserve(context.order_id)
        return self._generate_step_result(Reserved(reservation_id=context.reservation_id))

    async def compensate(self, context: OrderContext) -> None:
        print("  never printed: this step did not act")


class ReserveFarAway(cqrs.SagaStepHandler[OrderContext, Reserved]):
    """What acts when that failed. It finds the context as it was."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext, Reserved]:
        print(f"  reservation before the fallback: {context.reservation_id}")
        context.reservation_id = f"far-{context.order_id}"
        return self._generate_step_result(Reserved(reservation_id=context.reservation_id))

    async def compensate(self, context: OrderContext) -> None:
        print(f"  undo: {context.reservation_id}")


class PaymentRefused(Exception):
    """Too much."""


class ProcessPayment(cqrs.SagaStepHandler[OrderContext]):
    """Refuses large amounts."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        if context.amount > 1000:
            raise PaymentRefused(f"{context.amount:.2f} refused")
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[OrderContext]):
    """Only connection errors lead to the fallback; others roll the saga back."""

    steps = [
        cqrs.Fallback(
            step=ReserveNearby,
            fallback=ReserveFarAway,
            failure_exceptions=(ConnectionError,),
            circuit_breaker=AioBreakerAdapter(fail_max=2, timeout_duration=60),
        ),
        ProcessPayment,
    ]


def bind_sagas(mapper: cqrs.SagaMap) -> None:
    """Which saga runs for which context."""
    mapper.bind(OrderContext, OrderSaga)


async def main() -> None:
    """Three orders; after two failures the near warehouse is left alone. The third is too expensive."""
    warehouse, container = NearWarehouse(), cqrs.PlainContainer()
    container.register_instance(NearWarehouse, warehouse)
    mediator = bootstrap.bootstrap(di_container=container, sagas_mapper=bind_sagas)
    for order_id, amount in (("order-1", 10), ("order-2", 20), ("order-3", 5000)):
        try:
            async for result in mediator.stream(OrderContext(order_id=order_id, amount=amount)):
                print(f"{order_id}: {result.step_type.__name__} done")
        except PaymentRefused as error:
            print(f"{order_id}: {error}")
        print(f"{order_id}: near warehouse called {warehouse.calls} times so far")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
