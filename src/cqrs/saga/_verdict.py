"""What becomes of a saga that cannot go on as it is: decided without awaiting anything."""

from __future__ import annotations

import enum

from cqrs.exceptions import HandlerTimeoutError, SagaStepTimeoutError
from cqrs.saga._progress import Progress, StepProgress
from cqrs.saga.step import OnUnknown

UNKNOWN_OUTCOME = (SagaStepTimeoutError, HandlerTimeoutError)
"""Errors after which nobody knows whether the step has acted."""


class Verdict(enum.Enum):
    """What becomes of a saga."""

    ROLL_BACK = "roll back"
    STAY = "stay"
    """It stays RUNNING. Recovery goes on with it, forward."""
    PARK = "park"


def verdict_on_failure(progress: Progress, error: BaseException, resumes: bool = False) -> Verdict:
    """What becomes of a saga whose run ended with ``error``.

    :param resumes: whether another recovery is to go on with it: this one was cancelled, or the storage failed.
    """
    unknown = progress.unknown
    if _any(unknown, OnUnknown.PARK):
        return Verdict.PARK
    if resumes or progress.is_behind_pivot or _any(progress.unknown_pivot, OnUnknown.RETRY):
        return Verdict.STAY
    may_go_on = _is_interruption(unknown, error) and unknown
    if may_go_on and all(step.plan.on_unknown is OnUnknown.RETRY for step in unknown):
        return Verdict.STAY
    return Verdict.ROLL_BACK


def verdict_on_recovery(progress: Progress, is_past_deadline: bool) -> Verdict:
    """What becomes of a saga that was found RUNNING."""
    unknown = progress.unknown
    if _any(unknown, OnUnknown.PARK):
        return Verdict.PARK
    if _any(unknown, OnUnknown.COMPENSATE):
        return Verdict.ROLL_BACK
    if is_past_deadline and not progress.is_behind_pivot and not progress.unknown_pivot:
        return Verdict.ROLL_BACK
    return Verdict.STAY


def verdict_on_rollback(progress: Progress) -> Verdict:
    """What becomes of a saga that was found COMPENSATING."""
    return Verdict.PARK if _any(progress.unknown, OnUnknown.PARK) else Verdict.ROLL_BACK


def is_definite(progress: Progress, error: BaseException) -> bool:
    """Whether a saga that failed with ``error`` can only be rolled back, whatever is still unknown of it."""
    if progress.is_behind_pivot or progress.unknown_pivot:
        return False
    return not _is_interruption(progress.unknown, error)


def parked_because(progress: Progress) -> str:
    """Why a saga is parked."""
    names = [step.plan.name for step in progress.unknown if step.plan.on_unknown is OnUnknown.PARK]
    return f"nobody knows whether {', '.join(names)} has acted"


def _is_interruption(unknown: list[StepProgress], error: BaseException) -> bool:
    # What a step raises while it is cut off, as its clean-up may, says nothing of the saga.
    if not isinstance(error, Exception) or isinstance(error, UNKNOWN_OUTCOME):
        return True
    return any(step.was_interrupted and step.error is error for step in unknown)


def _any(steps: list[StepProgress], on_unknown: OnUnknown) -> bool:
    return any(step.plan.on_unknown is on_unknown for step in steps)
