"""What the tests of recovery share is in modules beside them, which subprocesses import as well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

from recovery_bench import Bench, MemoryOnTestTime, SqliteOnTestTime


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Steps that tell what they do, none of them twice at once."""
    bench = Bench()
    yield bench
    assert bench.overlaps == []


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A storage with leases, whose clock stands still until it is moved: in memory, and in a file."""
    if request.param == "memory":
        yield MemoryOnTestTime()
        return
    storage = SqliteOnTestTime(tmp_path / "sagas.db")
    yield storage
    storage.close()
