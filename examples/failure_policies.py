"""What the failure of one event handler means for the others: the three policies, side by side."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

import anyio

import cqrs
from cqrs.requests import bootstrap


class CloseMonth(cqrs.Request[None]):
    """Do what is done at the end of a month."""


class BillDue(cqrs.DomainEvent):
    """A customer is to get a bill."""

    customer: str
    seconds: float
    is_wrong: bool = False


class CloseMonthHandler(cqrs.RequestHandler[CloseMonth, None]):
    """Records three events; the handling of one will fail."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events

    async def handle(self, request: CloseMonth) -> None:
        self._events += [
            BillDue(customer="fast", seconds=0.01),
            BillDue(customer="broken", seconds=0.03, is_wrong=True),
            BillDue(customer="slow", seconds=0.06),
        ]


class SendBill(cqrs.EventHandler[BillDue]):
    """Bills are sent concurrently."""

    async def handle(self, event: BillDue) -> None:
        try:
            await anyio.sleep(event.seconds)
        except anyio.get_cancelled_exc_class():
            print(f"  bill of {event.customer}: cancelled")
            raise
        if event.is_wrong:
            raise ValueError(f"no address for {event.customer}")
        print(f"  bill of {event.customer}: sent")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(CloseMonth, CloseMonthHandler)


def bind_events(mapper: cqrs.EventMap) -> None:
    """The event."""
    mapper.bind(BillDue, SendBill)


def report(event: cqrs.IEvent, error: Exception) -> None:
    """Told of each failure where the policy is to isolate it."""
    print(f"  reported: {error}")


async def main() -> None:
    """The same request under each policy."""
    logging.getLogger("cqrs").setLevel(logging.CRITICAL)  # isolated failures are logged there
    for policy in cqrs.EventFailurePolicy:
        mediator = bootstrap.bootstrap(
            commands_mapper=bind_commands,
            domain_events_mapper=bind_events,
            max_concurrent_event_handlers=3,
            concurrent_event_handle_enable=True,
            event_failure_policy=policy,
            on_event_error=report,
        )
        print(f"{policy.name}:")
        try:
            await mediator.send(CloseMonth())
            print("  send succeeded")
        except ValueError as error:
            print(f"  send raised: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
