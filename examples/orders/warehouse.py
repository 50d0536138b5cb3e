"""What the order service works on: an order book, a warehouse and a bank, all in memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio

PRICES = {"lamp": 1950, "desk": 24900, "chair": 8900}


class UnknownProduct(Exception):
    """Nobody sells that."""


class PaymentRefused(Exception):
    """A bank does not pay."""


class OrderBook:
    """Who ordered what."""

    def __init__(self) -> None:
        self._customers: dict[str, str] = {}

    def add(self, order_id: str, customer: str, items: dict[str, int]) -> int:
        """Write an order down and return its price in cents.

        :raises UnknownProduct: something in it is not sold here; nothing is written down.
        """
        unknown = [product for product in items if product not in PRICES]
        if unknown:
            raise UnknownProduct(f"we sell no {', '.join(unknown)}")
        self._customers[order_id] = customer
        return sum(PRICES[product] * quantity for product, quantity in items.items())

    def customer_of(self, order_id: str) -> str:
        """Who placed the order."""
        return self._customers[order_id]


class Warehouse:
    """Robots between shelves. Each takes a while."""

    def __init__(self) -> None:
        self._stock = {"lamp": 12, "desk": 3, "chair": 40}
        self._reservations: dict[str, dict[str, int]] = {}
        self.robots_at_work = 0
        self.most_robots = 0

    @property
    def products(self) -> list[str]:
        """What is on the shelves."""
        return list(self._stock)

    async def take(self, product: str, quantity: int) -> int:
        """Take products from their shelf; returns how many are left."""
        with self._robot():
            await anyio.sleep(0.05)
            self._stock[product] -= quantity
            return self._stock[product]

    def left(self, product: str) -> int:
        """How many are on the shelf."""
        return self._stock[product]

    async def reserve(self, order_id: str, items: dict[str, int]) -> None:
        """Put the items of an order aside. Done again for one order, it changes nothing."""
        with self._robot():
            await anyio.sleep(0.05)
            if order_id not in self._reservations:
                self._reservations[order_id] = items
                self._change_stock(items, -1)

    async def release(self, order_id: str) -> None:
        """Put back what was reserved for an order, if anything was."""
        with self._robot():
            await anyio.sleep(0.05)
            self._change_stock(self._reservations.pop(order_id, {}), +1)

    def _change_stock(self, items: dict[str, int], sign: int) -> None:
        for product, quantity in items.items():
            self._stock[product] += sign * quantity

    async def count(self, product: str) -> int:
        """Count a shelf, which takes all night."""
        with self._robot():
            await anyio.sleep(8 * 3600)
            return self._stock[product]

    @contextmanager
    def _robot(self) -> Generator[None]:
        self.robots_at_work += 1
        self.most_robots = max(self.most_robots, self.robots_at_work)
        try:
            yield
        finally:
            self.robots_at_work -= 1


class Bank:
    """Accounts of customers, in cents."""

    def __init__(self) -> None:
        self._accounts = {"grace": 10_000}
        self._payments: dict[str, tuple[str, int]] = {}

    async def pay(self, order_id: str, customer: str, amount: int) -> str:
        """Take the money for an order, once; returns the payment's id.

        :raises PaymentRefused: there is not enough of it.
        """
        await anyio.sleep(0.02)
        payment_id = f"payment-for-{order_id}"
        if payment_id not in self._payments:
            if self._accounts[customer] < amount:
                raise PaymentRefused(f"{customer} cannot pay {amount / 100:.2f} EUR")
            self._accounts[customer] -= amount
            self._payments[payment_id] = customer, amount
        return payment_id

    async def refund(self, order_id: str) -> None:
        """Give back what was paid for an order, if anything was."""
        await anyio.sleep(0.02)
        customer, amount = self._payments.pop(f"payment-for-{order_id}", ("", 0))
        if amount:
            self._accounts[customer] += amount
