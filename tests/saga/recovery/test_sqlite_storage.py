"""A storage in a file, which the tests of recovery kill processes on, passes the contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlite_saga_storage import SqliteSagaStorage

from cqrs.saga.storage import ISagaStorage
from cqrs.testing import LeasedSagaStorageContract


class StorageOnTestTime(SqliteSagaStorage):
    """Its clock stands still until it is moved."""

    def __init__(self, path: Path) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=timezone.utc)
        super().__init__(path, clock=lambda: self.now)


class TestSqliteStorage(LeasedSagaStorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[StorageOnTestTime]:
        storage = StorageOnTestTime(tmp_path / "sagas.db")
        yield storage
        storage.close()

    async def let_time_pass(self, storage: ISagaStorage, seconds: float) -> None:
        assert isinstance(storage, StorageOnTestTime)
        storage.now += timedelta(seconds=seconds)


class TestSqliteStorageInRealTime(LeasedSagaStorageContract):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {}

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[SqliteSagaStorage]:
        storage = SqliteSagaStorage(tmp_path / "sagas.db")
        yield storage
        storage.close()
