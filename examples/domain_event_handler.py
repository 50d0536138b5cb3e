"""Domain events: handled in parallel, with events that follow from events, before ``send`` returns."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import anyio

import cqrs
from cqrs.requests import bootstrap


class InviteUsers(cqrs.Request[None]):
    """Invite users to a meeting."""

    meeting_id: str
    users: list[str]


class UserInvited(cqrs.DomainEvent):
    """A user was invited."""

    meeting_id: str
    user_id: str


class InvitationMailed(cqrs.DomainEvent):
    """A user got mail."""

    user_id: str


class Mailbox:
    """A slow mail server that counts how many connections are open."""

    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0

    async def send(self, to: str) -> None:
        """Send a mail."""
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await anyio.sleep(0.05)
            print(f"  mail to {to}")
        finally:
            self.open -= 1


class InviteUsersHandler(cqrs.RequestHandler[InviteUsers, None]):
    """Records one event for each user."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: InviteUsers) -> None:
        for user in request.users:
            self._events.append(UserInvited(meeting_id=request.meeting_id, user_id=user))
        print(f"{len(request.users)} users invited to {request.meeting_id}")


class MailInvitation(cqrs.EventHandler[UserInvited]):
    """Sends mail, and records an event of its own."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, event: UserInvited) -> None:
        await self._mailbox.send(event.user_id)
        self._events.append(InvitationMailed(user_id=event.user_id))


class NoteDelivery(cqrs.EventHandler[InvitationMailed]):
    """Is told of what followed."""

    async def handle(self, event: InvitationMailed) -> None:
        print(f"  delivery to {event.user_id} noted")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(InviteUsers, InviteUsersHandler)


def bind_events(mapper: cqrs.EventMap) -> None:
    """The event, and the one that follows from it."""
    mapper.bind(UserInvited, MailInvitation)
    mapper.bind(InvitationMailed, NoteDelivery)


async def main() -> None:
    """Six events, three handlers at once."""
    mailbox = Mailbox()
    container = cqrs.PlainContainer()
    container.register_instance(Mailbox, mailbox)
    mediator = bootstrap.bootstrap(
        di_container=container,
        commands_mapper=bind_commands,
        domain_events_mapper=bind_events,
        max_concurrent_event_handlers=3,
        concurrent_event_handle_enable=True,
    )
    users = ["ada", "alan", "grace", "edsger", "barbara", "tony"]
    await mediator.send(InviteUsers(meeting_id="standup", users=users))
    print(f"connections at once: {mailbox.most_open}, open after send: {mailbox.open}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
