"""The step behind which a saga only goes forward."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeGuard

from cqrs.saga.fallback import Fallback, SteppedT, check_is_step
from cqrs.saga.step import SagaStepHandler


@dataclasses.dataclass(frozen=True)
class Pivot(Generic[SteppedT]):
    """Listed in place of a step: once it is done, the saga is not rolled back any more.

    Steps behind it are retried when they fail, and must be idempotent. When that does not help, the error
    reaches the caller, the saga stays RUNNING, and recovery goes on with it. The saga's deadline no
    longer counts. A pivot that is interrupted is not compensated but retried by recovery, unless its
    ``on_unknown`` says otherwise. (Compensatable, pivot and retriable steps: Mehrotra, Rastogi, Korth,
    Silberschatz, "A transaction model for multidatabase systems", ICDCS 1992.)

    :param step: a step, or a fallback.
    :raises SagaTypeError: it is something else.
    """

    step: type[SagaStepHandler[SteppedT, Any]] | Fallback[SteppedT]

    def __post_init__(self) -> None:
        if not isinstance(self.step, Fallback):
            check_is_step(self.step, "Pivot()")


def is_pivot(item: object) -> TypeGuard[Pivot[Any]]:
    """Whether ``item`` is a pivot."""
    return isinstance(item, Pivot)
