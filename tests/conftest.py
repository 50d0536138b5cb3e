"""The backends that every async test runs on."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def _backend(name: str, *needs: str, **options: Any) -> Any:
    missing = [library for library in needs if importlib.util.find_spec(library) is None]
    marks = [pytest.mark.skip(reason=f"{', '.join(missing)} is not installed")] if missing else []
    return pytest.param((name, options), id="uvloop" if "use_uvloop" in options else name, marks=marks)


BACKENDS = [
    _backend("asyncio", debug=True),
    _backend("asyncio", "uvloop", use_uvloop=True, debug=True),
    _backend("trio", "trio", restrict_keyboard_interrupt_to_checkpoints=True),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each async test runs on asyncio, asyncio with uvloop, and trio."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def backend_name(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """``asyncio`` or ``trio``."""
    return anyio_backend[0]
