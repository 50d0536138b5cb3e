"""Dependency injection without a library: a session that lives as long as one handler."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from typing import Protocol

import anyio

import cqrs
from cqrs.requests import bootstrap


class TransferDone(cqrs.Response):
    """A transfer went through."""

    amount: int


class Transfer(cqrs.Request[TransferDone]):
    """Move money from one account to another."""

    amount: int


class Session:
    """A unit of work that prints what is done to it."""

    async def execute(self, statement: str) -> None:
        """Do a part of the work."""
        print(f"  {statement}")


async def open_session() -> AsyncIterator[Session]:
    """Commits what went well, rolls back what did not."""
    print("  begin")
    try:
        yield Session()
    except BaseException:
        print("  rollback")
        raise
    else:
        print("  commit")


class Accounts(Protocol):
    """What a handler wants of storage."""

    async def add(self, account: str, amount: int) -> None:
        """Change a balance."""
        ...


class SqlAccounts:
    """What it gets."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, account: str, amount: int) -> None:
        """Change a balance."""
        await self._session.execute(f"update {account} by {amount}")


class AuditLog:
    """Uses the same session as the accounts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def note(self, text: str) -> None:
        """Write a line."""
        await self._session.execute(f"audit: {text}")


class TransferHandler(cqrs.RequestHandler[Transfer, TransferDone]):
    """Is made anew for each request, inside a scope that is open while it runs."""

    def __init__(self, accounts: Accounts, audit: AuditLog) -> None:
        self._accounts = accounts
        self._audit = audit

    async def handle(self, request: Transfer) -> TransferDone:
        await self._accounts.add("savings", -request.amount)
        if request.amount > 1000:
            raise ValueError("over the limit")
        await self._accounts.add("current", request.amount)
        await self._audit.note(f"moved {request.amount}")
        return TransferDone(amount=request.amount)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(Transfer, TransferHandler)


async def main() -> None:
    """One transfer that works, and one that does not."""
    container = cqrs.PlainContainer()
    container.register(Session, open_session, lifetime=cqrs.Lifetime.SCOPED)
    container.register(Accounts, SqlAccounts)
    mediator = bootstrap.bootstrap(di_container=container, commands_mapper=bind_commands)

    for amount in (100, 5000):
        print(f"transfer of {amount}:")
        try:
            await mediator.send(Transfer(amount=amount))
        except ValueError as error:
            print(f"  refused: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
