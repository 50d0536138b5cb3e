"""What dispatching a message gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from cqrs.events.event import IEvent
from cqrs.saga.step import SagaStepResult

_ResponseT = TypeVar("_ResponseT", covariant=True)


@dataclasses.dataclass(slots=True)
class RequestDispatchResult(Generic[_ResponseT]):
    """A response and the events that were recorded on the way to it."""

    response: _ResponseT
    events: Sequence[IEvent] = dataclasses.field(default_factory=list[IEvent])


@dataclasses.dataclass(slots=True)
class SagaDispatchResult:
    """The result of a saga's step, and the events that it recorded."""

    step_result: SagaStepResult[Any, Any]
    events: list[IEvent] = dataclasses.field(default_factory=list[IEvent])
    saga_id: str | None = None
