"""A saga: steps that are undone in reverse when a later one fails."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import uuid
from collections.abc import Sequence

import anyio

import cqrs
from cqrs.saga import bootstrap


@dataclasses.dataclass
class TripContext(cqrs.SagaContext):
    """What the steps share; the storage keeps it as JSON."""

    traveller: str
    city: str
    flight_id: str | None = None
    room_id: str | None = None


class FlightBooked(cqrs.DomainEvent):
    """A flight was booked."""

    flight_id: str


class NoRoom(Exception):
    """The hotel is full."""


class Booked(cqrs.Response):
    """What a booking is answered with."""

    booking_id: str


class Hotel:
    """Full in one city."""

    async def book(self, city: str, traveller: str) -> str:
        """Book a room."""
        await anyio.sleep(0.01)
        if city == "Venice":
            raise NoRoom(f"no room in {city}")
        return f"room of {traveller}"

    async def cancel(self, room_id: str) -> None:
        """Give a room back."""
        await anyio.sleep(0.01)


class BookFlight(cqrs.SagaStepHandler[TripContext, Booked]):
    """The first step. It tells of what it did by an event."""

    @functools.cached_property
    def _recorded(self) -> list[cqrs.IEvent]:
        return []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._recorded

    async def act(self, context: TripContext) -> cqrs.SagaStepResult[TripContext, Booked]:
        await anyio.sleep(0.01)
        context.flight_id = f"flight to {context.city}"
        self._recorded.append(FlightBooked(flight_id=context.flight_id))
        return self._generate_step_result(Booked(booking_id=context.flight_id))

    async def compensate(self, context: TripContext) -> None:
        print(f"  undo: {context.flight_id}")
        context.flight_id = None


class BookRoom(cqrs.SagaStepHandler[TripContext, Booked]):
    """The second step. What it needs comes from the container."""

    def __init__(self, hotel: Hotel) -> None:
        self._hotel = hotel

    async def act(self, context: TripContext) -> cqrs.SagaStepResult[TripContext, Booked]:
        context.room_id = await self._hotel.book(context.city, context.traveller)
        return self._generate_step_result(Booked(booking_id=context.room_id))

    async def compensate(self, context: TripContext) -> None:
        if context.room_id is not None:
            await self._hotel.cancel(context.room_id)


class SendTickets(cqrs.SagaStepHandler[TripContext]):
    """The last step. Nothing to give back, nothing to undo."""

    async def act(self, context: TripContext) -> cqrs.SagaStepResult[TripContext]:
        return self._generate_step_result(None)


class TripSaga(cqrs.Saga[TripContext]):
    """All of it, or nothing."""

    steps = [BookFlight, BookRoom, SendTickets]


class NoteFlight(cqrs.EventHandler[FlightBooked]):
    """Is told before the result of the step is handed out."""

    async def handle(self, event: FlightBooked) -> None:
        print(f"  event: {event.flight_id} booked")


def bind_sagas(mapper: cqrs.SagaMap) -> None:
    """Which saga runs for which context."""
    mapper.bind(TripContext, TripSaga)


def bind_events(mapper: cqrs.EventMap) -> None:
    """Who is told of what."""
    mapper.bind(FlightBooked, NoteFlight)


async def book_trip(mediator: cqrs.SagaMediator, context: TripContext) -> None:
    """Run one saga, then show what the storage knows of it."""
    saga_id = uuid.uuid4()
    print(context.city)
    try:
        async for result in mediator.stream(context, saga_id=saga_id):
            answer = "done" if result.response is None else result.response.booking_id
            print(f"  step: {result.step_type.__name__}: {answer}")
    except NoRoom as error:
        print(f"  failed: {error}; the flight is {context.flight_id}")
    status, _, _ = await mediator.storage.load_saga_state(saga_id)
    history = await mediator.storage.get_step_history(saga_id)
    print(f"  {status}:", ", ".join(f"{entry.step_name} {entry.action} {entry.status}" for entry in history))


async def main() -> None:
    """A trip that works out, and one that does not."""
    mediator = bootstrap.bootstrap(
        sagas_mapper=bind_sagas, domain_events_mapper=bind_events, saga_storage=cqrs.MemorySagaStorage()
    )
    await book_trip(mediator, TripContext(traveller="Ada", city="London"))
    await book_trip(mediator, TripContext(traveller="Ada", city="Venice"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
