"""FastAPI routes that send requests. The client runs in the same process, so no server is needed.

Served for real: ``uvicorn examples.fastapi_integration:app``, or Hypercorn with its trio worker.
"""

import argparse
import functools
from typing import Annotated

import anyio
import fastapi
import httpx
import pydantic

import cqrs
from cqrs.requests import bootstrap


class MeetingView(cqrs.Response):
    """Who is in a meeting."""

    meeting_id: int
    members: list[str]


class JoinMeeting(cqrs.Request[None]):
    """A user joins a meeting."""

    meeting_id: int
    user_id: str


class ReadMeeting(cqrs.Request[MeetingView]):
    """Ask who is in a meeting."""

    meeting_id: int


class Meetings(dict[int, list[str]]):
    """Who is where, in memory."""


class JoinMeetingHandler(cqrs.RequestHandler[JoinMeeting, None]):
    """Adds a member."""

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    async def handle(self, request: JoinMeeting) -> None:
        self._meetings.setdefault(request.meeting_id, []).append(request.user_id)


class ReadMeetingHandler(cqrs.RequestHandler[ReadMeeting, MeetingView]):
    """Reads the members."""

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    async def handle(self, request: ReadMeeting) -> MeetingView:
        return MeetingView(meeting_id=request.meeting_id, members=self._meetings.get(request.meeting_id, []))


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Commands."""
    mapper.bind(JoinMeeting, JoinMeetingHandler)


def bind_queries(mapper: cqrs.RequestMap) -> None:
    """Queries."""
    mapper.bind(ReadMeeting, ReadMeetingHandler)


@functools.lru_cache
def mediator_factory() -> cqrs.RequestMediator:
    """One mediator for the application. Tests replace it by ``app.dependency_overrides``."""
    container = cqrs.PlainContainer()
    container.register_instance(Meetings, Meetings())
    return bootstrap.bootstrap(di_container=container, commands_mapper=bind_commands, queries_mapper=bind_queries)


router = fastapi.APIRouter(prefix="/meetings")


@router.put("/{meeting_id}/{user_id}", status_code=fastapi.status.HTTP_200_OK)
async def join_meeting(
    meeting_id: pydantic.PositiveInt,
    user_id: str,
    mediator: Annotated[cqrs.RequestMediator, fastapi.Depends(mediator_factory)],
) -> dict[str, str]:
    """Join a meeting."""
    await mediator.send(JoinMeeting(meeting_id=meeting_id, user_id=user_id))
    return {"result": "ok"}


@router.get("/{meeting_id}")
async def read_meeting(
    meeting_id: pydantic.PositiveInt,
    mediator: Annotated[cqrs.RequestMediator, fastapi.Depends(mediator_factory)],
) -> MeetingView:
    """Read a meeting."""
    return await mediator.send(ReadMeeting(meeting_id=meeting_id))


app = fastapi.FastAPI()
app.include_router(router)


async def main() -> None:
    """Be one's own client."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        for path in ("/meetings/1/ada", "/meetings/1/alan"):
            response = await client.put(path)
            print(f"PUT {path}: {response.status_code} {response.text}")
        response = await client.get("/meetings/1")
        print(f"GET /meetings/1: {response.status_code} {response.text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
