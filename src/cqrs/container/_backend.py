"""Which event loop this is, for libraries that know one only."""

from __future__ import annotations

import anyio


def is_asyncio() -> bool:
    """Whether the running event loop is one of asyncio's, uvloop's too."""
    return anyio.get_cancelled_exc_class().__module__.startswith("asyncio")
