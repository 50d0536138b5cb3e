"""The read side: a model that is built from notification events, and the query that reads it."""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

import cqrs
from orders.messages import ORDERS_TOPIC, OrderLine, OrderOverview, OrderStatusChanged, ReadOrders


class OrderStatuses:
    """The model: the last status of each order of each customer."""

    def __init__(self) -> None:
        self._statuses: dict[str, dict[str, str]] = {}

    def put(self, customer: str, order_id: str, status: str) -> None:
        """Note a status."""
        self._statuses.setdefault(customer, {})[order_id] = status

    def of(self, customer: str) -> dict[str, str]:
        """The orders of a customer and their statuses."""
        return self._statuses.get(customer, {})


class ProjectStatus(cqrs.EventHandler[OrderStatusChanged]):
    """Keeps the model up to date."""

    def __init__(self, statuses: OrderStatuses) -> None:
        self._statuses = statuses

    async def handle(self, event: OrderStatusChanged) -> None:
        order = event.payload
        self._statuses.put(order.customer, order.order_id, order.status)
        print(f"  read model: {order.order_id} is {order.status}")


class ReadOrdersHandler(cqrs.RequestHandler[ReadOrders, OrderOverview]):
    """Answers from the model alone."""

    def __init__(self, statuses: OrderStatuses) -> None:
        self._statuses = statuses

    async def handle(self, request: ReadOrders) -> OrderOverview:
        orders = [
            OrderLine(order_id=order, status=status) for order, status in self._statuses.of(request.customer).items()
        ]
        return OrderOverview(customer=request.customer, orders=orders)


class Subscriber:
    """Hands what the broker brings to an event mediator."""

    def __init__(self, broker: cqrs.InMemoryMessageBroker, mediator: cqrs.EventMediator) -> None:
        self._broker = broker
        self._mediator = mediator

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Read until the broker is closed."""
        async with self._broker.subscribe(ORDERS_TOPIC) as messages:
            task_status.started()
            async for message in messages:
                await self._mediator.send(OrderStatusChanged.from_dict(**message.payload))


def bind_queries(mapper: cqrs.RequestMap) -> None:
    """Queries."""
    mapper.bind(ReadOrders, ReadOrdersHandler)


def bind_notifications(mapper: cqrs.EventMap) -> None:
    """Events that come in from the broker."""
    mapper.bind(OrderStatusChanged, ProjectStatus)
