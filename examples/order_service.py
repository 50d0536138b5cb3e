"""An order service on embedded parts, from a command to the read model.

Commands and a query, domain events handled in parallel, a stream of progress, a saga, and notification
events that reach a subscriber through an in-memory broker. No server is needed.
"""

from __future__ import annotations

import argparse
import uuid

import anyio

from orders.application import Application, running
from orders.messages import PlaceOrder, ReadOrders, RefuseOrder, ShipOrders, TakeStock
from orders.order_saga import OrderContext
from orders.warehouse import PaymentRefused, UnknownProduct


async def place_orders(service: Application) -> None:
    """Commands; their domain events are handled in parallel, and are done when ``send`` returns."""
    for order in (
        PlaceOrder(order_id="order-1", customer="ada", items={"lamp": 2, "desk": 1, "chair": 4}),
        PlaceOrder(order_id="order-2", customer="alan", items={"lamp": 1, "chair": 1}),
    ):
        accepted = await service.requests.send(order)
        print(f"{accepted.order_id} accepted, {accepted.total / 100:.2f} EUR")
    print(f"robots at once: {service.warehouse.most_robots}, still at work: {service.warehouse.robots_at_work}")


async def place_a_wrong_order(service: Application) -> None:
    """A handler's failure reaches the caller as itself, and none of its events is published."""
    try:
        await service.requests.send(PlaceOrder(order_id="order-3", customer="ada", items={"piano": 1}))
    except UnknownProduct as refusal:
        print(f"order-3 refused: {refusal}")


async def run_out_of_time(service: Application) -> None:
    """A cancellation reaches everything that the call has started, and waits for it."""
    with anyio.move_on_after(0.1) as deadline:
        await service.requests.send(TakeStock())
    print(f"stock-taking cancelled: {deadline.cancelled_caught}, still at work: {service.warehouse.robots_at_work}")


async def ship_orders(service: Application) -> None:
    """A stream of progress. The handler may be one order ahead; it has ended when the block is left."""
    async with service.streams.stream(ShipOrders(order_ids=["order-1", "order-2"]), max_buffer_size=1) as progress:
        async for step in progress:
            print(f"shipped {step.done} of {step.of}: {step.order_id}")


async def run_order_sagas(service: Application) -> None:
    """Reserve, pay, ship. A step that fails rolls the saga back before its error reaches the caller."""
    desks = service.warehouse.left("desk")
    await run_order_saga(service, OrderContext(order_id="order-4", customer="grace", items={"lamp": 2}))
    await run_order_saga(service, OrderContext(order_id="order-5", customer="grace", items={"desk": 1}))
    print(f"desks before: {desks}, after: {service.warehouse.left('desk')}")


async def run_order_saga(service: Application, order: OrderContext) -> None:
    """One order, and what the storage knows of it afterwards."""
    saga_id = uuid.uuid4()
    try:
        async for result in service.sagas.stream(order, saga_id=saga_id):
            print(f"  {order.order_id}: {result.step_type.__name__} done")
    except PaymentRefused as refusal:
        print(f"  {order.order_id}: rolled back, as {refusal}")
        await service.requests.send(RefuseOrder(order_id=order.order_id, customer=order.customer))
    storage = service.sagas.storage
    status, _, _ = await storage.load_saga_state(saga_id)
    print(f"saga of {order.order_id}: {status}")
    for entry in await storage.get_step_history(saga_id):
        print(f"  log: {entry.step_name} {entry.action} {entry.status}")


async def read_orders(service: Application) -> None:
    """A query, answered by the read model that the subscriber has built."""
    for customer in ("ada", "alan", "grace"):
        overview = await service.requests.send(ReadOrders(customer=customer))
        print(f"{overview.customer}:", ", ".join(f"{order.order_id} {order.status}" for order in overview.orders))


async def main() -> None:
    """A day in the life of the service."""
    async with running() as service:
        for title, act in (
            ("1. Place orders", place_orders),
            ("2. Refuse an order", place_a_wrong_order),
            ("3. Cancel a command", run_out_of_time),
            ("4. Ship orders", ship_orders),
            ("5. Run the order saga", run_order_sagas),
        ):
            print(f"\n{title}")
            await act(service)
    print("\n6. Read orders, with everything else ended")
    await read_orders(service)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
