"""An order service on embedded parts, from a command to the read model.

Commands and a query, domain events handled in parallel, a stream of progress, and notification events
that reach a subscriber through an in-memory broker. No server is needed.
"""

from __future__ import annotations

import argparse

import anyio

from orders.application import Application, running
from orders.messages import PlaceOrder, ReadOrders, ShipOrders, TakeStock
from orders.warehouse import UnknownProduct


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


async def read_orders(service: Application) -> None:
    """A query, answered by the read model that the subscriber has built."""
    for customer in ("ada", "alan"):
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
        ):
            print(f"\n{title}")
            await act(service)
    print("\n5. Read orders, with everything else ended")
    await read_orders(service)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
