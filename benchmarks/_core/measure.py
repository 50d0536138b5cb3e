"""Runs the scenarios in the contenders' environments, by turns, and keeps the best of all rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from _core import lines
from _core.environments import CONTENDERS, OURS, V4, Contender

HERE = Path(__file__).resolve().parents[1]
TIMED = "import time\nstart = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
IMPORTS_OF_OURS = {
    lines.IMPORT_FLOOR: "import anyio, pydantic",
    # Both libraries load most of themselves when it is first used.
    lines.IMPORT_IN_USE: "import anyio, pydantic\nanyio.create_task_group\nclass A(pydantic.BaseModel): number: int",
}


@dataclass(frozen=True)
class Job:
    """A scenario, who takes part in it, and on which backend."""

    scenario: str
    contenders: tuple[Contender, ...] = CONTENDERS
    backend: str = "asyncio"


IMPORT = "import_time"
NEAR = 1.5
"""How many times the least value the next one may be, for the two to support each other."""

JOBS = (
    Job("send_bootstrapped"),
    Job("send_by_hand"),
    Job("all_events_arrive"),
    Job("ten_events"),
    Job("bare_task_group", (OURS,)),
    Job("many_events"),
    Job("stream"),
    Job("sagas", (OURS, V4)),
    Job("sagas", (OURS,), "trio"),
    *(Job("send_through_containers", (OURS,), backend) for backend in lines.BACKENDS),
    Job(IMPORT),
)


Key = tuple[Contender, str, str]
"""Contender, backend, line."""


@dataclass
class Results:
    """Seconds an operation, of each round. The value of a line is the least of them."""

    rounds: dict[Key, list[float]] = field(default_factory=dict)

    def add(self, contender: Contender, backend: str, values: dict[str, float]) -> None:
        for line, value in values.items():
            self.rounds.setdefault((contender, backend, line), []).append(value)

    def get(self, contender: Contender, line: str, backend: str = "asyncio") -> float | None:
        values = self.rounds.get((contender, backend, line))
        return min(values) if values else None

    def doubtful(self) -> list[tuple[Key, list[float]]]:
        """The lines whose least value no other round comes near to: a disturbance, or a clock that jumped."""
        return [(key, sorted(values)) for key, values in self.rounds.items() if _stands_alone(sorted(values))]


def _stands_alone(values: list[float]) -> bool:
    return values[0] <= 0 or (len(values) > 1 and values[0] < values[1] / NEAR)


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    :param rounds: how often the contenders take turns.
    :param budget: seconds for a line in one round.
    :param imports: how many fresh interpreters import the library in one round.
    """

    rounds: int
    budget: float
    imports: int


def measure(plan: Plan, jobs: Iterable[Job], interpreters: dict[Contender, Path]) -> Results:
    """Run each job in each of its contenders' environments, ``plan.rounds`` times, by turns."""
    results, jobs = Results(), tuple(jobs)
    for number in range(plan.rounds):
        for job in jobs:
            print(f"round {number + 1} of {plan.rounds}: {job.scenario} on {job.backend}", file=sys.stderr)
            for contender in _turns(job.contenders, number):
                results.add(contender, job.backend, _run(job, contender, plan, interpreters[contender]))
    return results


def _turns(contenders: tuple[Contender, ...], number: int) -> tuple[Contender, ...]:
    """Another one goes first in each round."""
    first = number % len(contenders)
    return contenders[first:] + contenders[:first]


def _run(job: Job, contender: Contender, plan: Plan, interpreter: Path) -> dict[str, float]:
    if job.scenario == IMPORT:
        return _imports(contender, plan, interpreter)
    worker = [str(interpreter), "-m", "_core.worker", job.scenario]
    options = ["--backend", job.backend, "--budget", str(plan.budget)]
    values: dict[str, float] = json.loads(_output([*worker, *options]))
    return values


def _imports(contender: Contender, plan: Plan, interpreter: Path) -> dict[str, float]:
    codes = {lines.IMPORT_CQRS: "import cqrs"}
    if contender is OURS:
        codes |= IMPORTS_OF_OURS
    return {line: _seconds_of(code, plan, interpreter) for line, code in codes.items()}


def _seconds_of(code: str, plan: Plan, interpreter: Path) -> float:
    command = [str(interpreter), "-I", "-c", TIMED.format(code)]
    return min(float(_output(command)) for _ in range(plan.imports))


def _output(command: list[str]) -> str:
    return subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
