"""The Python blocks of a Markdown page, run one after the other as a reader would."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pathlib
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import pytest


def _backends() -> Sequence[str]:
    return ("asyncio", "trio") if importlib.util.find_spec("trio") else ("asyncio",)


@pytest.fixture(params=_backends())
def reader_backend(request: pytest.FixtureRequest) -> str:
    """``asyncio`` or ``trio``, as they come."""
    return str(request.param)


@pytest.fixture
def blocks_of() -> Callable[[pathlib.Path], list[tuple[int, str]]]:
    """The blocks of a page that are to be run, each with the number of its first line."""
    return _blocks_of


@pytest.fixture
def run_page() -> Callable[[pathlib.Path, str], None]:
    """Runs all blocks of a page on a backend."""
    return _run_page


_BLOCK = re.compile(r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)


def _blocks_of(page: pathlib.Path) -> list[tuple[int, str]]:
    """The blocks to be run, each with the number of its first line. ``python no-run`` marks the others."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start("code")), textwrap.dedent(found["code"]))
        for found in _BLOCK.finditer(text)
        if found["info"].strip() != "no-run"
    ]


def _run_page(page: pathlib.Path, backend: str) -> None:
    """Run all blocks of ``page`` in one namespace; top-level ``await`` is allowed."""
    with _module(f"page_{page.stem.replace('-', '_')}") as namespace:
        anyio.run(_run_blocks, page, namespace, backend=backend)


async def _run_blocks(page: pathlib.Path, namespace: dict[str, Any]) -> None:
    for line, code in _blocks_of(page):
        tree = ast.parse(code, filename=str(page))
        ast.increment_lineno(tree, line)
        compiled = compile(tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(compiled, namespace)  # the reader types it in; there is nothing to protect from
        if inspect.isawaitable(result):
            await result


@contextmanager
def _module(name: str) -> Iterator[dict[str, Any]]:
    # Annotations are looked up in the module that a class names, so there has to be one.
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        yield vars(module)
    finally:
        del sys.modules[name]
