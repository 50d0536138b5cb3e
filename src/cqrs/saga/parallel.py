"""Steps that act at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeGuard

from cqrs._options import at_least_one
from cqrs.exceptions import SagaTypeError
from cqrs.saga.fallback import Fallback, SteppedT, check_is_step
from cqrs.saga.step import SagaStepHandler

ParallelMember: TypeAlias = "type[SagaStepHandler[SteppedT, Any]] | Fallback[SteppedT]"


class Parallel(Generic[SteppedT]):
    """Listed in place of a step: all of ``steps`` act concurrently, in a task group.

    The first one that fails cancels the others. Those that acted, and those of which nobody knows, are
    compensated concurrently.

    They share the context, and each should write fields of its own: what one of them reads from a field
    that another one writes depends on who is first. Between a read and a write that belong together
    there must be no ``await``.

    :param steps: steps and fallbacks.
    :param limit: how many act at once. None: all.
    :raises SagaTypeError: something else is among them, or there are none.
    :raises InvalidOptionError: the limit is no whole number from one on.
    """

    def __init__(self, *steps: ParallelMember[SteppedT], limit: int | None = None) -> None:
        if not steps:
            raise SagaTypeError("Parallel() has no steps: name at least one.")
        for step in steps:
            if not isinstance(step, Fallback):
                check_is_step(step, "Parallel()")
        self.steps: Sequence[ParallelMember[SteppedT]] = steps
        self.limit: int | None = None if limit is None else at_least_one("limit", limit)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(getattr(step, '__name__', repr(step)) for step in self.steps)})"


def is_parallel(item: object) -> TypeGuard[Parallel[Any]]:
    """Whether ``item`` is a group of parallel steps."""
    return isinstance(item, Parallel)
