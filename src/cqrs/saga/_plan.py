"""A saga's steps, compiled once for a class: what is where, what it is called in the log, and how it is run."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import Fallback, is_fallback
from cqrs.saga.parallel import is_parallel
from cqrs.saga.pivot import is_pivot
from cqrs.saga.step import AnySagaStep, OnUnknown

BEHIND_PIVOT = RetryPolicy(attempts=5)
"""How a step is retried that must succeed, and does not say how."""


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One step.

    :param name: what it is called in the log: its class's name, with ``#2`` for the second of that name, and so on.
        So a step is known by its name and by its place among those of the same name.
    """

    name: str
    step_type: type[AnySagaStep]
    timeout: float | None
    retry: RetryPolicy | None
    on_unknown: OnUnknown | None

    @property
    def may_be_announced(self) -> bool:
        """Whether it costs nothing to log that it starts when it is not certain that it will.

        An unknown outcome of such a step is retried, and so is a step that did not start.
        """
        return self.on_unknown in (None, OnUnknown.RETRY)


@dataclasses.dataclass(frozen=True)
class Branch:
    """A step, or a fallback: of its steps one is done in the end."""

    primary: StepPlan
    fallback: StepPlan | None = None
    policy: Fallback[Any] | None = None

    @functools.cached_property
    def steps(self) -> tuple[StepPlan, ...]:
        """Its steps, in the order in which they are tried."""
        return (self.primary,) if self.fallback is None else (self.primary, self.fallback)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is at one place in ``Saga.steps``.

    :param branches: one, or several that run concurrently.
    :param limit: how many of them at once.
    :param is_pivot: whether the saga cannot be rolled back once it is done.
    :param is_behind_pivot: whether it must succeed.
    """

    branches: tuple[Branch, ...]
    limit: int
    is_pivot: bool = False
    is_behind_pivot: bool = False

    @functools.cached_property
    def steps(self) -> tuple[StepPlan, ...]:
        """The steps of all branches."""
        return tuple(step for branch in self.branches for step in branch.steps)


def compile_stages(steps: Any) -> tuple[Stage, ...]:
    """The stages of checked ``steps``."""
    names: Counter[str] = Counter()
    stages: list[Stage] = []
    is_behind_pivot = False
    for item in steps:
        stages.append(_stage(item, is_behind_pivot, names))
        is_behind_pivot = is_behind_pivot or is_pivot(item)
    return tuple(stages)


def _stage(item: object, is_behind_pivot: bool, names: Counter[str]) -> Stage:
    listed: object = item.step if is_pivot(item) else item
    members: Sequence[object] = listed.steps if is_parallel(listed) else (listed,)
    goes_forward = is_behind_pivot or is_pivot(item)
    branches = tuple(_branch(member, goes_forward, is_behind_pivot, names) for member in members)
    limit = listed.limit if is_parallel(listed) else None
    return Stage(branches, limit or len(branches), is_pivot(item), is_behind_pivot)


def _branch(member: Any, goes_forward: bool, must_succeed: bool, names: Counter[str]) -> Branch:
    def plan(step: type[AnySagaStep]) -> StepPlan:
        names[step.__name__] += 1
        count = names[step.__name__]
        return StepPlan(
            step.__name__ if count == 1 else f"{step.__name__}#{count}",
            step,
            step.timeout,
            step.retry or (BEHIND_PIVOT if must_succeed else None),
            OnUnknown(step.on_unknown) if step.on_unknown is not None else OnUnknown.RETRY if goes_forward else None,
        )

    if is_fallback(member):
        return Branch(plan(member.step), plan(member.fallback), member)
    return Branch(plan(member))
