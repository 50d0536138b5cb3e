"""The model finds out engines that are broken: so it would notice if this one were."""

from __future__ import annotations

from typing import Any

import pytest
from saga_model.explorer import Explorer
from saga_model.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
async def test_broken_engines_are_found_out(
    name: str, anyio_backend: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken engine breaks a rule in some schedule of one or two faults; the unbroken one breaks none of them."""
    mutant, is_asyncio = MUTANTS[name], anyio_backend[0] == "asyncio"
    if mutant.needs_native and not is_asyncio:
        pytest.skip("there is no native cancellation")
    if "use_uvloop" in anyio_backend[1]:
        pytest.skip("it is found out on asyncio's own loop")
    with monkeypatch.context() as patch:
        mutant.breaks(patch)
        findings = await Explorer(mutant.scenario, is_asyncio, stops_at_first=True).explore(None, 100, 0)
    assert findings.violations, f"{findings.schedules} schedules"
