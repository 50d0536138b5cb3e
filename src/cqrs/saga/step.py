"""The steps of a saga."""

from __future__ import annotations

import abc
import contextvars
import dataclasses
import enum
import uuid
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from cqrs.events.event_source import EventSource
from cqrs.exceptions import SagaUsageError
from cqrs.retry import RetryPolicy
from cqrs.saga.models import ContextT

Resp = TypeVar("Resp", default=None)
"""The response of a step."""


_key: contextvars.ContextVar[str] = contextvars.ContextVar("cqrs_saga_step")


def enter_step(key: str) -> contextvars.Token[str]:
    """Let the step that is called next find ``key``."""
    return _key.set(key)


def leave_step(token: contextvars.Token[str]) -> None:
    """Undo :func:`enter_step`."""
    _key.reset(token)


class OnUnknown(str, enum.Enum):
    """What happens to a step of which nobody knows whether it has acted.

    It was cancelled, it timed out, or the process died in it.
    """

    COMPENSATE = "compensate"
    """Roll the saga back, and compensate the step as if it had acted."""
    RETRY = "retry"
    """Let the saga go on, and the step act again: in recovery, or, after a timeout, as its ``retry`` says."""
    PARK = "park"
    """Do nothing until somebody has looked at it."""


@dataclasses.dataclass(frozen=True)
class SagaStepResult(Generic[ContextT, Resp]):
    """What a step gives back, and which step it was.

    :param response: the step's response.
    :param step_type: the class of the step that acted.
    :param with_error: whether the step says that something went wrong; the saga goes on all the same.
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
    """One step of a saga: it acts, and it undoes what it did when a later step fails.

    A step that raises has done nothing: it is not compensated. Of a step that is cancelled or times out
    nobody knows, so that it is (see :class:`OnUnknown`): ``compensate`` must cope with an ``act`` that did
    nothing, or half of it. In a run of a saga one instance acts, is asked for its events, and compensates;
    recovery makes a new one. What ``compensate`` needs therefore belongs into the context.

    Class attributes say how a step is run:
    """

    timeout: ClassVar[float | None] = None
    """Seconds that ``act`` may take, each time it is called. None: as long as it likes."""

    retry: ClassVar[RetryPolicy | None] = None
    """How ``act`` is tried again when it raises. None: not at all, or, behind a pivot, five times."""

    on_unknown: ClassVar[OnUnknown | str | None] = None
    """What happens when nobody knows whether it acted. None: a rollback compensates it, recovery of a saga
    that goes forward retries it; of a pivot, and behind one, ``"retry"``."""

    @abc.abstractmethod
    async def act(self, context: ContextT) -> SagaStepResult[ContextT, Resp]:
        """Do the step's work and return ``self._generate_step_result(response)``."""
        raise NotImplementedError

    async def compensate(self, context: ContextT) -> None:
        """Undo what :meth:`act` did. By default there is nothing to undo.

        May be called again after it failed or was interrupted, so it must be idempotent.
        """

    def idempotency_key(self) -> str:
        """A key for what this step does in this saga: its id and the step's name in the log.

        It is the same whenever the step acts or compensates in this saga, in recovery too, so that whoever is
        asked for something with it can tell that it was asked for it before.

        :raises SagaUsageError: the step is neither acting nor compensating.
        """
        key = _key.get(None)
        if key is None:
            raise SagaUsageError(f"{type(self).__qualname__} has a key only while it acts or compensates in a saga.")
        return key

    def _generate_step_result(
        self,
        response: Resp,
        with_error: bool = False,
        error_message: str | None = None,
        error_traceback: list[str] | None = None,
        error_type: type[Exception] | None = None,
    ) -> SagaStepResult[ContextT, Resp]:
        return SagaStepResult(response, type(self), with_error, error_message, error_traceback, error_type)


AnySagaStep = SagaStepHandler[Any, Any]
