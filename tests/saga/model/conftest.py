"""The model's modules, its backends, quiet logs, reproducible schedules on trio, and their count at the end."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests are imported by file, so that helpers beside them are found by path alone.
sys.path.insert(0, str(Path(__file__).parent))


def _backend(name: str, library: str, **options: Any) -> Any:
    marks = [] if importlib.util.find_spec(library) else [pytest.mark.skip(reason=f"{library} is not installed")]
    return pytest.param((name, options), id="uvloop" if library == "uvloop" else name, marks=marks)


# Without asyncio's debug mode, which makes a schedule several times as slow.
@pytest.fixture(
    params=[_backend("asyncio", "asyncio"), _backend("asyncio", "uvloop", use_uvloop=True), _backend("trio", "trio")]
)
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    if backend[0] == "trio":
        _make_trio_reproducible(monkeypatch)
    return backend


def _make_trio_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    import trio._core._run as scheduler

    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    scheduler._r.seed(0)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Each schedule makes the engine write warnings with tracebacks, which cost more than the schedule."""
    logger = logging.getLogger("cqrs")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    counts = [
        value
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "saga_schedules"
    ]
    if counts:
        terminalreporter.write_line(f"saga model: {sum(counts)} schedules in {len(counts)} tests")
