"""What ``import cqrs`` offers."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cqrs

SOURCE = Path(cqrs.__file__)


def _names_for_type_checkers() -> dict[str, str]:
    block = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    """The names for type checkers, those that are loaded on first use and ``__all__`` are the same."""
    assert _names_for_type_checkers() == cqrs._MODULE_OF
    assert sorted(cqrs.__all__) == sorted(cqrs._MODULE_OF)


def test_every_submodule_is_an_attribute() -> None:
    """``import cqrs`` is enough for ``cqrs.events`` and all other public packages and modules."""
    found = {path.stem for path in SOURCE.parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    public = {name for name in found if not name.startswith("_")} - {"testing"}
    assert public == set(cqrs._SUBMODULES)
    for name in public:
        assert getattr(cqrs, name) is importlib.import_module(f"cqrs.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake fails as it does in any module."""
    with pytest.raises(AttributeError, match="no attribute 'Reqest'"):
        cqrs.Reqest  # noqa: B018  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]


def test_every_module_can_be_the_first_that_is_imported() -> None:
    """There is no cycle that only some order of imports gets through."""
    modules = [
        ".".join(("cqrs", *path.relative_to(SOURCE.parent).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCE.parent.rglob("*.py")
    ]
    script = """
import importlib, sys
for module in sys.argv[1:]:
    for loaded in [name for name in sys.modules if name.split(".")[0] == "cqrs"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(module)
    except ImportError as error:
        if type(error).__name__ != "MissingDependencyError":
            raise
"""
    subprocess.run([sys.executable, "-c", script, *sorted(modules)], check=True)
