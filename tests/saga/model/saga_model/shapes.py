"""The sagas of the model, described and built."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Iterator
from typing import Any, TypeAlias

import tenacity

from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import Fallback
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.saga import Saga
from saga_model.steps import ModelContext, ModelStep

ALWAYS = math.inf


@dataclasses.dataclass(frozen=True)
class Step:
    """A step.

    :param refusals: how often its ``act`` raises before it does what it is asked to.
    :param undo_refusals: how often its ``compensate`` does.
    :param attempts: how often ``act`` is tried. None: as the saga does by default.
    """

    name: str
    on_unknown: str | None = None
    refusals: float = 0
    undo_refusals: float = 0
    attempts: int | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        return (self,)

    @functools.cached_property
    def built(self) -> Any:
        retry = None if self.attempts is None else RetryPolicy(self.attempts, wait=tenacity.wait_none())
        members = {"spec": self, "on_unknown": self.on_unknown, "retry": retry, "__module__": __name__}
        return type(self.name, (ModelStep,), members)


@dataclasses.dataclass(frozen=True)
class Either:
    """A step with a fallback."""

    primary: Step
    fallback: Step

    @property
    def steps(self) -> tuple[Step, ...]:
        return (self.primary, self.fallback)

    @functools.cached_property
    def built(self) -> Any:
        return Fallback(self.primary.built, self.fallback.built)


Branch: TypeAlias = "Step | Either"


@dataclasses.dataclass(frozen=True)
class Both:
    """Steps at the same time."""

    members: tuple[Branch, ...]
    limit: int | None = None

    @functools.cached_property
    def built(self) -> Any:
        return Parallel(*(member.built for member in self.members), limit=self.limit)


@dataclasses.dataclass(frozen=True)
class NoReturn:
    """A pivot."""

    member: Branch

    @functools.cached_property
    def built(self) -> Any:
        return Pivot(self.member.built)


Item: TypeAlias = "Step | Either | Both | NoReturn"


def branches_of(item: Item) -> tuple[Branch, ...]:
    """The branches of one stage."""
    if isinstance(item, Both):
        return item.members
    return (item.member,) if isinstance(item, NoReturn) else (item,)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A saga, and how it is consumed.

    :param mode: "transaction", or the mediator's stream, "pull" (``async for``) or "push" (``async with``).
    :param deadline: seconds; the runners of the model take none, and recovery comes much later.
    :param ends: the status in which it ends when nothing goes wrong.
    """

    name: str
    items: tuple[Item, ...]
    mode: str = "transaction"
    deadline: float | None = None
    ends: str = "completed"

    @functools.cached_property
    def saga(self) -> type[Saga[ModelContext]]:
        members = {"steps": [item.built for item in self.items], "deadline": self.deadline, "__module__": __name__}
        name = f"Saga_{self.name}"
        return types.new_class(name, (Saga[ModelContext],), exec_body=lambda namespace: namespace.update(members))

    @functools.cached_property
    def stages(self) -> tuple[tuple[Branch, ...], ...]:
        return tuple(map(branches_of, self.items))

    @functools.cached_property
    def stage_of(self) -> dict[str, int]:
        return {
            step.name: place
            for place, branches in enumerate(self.stages)
            for branch in branches
            for step in branch.steps
        }

    @functools.cached_property
    def branch_of(self) -> dict[str, Branch]:
        return {step.name: branch for branches in self.stages for branch in branches for step in branch.steps}

    @property
    def steps(self) -> Iterator[Step]:
        return (step for branches in self.stages for branch in branches for step in branch.steps)

    @functools.cached_property
    def is_sequential(self) -> bool:
        return not any(isinstance(item, Both) for item in self.items)

    @functools.cached_property
    def has_pivot(self) -> bool:
        return any(isinstance(item, NoReturn) for item in self.items)

    @functools.cached_property
    def never_ends(self) -> bool:
        """Whether recovery fails again and again, until the saga is parked."""
        return self.ends in ("running", "compensation_failed")

    def has(self, on_unknown: str) -> bool:
        """Whether a step says so."""
        return any(step.on_unknown == on_unknown for step in self.steps)
