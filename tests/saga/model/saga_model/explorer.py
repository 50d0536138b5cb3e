"""Finds the schedules of a scenario, runs them, and tells which rules were broken.

The points are found by running: without faults first; then with a fault at each point that was found; then with a
second one at each point behind the first, recovery included; and so on. Of the schedules with several faults
a sample is run, always the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

import anyio
from typing_extensions import Self

from cqrs.exceptions import name_of
from saga_model.faults import NATIVE_CANCELS, Fault, Kind, Point, kinds_at
from saga_model.shapes import Scenario
from saga_model.world import World

_BOUND = 20.0
"""Seconds after which a schedule hangs."""

_ROUNDS = tuple("123456789")
"""Of recovery. Nothing happens in the later ones that did not in those before."""


@dataclasses.dataclass
class Findings:
    """What was run, and what was found."""

    schedules: int = 0
    violations: list[str] = dataclasses.field(default_factory=list)

    def add(self, scenario: Scenario, schedule: Sequence[Fault], workers: int, world: World) -> None:
        self.schedules += 1
        for rule in world.truth.violations:
            faults = "; ".join(map(str, schedule)) or "no fault"
            self.violations.append(f"{scenario.name}, {workers} workers, {faults}: {rule}")

    def __iadd__(self, other: Findings) -> Self:
        self.schedules += other.schedules
        self.violations += other.violations
        return self


class Explorer:
    """Runs the schedules of one scenario.

    :param is_asyncio: whether there is ``task.cancel()``.
    """

    def __init__(self, scenario: Scenario, is_asyncio: bool, stops_at_first: bool = False) -> None:
        self.findings = Findings()
        self._scenario = scenario
        self._is_asyncio = is_asyncio
        self._stops_at_first = stops_at_first

    async def explore(self, singles: int | None, pairs: int, triples: int) -> Findings:
        """Run the scenario without a fault, with one, with two, and with three.

        :param singles: how many schedules of one fault; None: all.
        """
        base = await self._run((), 1)
        ends = base.truth.record.status if base.truth.record is not None else None
        if ends != self._scenario.ends:
            self.findings.violations.append(f"{self._scenario.name} ends {ends}")
        traces: dict[tuple[Fault, ...], list[Point]] = {(): base.trace}
        for sample in (singles, pairs, triples):
            traces = await self._deepen(traces, sample)
        return self.findings

    @property
    def _is_enough(self) -> bool:
        return self._stops_at_first and bool(self.findings.violations)

    async def _deepen(
        self, traces: dict[tuple[Fault, ...], list[Point]], sample: int | None
    ) -> dict[tuple[Fault, ...], list[Point]]:
        schedules = [schedule for earlier, trace in traces.items() for schedule in self._extended(earlier, trace)]
        if sample is not None and sample < len(schedules):
            chosen = random.Random(self._scenario.name)  # the same each time
            schedules = chosen.sample(schedules, sample)
        deeper: dict[tuple[Fault, ...], list[Point]] = {}
        for number, schedule in enumerate(schedules):
            if self._is_enough:
                break
            leaves_work = schedule[-1].kind in (Kind.CRASH, Kind.PAUSE)
            both = sample is None and leaves_work
            deeper[schedule] = await self._run_with_workers(schedule, both, first=1 + number % 2)
        return deeper

    def _extended(self, earlier: tuple[Fault, ...], trace: list[Point]) -> Iterator[tuple[Fault, ...]]:
        start = trace.index(earlier[-1].point) + 1 if earlier and earlier[-1].point in trace else 0
        paused = {fault.point.process for fault in earlier if fault.kind is Kind.PAUSE}
        native_cancels = itertools.cycle((True, False, False, False))
        late_rounds = _ROUNDS if self._scenario.never_ends and not earlier else _ROUNDS[2:]
        for point in trace[start:]:
            if point.process[-2:-1] in late_rounds:
                continue
            can_pause = self._scenario.is_sequential and point.process not in paused
            for kind in kinds_at(point.place, self._is_asyncio, can_pause):
                if kind in NATIVE_CANCELS and not next(native_cancels):
                    continue
                yield (*earlier, Fault(point, kind))

    async def _run_with_workers(self, schedule: tuple[Fault, ...], both: bool, first: int) -> list[Point]:
        world = await self._run(schedule, first)
        if both and world.has_recovered:
            await self._run(schedule, 3 - first)
        return world.trace

    async def _run(self, schedule: tuple[Fault, ...], workers: int) -> World:
        world = World(self._scenario, schedule, workers, self._is_asyncio)
        try:
            with anyio.fail_after(_BOUND):
                await world.run()
        except Exception as error:
            world.truth.broken(f"the schedule ended with {name_of(type(error))}: {error!r}")
        if len(world.reached) == len(schedule):
            self.findings.add(self._scenario, schedule, workers, world)
        return world


async def explore_all(
    scenarios: Iterable[Scenario], is_asyncio: bool, singles: int | None, pairs: int, triples: int
) -> Findings:
    """Explore several scenarios."""
    findings = Findings()
    for scenario in scenarios:
        findings += await Explorer(scenario, is_asyncio).explore(singles, pairs, triples)
    return findings
