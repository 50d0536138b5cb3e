"""A step with a second one to fall back on."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeGuard

from typing_extensions import TypeVar

from cqrs._generics import concrete_class
from cqrs.circuit_breaker import ICircuitBreaker
from cqrs.exceptions import SagaTypeError, name_of
from cqrs.saga.models import SagaContext
from cqrs.saga.step import AnySagaStep, SagaStepHandler

SteppedT = TypeVar("SteppedT", bound=SagaContext, default=Any)
"""The context that both steps take."""


@dataclasses.dataclass(frozen=True)
class Fallback(Generic[SteppedT]):
    """Listed in place of a step: ``fallback`` acts when ``step`` failed.

    The first step works on a copy of the context, of which the saga's own gets to see nothing if the step
    fails: the fallback finds the context as it was. Of the two, the one that acted is the one that is
    compensated. A first step that timed out, so that nobody knows what it did, is compensated before
    the fallback acts; if its ``on_unknown`` says that it is to be retried or parked, the fallback does not act.

    :param step: the step that is tried first.
    :param fallback: the step that is tried after it, for the same context.
    :param failure_exceptions: the errors that lead to the fallback; any error where it is empty.
    :param circuit_breaker: guards the first step; while its circuit is open the fallback is used at once.
    :raises SagaTypeError: the two are not different steps for one kind of context.
    """

    step: type[SagaStepHandler[SteppedT, Any]]
    fallback: type[SagaStepHandler[SteppedT, Any]]
    failure_exceptions: tuple[type[Exception], ...] = ()
    circuit_breaker: ICircuitBreaker | None = dataclasses.field(default=None, hash=False)

    def __post_init__(self) -> None:
        for step in (self.step, self.fallback):
            check_is_step(step, "A fallback")
        if self.step is self.fallback:
            raise SagaTypeError(f"{name_of(self.step)} cannot be its own fallback: name two different steps.")
        first, second = (concrete_class(step, SagaStepHandler, 0) for step in (self.step, self.fallback))
        if first is not None and second is not None and not _related(first, second):
            raise SagaTypeError(
                f"{name_of(self.step)} and {name_of(self.fallback)} must have the same context type: "
                f"the step has {name_of(first)}, the fallback {name_of(second)}."
            )

    @property
    def primary(self) -> type[SagaStepHandler[SteppedT, Any]]:
        """The step that is tried first."""
        return self.step


def is_fallback(item: object) -> TypeGuard[Fallback[Any]]:
    """Whether ``item`` is a fallback."""
    return isinstance(item, Fallback)


def is_step(item: object) -> TypeGuard[type[AnySagaStep]]:
    """Whether ``item`` is a class of steps."""
    return isinstance(item, type) and issubclass(item, SagaStepHandler)


def check_is_step(step: object, owner: str) -> type[AnySagaStep]:
    """``step``, where it is a class of steps.

    :raises SagaTypeError: it is not.
    """
    if not is_step(step):
        name = name_of(step)
        hint = " Name the class, not an instance of it." if isinstance(step, SagaStepHandler) else ""
        raise SagaTypeError(f"{owner} consists of steps, and {name} is none: derive it from SagaStepHandler.{hint}")
    return step


def _related(one: type, other: type) -> bool:
    return issubclass(one, other) or issubclass(other, one)
