"""The write side: handlers of commands and of domain events."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence

import anyio

import cqrs
from orders.messages import (
    ItemOrdered,
    OrderAccepted,
    OrderPlaced,
    PlaceOrder,
    RefuseOrder,
    ShelfDue,
    ShipmentProgress,
    ShipOrders,
    StockRanLow,
    TakeStock,
    status_changed,
)
from orders.warehouse import OrderBook, Warehouse


class Recorder:
    """Keeps the events that a handler records."""

    @functools.cached_property
    def _recorded(self) -> list[cqrs.IEvent]:
        return []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        """What the mediator publishes."""
        return tuple(self._recorded)

    def record(self, *events: cqrs.IEvent) -> None:
        """Have ``events`` published when the handler is done."""
        self._recorded.extend(events)


class PlaceOrderHandler(Recorder, cqrs.RequestHandler[PlaceOrder, OrderAccepted]):
    """Writes the order down; all else is done by the handlers of its events."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book

    async def handle(self, request: PlaceOrder) -> OrderAccepted:
        total = self._book.add(request.order_id, request.customer, request.items)
        for product, quantity in request.items.items():
            self.record(ItemOrdered(order_id=request.order_id, product=product, quantity=quantity))
        self.record(OrderPlaced(order_id=request.order_id, customer=request.customer))
        return OrderAccepted(order_id=request.order_id, total=total)


class ReserveItem(Recorder, cqrs.EventHandler[ItemOrdered]):
    """Sends a robot. The robots of one order work at the same time."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def handle(self, event: ItemOrdered) -> None:
        left = await self._warehouse.take(event.product, event.quantity)
        print(f"  reserved {event.quantity} x {event.product} for {event.order_id}")
        if left < 5:
            self.record(StockRanLow(product=event.product, left=left))


class Reorder(cqrs.EventHandler[StockRanLow]):
    """Handles what follows from another event, before ``send`` returns."""

    async def handle(self, event: StockRanLow) -> None:
        print(f"  reordered {event.product}: {event.left} left")


class AnnounceOrder(Recorder, cqrs.EventHandler[OrderPlaced]):
    """Tells other services."""

    async def handle(self, event: OrderPlaced) -> None:
        self.record(status_changed(event.order_id, event.customer, "placed"))


class RefuseOrderHandler(Recorder, cqrs.RequestHandler[RefuseOrder, None]):
    """Tells other services."""

    async def handle(self, request: RefuseOrder) -> None:
        self.record(status_changed(request.order_id, request.customer, "refused"))


class ShipOrdersHandler(Recorder, cqrs.StreamingRequestHandler[ShipOrders, ShipmentProgress]):
    """Ships one order after the other. Others are told of each before the caller is."""

    def __init__(self, book: OrderBook) -> None:
        self._book = book

    async def handle(self, request: ShipOrders) -> AsyncIterator[ShipmentProgress]:
        for done, order_id in enumerate(request.order_ids, start=1):
            await anyio.sleep(0.02)
            self.record(status_changed(order_id, self._book.customer_of(order_id), "shipped"))
            yield ShipmentProgress(order_id=order_id, done=done, of=len(request.order_ids))


class TakeStockHandler(Recorder, cqrs.RequestHandler[TakeStock, None]):
    """Has every shelf counted."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def handle(self, request: TakeStock) -> None:
        self.record(*(ShelfDue(product=product) for product in self._warehouse.products))


class CountShelf(cqrs.EventHandler[ShelfDue]):
    """Counts one shelf."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    async def handle(self, event: ShelfDue) -> None:
        await self._warehouse.count(event.product)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Commands that are sent."""
    mapper.bind(PlaceOrder, PlaceOrderHandler)
    mapper.bind(RefuseOrder, RefuseOrderHandler)
    mapper.bind(TakeStock, TakeStockHandler)


def bind_streams(mapper: cqrs.RequestMap) -> None:
    """Commands that are streamed."""
    mapper.bind(ShipOrders, ShipOrdersHandler)


def bind_domain_events(mapper: cqrs.EventMap) -> None:
    """Who is told of what inside this service."""
    mapper.bind(ItemOrdered, ReserveItem)
    mapper.bind(OrderPlaced, AnnounceOrder)
    mapper.bind(StockRanLow, Reorder)
    mapper.bind(ShelfDue, CountShelf)
