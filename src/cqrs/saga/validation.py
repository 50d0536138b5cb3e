"""What a saga may be made of, and why not: asked when the class is made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from cqrs._generics import concrete_class
from cqrs.exceptions import SagaTypeError, name_of
from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import is_fallback, is_step
from cqrs.saga.models import SagaContext
from cqrs.saga.parallel import is_parallel
from cqrs.saga.pivot import is_pivot
from cqrs.saga.step import AnySagaStep, OnUnknown, SagaStepHandler


class SagaContextTypeExtractor:
    """Finds out which context a class is for."""

    @staticmethod
    def extract_from_class(klass: type, saga_base_class: type) -> type | None:
        """The context of a saga class; None where it names none."""
        return concrete_class(klass, saga_base_class, 0)

    @staticmethod
    def extract_from_step(step_type: type) -> type | None:
        """The context of a step class; None where it names none."""
        return concrete_class(step_type, SagaStepHandler, 0)


class ContextTypeValidator:
    """Checks that a step can work with a saga's context."""

    @staticmethod
    def validate(
        saga_context_type: type,
        step_context_type: type,
        saga_name: str,
        step_name: str,
        step_index: int,
        raise_on_mismatch: bool = True,
    ) -> bool:
        """Whether the saga's context is one that the step takes.

        :raises SagaTypeError: it is not, and ``raise_on_mismatch`` is set.
        """
        fits = issubclass(saga_context_type, step_context_type)
        if raise_on_mismatch and not fits:
            raise SagaTypeError(
                f"{saga_name}: step {step_name} (index {step_index}) expects context type "
                f"{name_of(step_context_type)}, and the saga has {name_of(saga_context_type)}."
            )
        return fits


class SagaStepValidator:
    """Checks the steps of a saga.

    :param context_type: the saga's context; None: any.
    """

    def __init__(self, saga_name: str, context_type: type | None = None) -> None:
        self._saga_name = saga_name
        self._context_type = context_type

    def validate_steps(self, steps: Sequence[Any]) -> None:
        """Check each step for its kind, its options and its context.

        :raises SagaTypeError: one of them will not do.
        """
        if not _is_list(steps):
            raise SagaTypeError(f"{self._saga_name}.steps must be a list of steps, not {steps!r}.")
        self._check_context()
        if sum(map(is_pivot, steps)) > 1:
            raise SagaTypeError(f"{self._saga_name} has several pivots: behind the first one it only goes forward.")
        is_behind_pivot = False
        for index, item in enumerate(steps):
            for step in self._handlers(item, index):
                self._check_step(step, index)
                if is_behind_pivot and step.on_unknown == OnUnknown.COMPENSATE:
                    raise SagaTypeError(
                        f"{self._saga_name}: {name_of(step)} is behind the pivot, where nothing is compensated: "
                        f"its on_unknown must be OnUnknown.RETRY, OnUnknown.PARK or None."
                    )
            is_behind_pivot = is_behind_pivot or is_pivot(item)

    def _check_context(self) -> None:
        context = self._context_type
        if context is None:
            return
        name = name_of(context)
        if not issubclass(context, SagaContext):
            raise SagaTypeError(f"{self._saga_name}: {name} is no saga context: derive it from SagaContext.")
        fields = [hint for hint in inspect.get_annotations(context).values() if "ClassVar" not in str(hint)]
        if fields and "__dataclass_fields__" not in context.__dict__:
            raise SagaTypeError(
                f"{self._saga_name}: the fields of {name} would be lost: decorate it with @dataclasses.dataclass."
            )

    def _handlers(self, item: Any, index: int) -> Iterator[type[AnySagaStep]]:
        listed: object = item.step if is_pivot(item) else item
        for member in listed.steps if is_parallel(listed) else (listed,):
            for step in (member.step, member.fallback) if is_fallback(member) else (member,):
                if not is_step(step):
                    raise SagaTypeError(
                        f"{self._saga_name}: step at index {index}, {name_of(step)}, is none: name a class "
                        f"that derives from SagaStepHandler, a Fallback, a Parallel or a Pivot."
                    )
                yield step

    def _check_step(self, step: type[AnySagaStep], index: int) -> None:
        context_type = SagaContextTypeExtractor.extract_from_step(step)
        if self._context_type is not None and context_type is not None:
            ContextTypeValidator.validate(self._context_type, context_type, self._saga_name, name_of(step), index)
        check_step_options(step)


def check_step_options(step: type[AnySagaStep]) -> None:
    """:raises SagaTypeError: a class attribute that says how the step is run cannot be what it is."""
    timeout: Any = step.timeout
    if timeout is not None and (not isinstance(timeout, (int, float)) or not timeout > 0):
        raise SagaTypeError(f"{name_of(step)}.timeout is {timeout!r}: it must be seconds, greater than zero, or None.")
    retry: Any = step.retry
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise SagaTypeError(f"{name_of(step)}.retry is {retry!r}: it must be a cqrs.RetryPolicy, or None.")
    try:
        _ = step.on_unknown is None or OnUnknown(step.on_unknown)
    except ValueError:
        allowed = ", ".join(f"OnUnknown.{member.name}" for member in OnUnknown)
        raise SagaTypeError(
            f"{name_of(step)}.on_unknown is {step.on_unknown!r}: it must be {allowed} or None."
        ) from None


def seconds_of(deadline: Any, owner: str) -> float | None:
    """A deadline in seconds.

    :raises SagaTypeError: it is none.
    """
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    if seconds is not None and (not isinstance(seconds, (int, float)) or not seconds > 0):
        raise SagaTypeError(f"{owner} is {deadline!r}: it must be a timedelta or seconds, greater than zero, or None.")
    return seconds


def _is_list(steps: object) -> bool:
    return isinstance(steps, Sequence) and not isinstance(steps, str)
