"""What the order service works on: an order book and a warehouse, both in memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio

PRICES = {"lamp": 1950, "desk": 24900, "chair": 8900}


class UnknownProduct(Exception):
    """Nobody sells that."""


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
