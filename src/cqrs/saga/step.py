"""The steps of a saga."""

from __future__ import annotations

import abc
import dataclasses
import uuid
from typing import Any, Generic

from typing_extensions import TypeVar

from cqrs.events.event_source import EventSource
from cqrs.saga.models import ContextT

Resp = TypeVar("Resp", default=None)
"""The response of a step."""


@dataclasses.dataclass(frozen=True)
class SagaStepResult(Generic[ContextT, Resp]):
    """What a step gives back, and which step it was.

    :param response: the step's response.
    :param step_type: the class of the step that acted.
    :param saga_id: the saga it acted for.
    """

    response: Resp
    step_type: type[SagaStepHandler[ContextT, Resp]]
    with_error: bool = False
    error_message: str | None = None
    error_traceback: list[str] | None = None
    error_type: type[Exception] | None = None
    saga_id: uuid.UUID | None = None


class SagaStepHandler(EventSource, Generic[ContextT, Resp]):
    """One step of a saga: it acts, and it undoes what it did when a later step fails."""

    @abc.abstractmethod
    async def act(self, context: ContextT) -> SagaStepResult[ContextT, Resp]:
        """Do the step's work and return ``self._generate_step_result(response)``."""
        raise NotImplementedError

    async def compensate(self, context: ContextT) -> None:
        """Undo what :meth:`act` did. By default there is nothing to undo.

        May be called again after it failed or was interrupted, so it must be idempotent.
        """

    def _generate_step_result(self, response: Resp) -> SagaStepResult[ContextT, Resp]:
        return SagaStepResult(response=response, step_type=type(self))


AnySagaStep = SagaStepHandler[Any, Any]
