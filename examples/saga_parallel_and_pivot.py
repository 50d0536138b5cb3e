"""Steps that act at the same time, and a step behind which a saga only goes forward."""

from __future__ import annotations

import argparse
import dataclasses

import anyio
import tenacity

import cqrs
from cqrs.saga import bootstrap


@dataclasses.dataclass
class OrderContext(cqrs.SagaContext):
    """Each parallel step writes fields of its own."""

    order_id: str
    is_suspect: bool = False
    reservation_id: str | None = None
    courier_id: str | None = None


class Fraud(Exception):
    """Somebody else's card."""


class MailServer:
    """Comes back after two attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    async def send(self, text: str) -> None:
        """Send a mail."""
        self.attempts += 1
        if self.attempts <= 2:
            raise ConnectionError("mail server is down")
        print(f"  mail: {text}")


class ReserveInventory(cqrs.SagaStepHandler[OrderContext]):
    """Takes a moment."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await anyio.sleep(0.05)
        context.reservation_id = f"reservation of {context.order_id}"
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        print(f"  undo: {context.reservation_id}")


class BookCourier(cqrs.SagaStepHandler[OrderContext]):
    """Takes longer. If it is cancelled, nobody knows whether a courier was booked: ask, and cancel."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await anyio.sleep(0.2)
        context.courier_id = f"courier of {context.order_id}"
        return self._generate_step_result(None)

    async def compensate(self, context: OrderContext) -> None:
        await anyio.sleep(0.05)
        print(f"  undo: whatever the courier service has for {context.order_id}")


class CheckFraud(cqrs.SagaStepHandler[OrderContext]):
    """Looks, and changes nothing."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await anyio.sleep(0.1)
        if context.is_suspect:
            raise Fraud(f"{context.order_id} looks suspicious")
        return self._generate_step_result(None)


class TakePayment(cqrs.SagaStepHandler[OrderContext]):
    """From here on the order is delivered."""

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        return self._generate_step_result(None)


class SendConfirmation(cqrs.SagaStepHandler[OrderContext]):
    """Is behind the pivot: it is tried until it succeeds, so it may be tried again after it did."""

    retry = cqrs.RetryPolicy(attempts=5, wait=tenacity.wait_fixed(0.01))

    def __init__(self, mail_server: MailServer) -> None:
        self._mail_server = mail_server

    async def act(self, context: OrderContext) -> cqrs.SagaStepResult[OrderContext]:
        await self._mail_server.send(f"{context.order_id} comes with {context.courier_id}")
        return self._generate_step_result(None)


class OrderSaga(cqrs.Saga[OrderContext]):
    """An order, from the warehouse to the mail."""

    steps = [
        cqrs.Parallel(ReserveInventory, BookCourier, CheckFraud),
        cqrs.Pivot(TakePayment),
        SendConfirmation,
    ]


def bind_sagas(mapper: cqrs.SagaMap) -> None:
    """Which saga runs for which context."""
    mapper.bind(OrderContext, OrderSaga)


async def run_order(mediator: cqrs.SagaMediator, context: OrderContext) -> None:
    """In ``async with``, the saga runs in a task, and the results of parallel steps come as they are there."""
    print(context.order_id)
    try:
        async with mediator.stream(context) as results:
            async for result in results:
                print(f"  step: {result.step_type.__name__}")
    except Fraud as error:
        print(f"  failed: {error}")


async def main() -> None:
    """An order that works out, and one of which a parallel step fails."""
    mail_server, container = MailServer(), cqrs.PlainContainer()
    container.register_instance(MailServer, mail_server)
    mediator = bootstrap.bootstrap(di_container=container, sagas_mapper=bind_sagas)
    await run_order(mediator, OrderContext(order_id="order-1"))
    print(f"  mail server called {mail_server.attempts} times")
    await run_order(mediator, OrderContext(order_id="order-2", is_suspect=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
