"""Broken engines, which the model must find out."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from cqrs.saga import _forward, _run
from cqrs.saga._forward import Forward
from cqrs.saga._ledger import Ledger
from cqrs.saga._progress import StepProgress, StepState
from cqrs.saga._run import SagaRun
from cqrs.saga._step_run import StepCaller
from cqrs.saga.compensation import Compensator
from cqrs.saga.journal import LeasedJournal
from cqrs.saga.storage import _memory_tables
from cqrs.saga.storage.enums import SagaStatus
from saga_model.scenarios import A, B, C, D, refusing
from saga_model.shapes import Both, Either, NoReturn, Scenario, Step

_REFUSED = Scenario("mutant_refused", (A, B, refusing("C")), ends="failed")
_DONE = Scenario("mutant_done", (A, B))
_EITHER = Scenario("mutant_either", (A, Either(refusing("B"), C), D))
_RETRIED_LATER = Scenario("mutant_refused_later", (Step("A", refusals=1), B), ends="failed")
_BOTH = Scenario("mutant_both", (Both((A, B)), refusing("C")), ends="failed")
_PIVOT = Scenario("mutant_pivot", (A, NoReturn(B), Step("C", attempts=2)))


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A broken engine.

    :param breaks: breaks it.
    :param scenario: a saga that shows it.
    :param needs_native: whether it is only wrong on asyncio.
    """

    breaks: Callable[[pytest.MonkeyPatch], None]
    scenario: Scenario
    needs_native: bool = False


MUTANTS: dict[str, Mutant] = {}


def _mutant(scenario: Scenario, needs_native: bool = False) -> Callable[[Any], Any]:
    def register(breaks: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
        MUTANTS[breaks.__name__] = Mutant(breaks, scenario, needs_native)
        return breaks

    return register


@_mutant(_DONE)
def acts_before_it_is_logged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepProgress, "announce", lambda self, checkpoint: setattr(self, "state", StepState.ANNOUNCED))


@_mutant(_DONE)
def hands_out_what_is_not_logged(patch: pytest.MonkeyPatch) -> None:
    async def log_done(self: Any, *args: Any) -> None:
        pass

    patch.setattr(Forward, "_log_done", log_done)


@_mutant(_DONE)
def forgets_the_context(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "keep_context", lambda self, checkpoint: None)


@_mutant(_REFUSED)
def compensates_before_it_is_compensating(patch: pytest.MonkeyPatch) -> None:
    begin = Compensator._begin

    def begin_quietly(self: Any, checkpoint: Any) -> None:
        begin(self, checkpoint)
        checkpoint.status = None

    patch.setattr(Compensator, "_begin", begin_quietly)


@_mutant(_REFUSED)
def compensates_without_a_shield(patch: pytest.MonkeyPatch) -> None:
    async def unprotected(work: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        return await work()

    patch.setattr(_run, "run_protected", unprotected)


@_mutant(_REFUSED, needs_native=True)
def compensates_with_a_shield_only(patch: pytest.MonkeyPatch) -> None:
    async def shielded(work: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        with anyio.CancelScope(shield=True):
            return await work()

    patch.setattr(_run, "run_protected", shielded)


@_mutant(_REFUSED)
def compensates_in_order(patch: pytest.MonkeyPatch) -> None:
    roll_back = Compensator.roll_back

    async def in_order(self: Any, give_back: Any) -> Any:
        self._stages = tuple(reversed(self._stages))
        return await roll_back(self, give_back)

    patch.setattr(Compensator, "roll_back", in_order)


@_mutant(_REFUSED)
def compensates_with_a_new_instance(patch: pytest.MonkeyPatch) -> None:
    compensate = StepCaller.compensate

    async def anew(self: Any, step: Any, context: Any) -> None:
        step.handler = None
        await compensate(self, step, context)

    patch.setattr(StepCaller, "compensate", anew)


@_mutant(_REFUSED)
def compensates_again_what_is_undone(patch: pytest.MonkeyPatch) -> None:
    read = StepProgress.read

    def read_acts(self: Any, entry: Any) -> None:
        if entry.action == "act":
            read(self, entry)

    patch.setattr(StepProgress, "read", read_acts)


@_mutant(_BOTH)
def compensates_what_has_failed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        StepProgress, "may_have_acted", property(lambda self: self.state not in (StepState.IDLE, StepState.UNDONE))
    )


@_mutant(_DONE)
def takes_unknown_for_failed(patch: pytest.MonkeyPatch) -> None:
    fail = StepProgress.fail
    patch.setattr(StepProgress, "fail", lambda self, error, is_doubtful: fail(self, error, False))


@_mutant(_RETRIED_LATER)
def forgets_in_recovery_what_is_unknown(patch: pytest.MonkeyPatch) -> None:
    read = StepProgress.read

    def read_without_doubt(self: Any, entry: Any) -> None:
        read(self, entry)
        self.is_doubtful = False

    patch.setattr(StepProgress, "read", read_without_doubt)


@_mutant(_REFUSED)
def goes_forward_again(patch: pytest.MonkeyPatch) -> None:
    load = LeasedJournal.load

    async def load_as_running(self: Any) -> Any:
        record, history = await load(self)
        is_rolling_back = record.status is SagaStatus.COMPENSATING
        return (dataclasses.replace(record, status=SagaStatus.RUNNING) if is_rolling_back else record), history

    patch.setattr(LeasedJournal, "load", load_as_running)


@_mutant(_PIVOT)
def rolls_back_behind_the_pivot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_run, "verdict_on_failure", lambda *args, **options: _run.Verdict.ROLL_BACK)


@_mutant(_DONE)
def keeps_its_lease(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, error: Any = None) -> None:
        pass

    patch.setattr(SagaRun, "leave", nothing)


@_mutant(_DONE)
def takes_what_is_leased(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_memory_tables.StoredSaga, "is_leased", lambda self, now: False)


@_mutant(_REFUSED)
def does_not_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_memory_tables.SagaTable, "find_leased", lambda self, lease: self.find(lease.saga_id))


@_mutant(_EITHER)
def falls_back_on_a_used_context(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_forward, "copy", types.SimpleNamespace(deepcopy=lambda context: context))
