"""What the order service is told and what it tells: requests, responses and events."""

from __future__ import annotations

import pydantic

import cqrs


class OrderAccepted(cqrs.Response):
    """The answer to an order. ``total`` is in cents."""

    order_id: str
    total: int


class PlaceOrder(cqrs.Request[OrderAccepted]):
    """Command: a customer orders products."""

    order_id: str
    customer: str
    items: dict[str, int]


class RefuseOrder(cqrs.Request[None]):
    """Command: tell everybody that an order comes to nothing."""

    order_id: str
    customer: str


class TakeStock(cqrs.Request[None]):
    """Command: count what is on the shelves."""


class ShipmentProgress(cqrs.Response):
    """One order is on its way."""

    order_id: str
    done: int
    of: int


class ShipOrders(cqrs.Request[ShipmentProgress]):
    """Streaming command: ship orders, and tell of each."""

    order_ids: list[str]


class OrderLine(pydantic.BaseModel):
    """One order in an overview."""

    order_id: str
    status: str


class OrderOverview(cqrs.Response):
    """All orders of a customer."""

    customer: str
    orders: list[OrderLine]


class ReadOrders(cqrs.Request[OrderOverview]):
    """Query: how are the orders of a customer getting on?"""

    customer: str


class PaymentTaken(cqrs.Response):
    """What a step of the order saga gives back. ``amount`` is in cents."""

    payment_id: str
    amount: int


class OrderPlaced(cqrs.DomainEvent):
    """An order was accepted."""

    order_id: str
    customer: str


class ItemOrdered(cqrs.DomainEvent):
    """A product of an order is to be reserved."""

    order_id: str
    product: str
    quantity: int


class StockRanLow(cqrs.DomainEvent):
    """A product is nearly sold out."""

    product: str
    left: int


class ShelfDue(cqrs.DomainEvent):
    """A shelf is to be counted."""

    product: str


class OrderStatus(pydantic.BaseModel):
    """Payload: what other services are told of an order."""

    order_id: str
    customer: str
    status: str


OrderStatusChanged = cqrs.NotificationEvent[OrderStatus]

ORDERS_TOPIC = "orders"


def status_changed(order_id: str, customer: str, status: str) -> OrderStatusChanged:
    """The event for other services. Those of one order stay in order."""
    return OrderStatusChanged(
        event_name="OrderStatusChanged",
        topic=ORDERS_TOPIC,
        partition_key=order_id,
        payload=OrderStatus(order_id=order_id, customer=customer, status=status),
    )
