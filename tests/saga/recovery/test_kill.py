"""Processes that run sagas are killed at random points; recovery brings every saga to its end, nothing half-done."""

from __future__ import annotations

import collections
import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from killed_sagas import IS_POSSIBLE

KILLS = 100
"""For each backend."""

SHIPPING = ({"ShipByAir"}, {"ShipByRoad"})
KEPT = {
    "OrderSaga": [{"Reserve", "Pay", "Pack", "Notify"} | shipped for shipped in SHIPPING],
    "TransferSaga": [{"Debit", "Credit", "Confirm"}],
}
UNTIL_DONE = {"Confirm"}
"""Behind the pivot: these are tried again within one start."""


@dataclasses.dataclass
class Told:
    """What storage and world say of one saga."""

    name: str
    status: str
    log: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    in_force: set[str] = dataclasses.field(default_factory=set)
    begun: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def is_half_done(self) -> bool:
        return self.in_force not in (KEPT[self.name] if self.status == "completed" else [set()])


def told(directory: Path) -> dict[str, Told]:
    sagas, world = (sqlite3.connect(directory / name) for name in ("sagas.db", "world.db"))
    found = {saga: Told(name, status) for saga, name, status in sagas.execute("SELECT id, name, status FROM sagas")}
    for saga, *entry in sagas.execute("SELECT saga_id, step_name, action, status FROM log ORDER BY nth"):
        found[saga].log.append(tuple(entry))
    for saga, step in world.execute("SELECT saga, step FROM effects WHERE acted IS 1 AND undone IS NOT 1"):
        found[saga].in_force.add(step)
    for saga, step in world.execute("SELECT saga, step FROM calls WHERE what = 'act begins'"):
        found[saga].begun[step] += 1
    sagas.close()
    world.close()
    return found


def ends_of(saga: Told, action: str) -> dict[str, str]:
    """What the log says last of each step."""
    return {step: status for step, kind, status in saga.log if kind == action}


def launch(*arguments: str | Path) -> str:
    script = Path(__file__).with_name("killed_sagas.py")
    ended = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.skipif(not IS_POSSIBLE, reason="processes cannot be forked here")
@pytest.mark.parametrize(("backend", "seed"), [("asyncio", "1"), ("trio", "2")])
def test_whatever_is_killed_ends_whole(backend: str, seed: str, tmp_path: Path, record_property) -> None:
    """Each saga whose process was killed ends COMPLETED with all effects, or FAILED with none, and its log is true."""
    pytest.importorskip(backend)
    kills = json.loads(launch("kill", backend, tmp_path, seed, str(KILLS)))
    sagas = told(tmp_path)

    ends = collections.Counter(saga.status for saga in sagas.values())
    half_done = {key: saga for key, saga in sagas.items() if saga.is_half_done}
    figures = {"backend": backend, "kills": kills, "sagas": len(sagas), **ends, "half-done": len(half_done)}
    record_property("kill -9", figures)
    sys.stdout.write(f"{json.dumps(figures)}\n")

    assert sum(kills.values()) == KILLS
    assert set(ends) == {"completed", "failed"}
    assert half_done == {}
    for saga in sagas.values():
        assert_log_is_true(saga)


@pytest.mark.skipif(not IS_POSSIBLE, reason="processes cannot be forked here")
@pytest.mark.parametrize("number", [2, 10])
def test_processes_share_a_storage(number: int, tmp_path: Path) -> None:
    """Processes, on asyncio and on trio in turns, that recover from one file never call one step at the same time."""
    pytest.importorskip("trio")
    launch("share", "asyncio", tmp_path, "3", str(number))
    sagas = told(tmp_path)
    assert {saga.status for saga in sagas.values()} == {"completed", "failed"}
    assert {key: saga for key, saga in sagas.items() if saga.is_half_done} == {}
    for saga in sagas.values():
        assert_log_is_true(saga)
    world = sqlite3.connect(tmp_path / "world.db")
    at_work: set[tuple[str, str]] = set()
    for saga, step, what in world.execute("SELECT saga, step, what FROM calls ORDER BY nth"):
        if what.endswith("begins"):
            assert (saga, step) not in at_work
            at_work.add((saga, step))
        else:
            at_work.remove((saga, step))
    world.close()
    assert at_work == set()


def assert_log_is_true(saga: Told) -> None:
    acts, compensations = ends_of(saga, "act"), ends_of(saga, "compensate")
    undone = {step for step, status in compensations.items() if status == "completed"}
    if saga.status == "completed":
        assert {step for step, status in acts.items() if status == "completed"} - undone == saga.in_force
    assert set(compensations) == undone
    assert_nothing_acts_behind_a_rollback(saga)
    starts = collections.Counter(step for step, action, status in saga.log if (action, status) == ("act", "started"))
    for step, begun in saga.begun.items():
        assert begun <= starts[step] * (20 if step in UNTIL_DONE else 2 if step == "Notify" else 1)


def assert_nothing_acts_behind_a_rollback(saga: Told) -> None:
    is_rolled_back = False
    for step, action, status in saga.log:
        # A fallback compensates its first step, of which nobody knows, and goes on.
        is_rolled_back = is_rolled_back or (action == "compensate" and step != "ShipByAir")
        assert not (is_rolled_back and action == "act" and status == "started"), saga
