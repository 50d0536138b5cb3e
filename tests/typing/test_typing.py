"""Type checkers accept what users write and report their mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MARKED = {number for number, line in enumerate((HERE / "bad.py").read_text().splitlines(), 1) if "# error" in line}


def _checker(name: str) -> str:
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed: pip install -e '.[typecheck]'")
    assert path is not None, f"{name} is missing in CI"
    return path


def _mypy_errors(file: str) -> set[int]:
    command = [
        _checker("mypy"),
        "--strict",
        "--no-incremental",
        "--python-executable",
        sys.executable,
        str(HERE / file),
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return {int(line) for line in re.findall(rf"{re.escape(file)}:(\d+): error", result.stdout)}


def _pyright_errors(file: str) -> set[int]:
    command = [_checker("pyright"), "--outputjson", "--pythonpath", sys.executable, str(HERE / file)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    diagnostics = json.loads(result.stdout)["generalDiagnostics"]
    return {found["range"]["start"]["line"] + 1 for found in diagnostics if found["severity"] == "error"}


@pytest.mark.parametrize("errors", [_mypy_errors, _pyright_errors], ids=["mypy", "pyright"])
def test_right_uses_are_accepted_and_inferred(errors: object) -> None:
    """No checker reports anything in the file of right uses, whose ``assert_type`` lines state what is inferred."""
    assert callable(errors)
    assert errors("good.py") == set()


@pytest.mark.parametrize("errors", [_mypy_errors, _pyright_errors], ids=["mypy", "pyright"])
def test_mistakes_are_reported(errors: object) -> None:
    """Each marked mistake is reported, and nothing but the marked mistakes."""
    assert callable(errors)
    assert len(MARKED) >= 10
    assert errors("bad.py") == MARKED
