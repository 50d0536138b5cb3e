"""Notification events: recorded by a handler, carried by a message broker, read by a subscriber."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import anyio
import pydantic
from anyio.abc import TaskStatus

import cqrs
from cqrs.requests import bootstrap


class JoinMeeting(cqrs.Request[None]):
    """A user joins a meeting."""

    user_id: str
    meeting_id: str


class UserJoined(pydantic.BaseModel):
    """The payload: what other services are told."""

    user_id: str
    meeting_id: str


class JoinMeetingHandler(cqrs.RequestHandler[JoinMeeting, None]):
    """Tells others by two events on two topics."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: JoinMeeting) -> None:
        payload = UserJoined(user_id=request.user_id, meeting_id=request.meeting_id)
        for topic in ("user_notification_events", "user_ecst_events"):
            self._events.append(
                cqrs.NotificationEvent[UserJoined](
                    event_name="UserJoined", topic=topic, payload=payload, partition_key=request.meeting_id
                )
            )


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(JoinMeeting, JoinMeetingHandler)


async def read(broker: cqrs.InMemoryMessageBroker, *, task_status: TaskStatus[None]) -> None:
    """Print every message until the broker is closed."""
    async with broker.subscribe() as messages:
        task_status.started()
        async for message in messages:
            event = cqrs.NotificationEvent[UserJoined].from_dict(**message.payload)
            print(f"{message.topic}, key {message.partition_key}: {event.event_name} {event.payload!r}")


async def main() -> None:
    """Send two commands, then close the broker, which ends its subscribers."""
    broker = cqrs.InMemoryMessageBroker()
    mediator = bootstrap.bootstrap(message_broker=broker, commands_mapper=bind_commands)

    async with anyio.create_task_group() as tasks, broker:
        await tasks.start(read, broker)
        await mediator.send(JoinMeeting(user_id="ada", meeting_id="standup"))
        await mediator.send(JoinMeeting(user_id="alan", meeting_id="retro"))
    print("broker closed, subscriber ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
