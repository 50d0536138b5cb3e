"""Sagas keep their promises whatever goes wrong, and wherever."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from saga_model.explorer import explore_all
from saga_model.faults import Place
from saga_model.scenarios import FAMILIES, STRAIGHT
from saga_model.world import World

SAMPLES = {"asyncio": (None, 10, 3), "uvloop": (10, 5, 2), "trio": (60, 10, 5)}
"""How many schedules of one, two and three faults, for each saga. None: all."""

if "SAGA_MODEL_SAMPLE" in os.environ:  # many more, where there is time
    SAMPLES = dict.fromkeys(SAMPLES, (None, int(os.environ["SAGA_MODEL_SAMPLE"]), int(os.environ["SAGA_MODEL_SAMPLE"])))

AT_LEAST = {"asyncio": 500, "uvloop": 60, "trio": 250}


@pytest.mark.parametrize("family", FAMILIES)
async def test_sagas_under_faults(
    family: str, anyio_backend: tuple[str, dict[str, Any]], record_property: Callable[[str, object], None]
) -> None:
    """A fault at each await point and each storage write, in a runner or in recovery, breaks no rule."""
    loop = "uvloop" if "use_uvloop" in anyio_backend[1] else anyio_backend[0]
    findings = await explore_all(FAMILIES[family], anyio_backend[0] == "asyncio", *SAMPLES[loop])
    record_property("saga_schedules", findings.schedules)
    assert not findings.violations, "\n".join([f"{len(findings.violations)} violations", *findings.violations[:40]])
    assert findings.schedules >= AT_LEAST[loop]


async def test_three_steps_take_five_commits(backend_name: str) -> None:
    """A saga of three steps takes at most five commits, and hands out each result between two of them."""
    world = World(STRAIGHT, (), 1, backend_name == "asyncio")
    await world.run()
    assert not world.truth.violations
    assert world.truth.commits <= 5
    places = [point.place for point in world.trace]
    assert places.count(Place.RESULT) == 3
    assert places.count(Place.AFTER_WRITE) == world.truth.commits
