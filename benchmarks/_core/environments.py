"""One virtual environment a contender, made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
EXTRAS = "trio,di,dependency-injector,dishka"


@dataclass(frozen=True)
class Contender:
    """A release to measure: the name of its column, and what pip installs."""

    name: str
    requirements: tuple[str, ...]
    depends_on: Path | None = None
    """A file that says what else is installed: another text of it asks for another environment."""


OURS = Contender(
    "anyio-cqrs", ("--editable", f"{CHECKOUT}[{EXTRAS}]", "uvloop"), depends_on=CHECKOUT / "pyproject.toml"
)
V4 = Contender("python-cqrs 4.10.1", ("python-cqrs==4.10.1",))
V5 = Contender("python-cqrs 5.3.0", ("python-cqrs==5.3.0",))
CONTENDERS = (OURS, V4, V5)


def default_home() -> Path:
    """Where environments are kept unless told otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "anyio-cqrs-benchmarks"


def interpreter(contender: Contender, home: Path, python: str) -> Path:
    """The interpreter of the contender's environment, which is made if it is not there.

    :param home: the directory of all environments.
    :param python: the interpreter that a new environment is made with.
    """
    directory = home / f"{contender.name.replace(' ', '-')}-{_fingerprint(contender, python)}"
    ready = directory / "ready"
    if not ready.exists():
        _make(directory, contender, python)
        ready.touch()
    return _python_in(directory)


def _fingerprint(contender: Contender, python: str) -> str:
    which = [python, "-c", "import sys; print(sys.base_prefix, sys.version)"]
    version = subprocess.run(which, check=True, capture_output=True, text=True).stdout
    depends_on = contender.depends_on.read_text() if contender.depends_on else ""
    parts = [version, *contender.requirements, depends_on]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def _make(directory: Path, contender: Contender, python: str) -> None:
    print(f"making an environment for {contender.name} in {directory}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(directory)], check=True)
    install = [str(_python_in(directory)), "-m", "pip", "install", "--quiet", *contender.requirements]
    subprocess.run(install, check=True)


def _python_in(directory: Path) -> Path:
    return directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
