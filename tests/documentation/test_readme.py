"""The Python blocks of the README run as they stand."""

from __future__ import annotations

import importlib.metadata
import pathlib
import subprocess
import sys
from typing import Any

import pytest

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_readme_has_blocks_to_run(blocks_of: Any) -> None:
    """The README shows code, and all of it is run."""
    assert len(blocks_of(README)) >= 6
    assert "no-run" not in README.read_text(encoding="utf-8")


def test_readme_runs(run_page: Any, reader_backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block of the README runs after those before it, on both backends."""
    run_page(README, reader_backend)
    assert "order ord-1" in capsys.readouterr().out


def test_readme_shows_what_the_application_prints(reader_backend: str) -> None:
    """The output of the order saga in the README is what the application prints, the read model's lines aside."""
    text = README.read_text(encoding="utf-8")
    shown = text.partition("```text\n5. Run the order saga\n")[2].partition("```")[0].splitlines()
    script = str(README.parent / "examples" / "order_service.py")
    run = subprocess.run(
        [sys.executable, script, "--backend", reader_backend], capture_output=True, text=True, timeout=60, check=True
    )
    part = run.stdout.partition("5. Run the order saga\n")[2].partition("\n6. ")[0].splitlines()
    assert shown
    assert [line for line in part if line and "read model" not in line] == shown


def test_every_extra_is_in_the_readme() -> None:
    """A reader finds each extra that can be installed."""
    extras = importlib.metadata.metadata("anyio-cqrs").get_all("Provides-Extra") or []
    text = README.read_text(encoding="utf-8")
    assert [extra for extra in extras if f"`{extra}`" not in text] == []
