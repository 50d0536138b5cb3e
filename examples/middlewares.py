"""Middlewares: one of the application's own, a timeout and a retry, around every handler."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import anyio
import tenacity

import cqrs
from cqrs.exceptions import HandlerTimeoutError
from cqrs.middlewares.base import HandleType
from cqrs.middlewares.retry import RetryMiddleware
from cqrs.middlewares.timeout import TimeoutMiddleware
from cqrs.requests import bootstrap


class ChargeCard(cqrs.Request[str]):
    """Take money. The handler answers with a receipt."""

    amount: int


class PrintReport(cqrs.Request[None]):
    """Takes far too long."""


class Terminal:
    """A card terminal with a loose contact."""

    def __init__(self) -> None:
        self.failures_left = 2

    async def charge(self, amount: int) -> str:
        """Take ``amount``, at the third attempt."""
        if self.failures_left:
            self.failures_left -= 1
            raise ConnectionError("loose contact")
        return f"receipt over {amount}"


class ChargeCardHandler(cqrs.RequestHandler[ChargeCard, str]):
    """Knows nothing of retries."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def handle(self, request: ChargeCard) -> str:
        print("  attempt")
        return await self._terminal.charge(request.amount)


class PrintReportHandler(cqrs.RequestHandler[PrintReport, None]):
    """Is cancelled, and cleans up."""

    async def handle(self, request: PrintReport) -> None:
        try:
            await anyio.sleep(60)
        finally:
            print("  printer released")


async def announce(request: Any, handle: HandleType) -> Any:
    """A middleware is an async callable that calls the rest of the pipeline."""
    print(f"{type(request).__name__}:")
    response = await handle(request)
    print(f"  answered {response!r}")
    return response


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The commands."""
    mapper.bind(ChargeCard, ChargeCardHandler)
    mapper.bind(PrintReport, PrintReportHandler)


async def main() -> None:
    """One request that is retried, one that times out."""
    logging.getLogger("cqrs").setLevel(logging.ERROR)  # each retry is a warning there
    container = cqrs.PlainContainer()
    container.register_instance(Terminal, Terminal())
    mediator = bootstrap.bootstrap(
        di_container=container,
        commands_mapper=bind_commands,
        middlewares=[
            announce,
            TimeoutMiddleware(5, overrides={PrintReport: 0.05}),
            RetryMiddleware(attempts=3, retry_on=(ConnectionError,), wait=tenacity.wait_fixed(0.01)),
        ],
    )
    await mediator.send(ChargeCard(amount=20))
    try:
        await mediator.send(PrintReport())
    except HandlerTimeoutError as error:
        print(f"  {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
