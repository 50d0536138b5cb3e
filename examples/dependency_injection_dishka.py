"""Dependency injection with the ``dishka`` library."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator

import anyio
from dishka import Provider, Scope, make_async_container

import cqrs
from cqrs.requests import bootstrap


class RenameUser(cqrs.Request[None]):
    """Give a user another name."""

    user_id: str
    name: str


class Transaction:
    """A unit of work."""

    async def execute(self, statement: str) -> None:
        """Do a part of the work."""
        print(f"  {statement}")


async def open_transaction() -> AsyncGenerator[Transaction, Exception | None]:
    """``yield`` gives back the failure that the scope ends with, or None: that is dishka's way to tell."""
    failure = yield Transaction()
    print("  committed" if failure is None else f"  rolled back after {failure!r}")


class RenameUserHandler(cqrs.RequestHandler[RenameUser, None]):
    """Provided by the container like everything else."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def handle(self, request: RenameUser) -> None:
        await self._transaction.execute(f"{request.user_id} becomes {request.name!r}")
        if not request.name:
            raise ValueError("a name is needed")


def make_provider() -> Provider:
    """Everything lives as long as one handler: ``Scope.REQUEST``."""
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(open_transaction)
    provider.provide(RenameUserHandler)
    return provider


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(RenameUser, RenameUserHandler)


async def main() -> None:
    """One that works, and one that does not."""
    # dishka's own default is a lock of asyncio's; anyio's serves on trio as well.
    container = make_async_container(make_provider(), lock_factory=anyio.Lock)
    mediator = bootstrap.bootstrap(di_container=container, commands_mapper=bind_commands)
    for name in ("Grace", ""):
        print(f"rename to {name!r}:")
        try:
            await mediator.send(RenameUser(user_id="u-1", name=name))
        except ValueError as error:
            print(f"  refused: {error}")
    await container.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
