"""Steps with numbered await points, whose effects are kept in a bank outside of the saga."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cqrs.events.event import DCDomainEvent, IEvent
from cqrs.events.event_handler import EventHandler
from cqrs.saga.models import SagaContext
from cqrs.saga.step import SagaStepHandler, SagaStepResult
from saga_model.faults import Place, Refused

if TYPE_CHECKING:
    from saga_model.process import Process


@dataclasses.dataclass
class ModelContext(SagaContext):
    """Each step writes the number of its call into the field of its name."""

    A: int = 0
    B: int = 0
    C: int = 0
    D: int = 0
    E: int = 0
    F: int = 0
    G: int = 0
    H: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acted(DCDomainEvent):
    """A step has acted."""

    step: str


class ActedHandler(EventHandler[Acted]):
    """Is told of it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def handle(self, event: Acted) -> None:
        self._process.truth.check_published(event.step)
        await self._process.reach(f"event {event.step}", Place.EVENT)


class ModelStep(SagaStepHandler[ModelContext, str]):
    """A step that keeps to its contract: when it raises it has done nothing, and it can be repeated.

    Cut off, or raising an error of unknown outcome, it leaves its effect where it had it.
    """

    spec: ClassVar[Any]

    def __init__(self, process: Process) -> None:
        self._process = process
        self._events: list[IEvent] = []

    @property
    def events(self) -> Sequence[IEvent]:
        return self._events

    async def act(self, context: ModelContext) -> SagaStepResult[ModelContext, str]:
        name = self.spec.name
        with self._process.truth.acting(self._process, self, name, context) as call:
            await self._process.reach(f"act {name} before", Place.ACT)
            setattr(context, name, call.number)
            with self._process.truth.effect(name):
                await self._process.reach(f"act {name} after", Place.ACT)
                self._refuse(call.is_refused)
        self._events.append(Acted(step=name))
        return self._generate_step_result(name)

    async def compensate(self, context: ModelContext) -> None:
        name = self.spec.name
        with self._process.truth.undoing(self._process, self, name) as call:
            await self._process.reach(f"undo {name} before", Place.UNDO)
            self._refuse(call.is_refused)
            self._process.truth.steps[name].has_effect = False
            await self._process.reach(f"undo {name} after", Place.UNDO)

    def _refuse(self, is_refused: bool) -> None:
        if is_refused:
            raise self._process.raised(Refused(self.spec.name))
