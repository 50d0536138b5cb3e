"""A request handler with a second one to fall back on, guarded by a circuit breaker."""

from __future__ import annotations

import argparse

import anyio

import cqrs
from cqrs.adapters.circuit_breaker import AioBreakerAdapter
from cqrs.requests import bootstrap


class Rate(cqrs.Response):
    """An exchange rate."""

    value: float
    source: str


class ReadRate(cqrs.Request[Rate]):
    """Ask for an exchange rate."""

    currency: str


class Exchange:
    """A service on the network, down for the time being."""

    def __init__(self) -> None:
        self.calls = 0

    async def rate_of(self, currency: str) -> float:
        """The present rate."""
        self.calls += 1
        raise ConnectionError(f"no rate of {currency}: connection refused")


class LiveRateHandler(cqrs.RequestHandler[ReadRate, Rate]):
    """Asks the service."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def handle(self, request: ReadRate) -> Rate:
        return Rate(value=await self._exchange.rate_of(request.currency), source="live")


class LastKnownRateHandler(cqrs.RequestHandler[ReadRate, Rate]):
    """Answers from memory."""

    async def handle(self, request: ReadRate) -> Rate:
        return Rate(value=1.08, source="last known")


def bind_queries(mapper: cqrs.RequestMap) -> None:
    """Only connection errors lead to the fallback; others reach the caller."""
    mapper.bind(
        ReadRate,
        cqrs.RequestHandlerFallback(
            primary=LiveRateHandler,
            fallback=LastKnownRateHandler,
            failure_exceptions=(ConnectionError,),
            circuit_breaker=AioBreakerAdapter(fail_max=2, timeout_duration=60),
        ),
    )


async def main() -> None:
    """Four requests; after two failures the service is left alone."""
    exchange = Exchange()
    container = cqrs.PlainContainer()
    container.register_instance(Exchange, exchange)
    mediator = bootstrap.bootstrap(di_container=container, queries_mapper=bind_queries)
    for number in range(1, 5):
        rate = await mediator.send(ReadRate(currency="USD"))
        print(f"request {number}: {rate.value} ({rate.source}), service called {exchange.calls} times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
