"""Mermaid itself, under Node, for the tests that show it what the library drew."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent


class Mermaid:
    """A running ``parse.mjs``: diagrams in, what Mermaid made of them out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, diagrams: Sequence[str]) -> list[dict[str, Any]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(diagrams) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, f"parse.mjs ended with {self._process.wait(timeout=10)}"
        answers: list[dict[str, Any]] = json.loads(answer)
        return answers

    def texts(self, diagram: str) -> list[str]:
        """The texts in the drawing of ``diagram``."""
        (answer,) = self.read([diagram])
        assert "error" not in answer, f"{answer['error']}\n{diagram}"
        return [" ".join(text.split()) for text in answer["texts"]]


@pytest.fixture(scope="session")
def mermaid() -> Iterator[Mermaid]:
    """Mermaid's parser; where it is absent tests are skipped, but with CI=true they fail."""
    missing = _missing()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with subprocess.Popen(
        ["node", "parse.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        yield Mermaid(process)


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "Node is not installed"
    if not (HERE / "node_modules" / "mermaid").is_dir():
        return "Mermaid is not installed: run 'npm ci' in tests/mermaid"
    return None
