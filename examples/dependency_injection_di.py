"""Dependency injection with the ``di`` library."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from typing import Protocol

import anyio
import di
from di import dependent

import cqrs
from cqrs.requests import bootstrap


class JoinMeeting(cqrs.Request[None]):
    """A user joins a meeting."""

    user_id: str
    meeting_id: str


class Connection:
    """Something that has to be closed."""

    async def write(self, text: str) -> None:
        """Write a line."""
        print(f"  {text}")


async def open_connection() -> AsyncIterator[Connection]:
    """Open while the handler runs, closed after it."""
    print("  connection opened")
    try:
        yield Connection()
    finally:
        print("  connection closed")


class MeetingApi(Protocol):
    """What the handler wants."""

    async def join(self, user_id: str, meeting_id: str) -> None:
        """Add a user to a meeting."""
        ...


class MeetingApiImplementation:
    """What it gets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def join(self, user_id: str, meeting_id: str) -> None:
        """Add a user to a meeting."""
        await self._connection.write(f"{user_id} joins {meeting_id}")


class JoinMeetingHandler(cqrs.RequestHandler[JoinMeeting, None]):
    """Names what it needs in its constructor."""

    def __init__(self, meetings: MeetingApi) -> None:
        self._meetings = meetings

    async def handle(self, request: JoinMeeting) -> None:
        await self._meetings.join(request.user_id, request.meeting_id)


def setup_di() -> di.Container:
    """Binds implementations to what is asked for."""
    container = di.Container()
    container.bind(di.bind_by_type(dependent.Dependent(open_connection, scope="request"), Connection))
    container.bind(di.bind_by_type(dependent.Dependent(MeetingApiImplementation, scope="request"), MeetingApi))
    return container


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(JoinMeeting, JoinMeetingHandler)


async def main() -> None:
    """Two requests, each with a connection of its own."""
    mediator = bootstrap.bootstrap(di_container=setup_di(), commands_mapper=bind_commands)
    for user in ("ada", "alan"):
        print(f"request of {user}:")
        await mediator.send(JoinMeeting(user_id=user, meeting_id="standup"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
