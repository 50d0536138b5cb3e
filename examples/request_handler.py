"""A command and a query, each with its handler, sent through one mediator."""

from __future__ import annotations

import argparse

import anyio

import cqrs
from cqrs.requests import bootstrap


class MeetingView(cqrs.Response):
    """What a reader sees of a meeting."""

    meeting_id: str
    members: list[str]


class JoinMeeting(cqrs.Request[None]):
    """Command: a user joins a meeting."""

    meeting_id: str
    user_id: str


class ReadMeeting(cqrs.Request[MeetingView]):
    """Query: who is in a meeting?"""

    meeting_id: str


class Meetings:
    """Who is in which meeting, in memory."""

    def __init__(self) -> None:
        self._members: dict[str, list[str]] = {}

    async def join(self, meeting_id: str, user_id: str) -> None:
        """Add a member."""
        self._members.setdefault(meeting_id, []).append(user_id)

    async def members_of(self, meeting_id: str) -> list[str]:
        """All members, in the order in which they came."""
        return list(self._members.get(meeting_id, ()))


class JoinMeetingHandler(cqrs.RequestHandler[JoinMeeting, None]):
    """Handles the command; it answers nothing."""

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    async def handle(self, request: JoinMeeting) -> None:
        await self._meetings.join(request.meeting_id, request.user_id)
        print(f"{request.user_id} joined {request.meeting_id}")


class ReadMeetingHandler(cqrs.RequestHandler[ReadMeeting, MeetingView]):
    """Handles the query."""

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    async def handle(self, request: ReadMeeting) -> MeetingView:
        members = await self._meetings.members_of(request.meeting_id)
        return MeetingView(meeting_id=request.meeting_id, members=members)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Commands and their handlers."""
    mapper.bind(JoinMeeting, JoinMeetingHandler)


def bind_queries(mapper: cqrs.RequestMap) -> None:
    """Queries and their handlers."""
    mapper.bind(ReadMeeting, ReadMeetingHandler)


async def main() -> None:
    """Two users join, then somebody asks who is there."""
    container = cqrs.PlainContainer()
    container.register_instance(Meetings, Meetings())
    mediator = bootstrap.bootstrap(di_container=container, commands_mapper=bind_commands, queries_mapper=bind_queries)

    await mediator.send(JoinMeeting(meeting_id="standup", user_id="ada"))
    await mediator.send(JoinMeeting(meeting_id="standup", user_id="alan"))
    view = await mediator.send(ReadMeeting(meeting_id="standup"))  # inferred: MeetingView
    print(f"in {view.meeting_id}: {', '.join(view.members)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
