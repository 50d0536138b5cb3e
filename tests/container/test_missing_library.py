"""Adapters of libraries that are not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import cqrs.container.plain, cqrs.exceptions
assert not {{"di", "dishka", "dependency_injector"}} & set(sys.modules), "an optional library was loaded"
try:
    import cqrs.container.{module}
except ModuleNotFoundError as error:
    print(type(error).__name__, error)
except cqrs.exceptions.MissingDependencyError as error:
    print(type(error).__name__, error.library, error)
"""


def outcome(module: str, absent: str) -> str:
    script = BLOCKED.format(module=module, absent=absent)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("module", "extra"),
    [("di", "di"), ("dependency_injector", "dependency-injector"), ("dishka", "dishka")],
)
def test_names_the_extra(module: str, extra: str) -> None:
    """Where the library is missing, the error names the extra that brings it; the plain container works without."""
    assert outcome(module, module).startswith(f"MissingDependencyError {extra} ")
    assert f"pip install 'anyio-cqrs[{extra}]'" in outcome(module, module)


def test_something_else_missing_is_not_blamed_on_the_library() -> None:
    """A module that the library itself lacks is reported as what it is."""
    pytest.importorskip("di")
    assert outcome("di", "graphlib2").startswith("ModuleNotFoundError No module named 'graphlib2'")
