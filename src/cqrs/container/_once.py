"""Values that are made once, however many ask for them at a time."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio


class Once:
    """Values by key, each made once however many tasks, threads and event loops ask for it at a time.

    If its maker fails or is cancelled, the next that asks makes it.
    """

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self._makers: dict[Any, _Maker] = {}
        self._guard = threading.Lock()

    async def get(self, key: Any, make: Callable[[], Awaitable[Any]]) -> Any:
        if key in self.values:
            return self.values[key]
        candidate = _Maker()
        while True:
            with self._guard:
                if key in self.values:
                    return self.values[key]
                maker = self._makers.setdefault(key, candidate)
            if maker is candidate:
                return await self._make(key, make, maker)
            await maker.wait()

    def all_keys(self) -> list[Any]:
        """The keys of what there is and of what is being made."""
        with self._guard:
            return [*self.values, *(key for key in self._makers if key not in self.values)]

    def forget(self, key: Any) -> None:
        """Have ``key`` made anew by the next that asks. Who is making it keeps the value to itself."""
        with self._guard:
            self.values.pop(key, None)
            self._makers.pop(key, None)

    async def _make(self, key: Any, make: Callable[[], Awaitable[Any]], maker: _Maker) -> Any:
        try:
            value = await make()
            with self._guard:
                if self._makers.get(key) is maker:
                    self.values[key] = value
            return value
        finally:
            with self._guard:
                if self._makers.get(key) is maker:
                    del self._makers[key]
            maker.done.set()


class _Maker:
    """Somebody who is making a value."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._thread = threading.get_ident()

    async def wait(self) -> None:
        if self._thread == threading.get_ident():
            await self.done.wait()
        else:  # an event cannot be awaited from another event loop
            await anyio.sleep(0.005)
