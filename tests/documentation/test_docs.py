"""The Python blocks of all pages run as they stand, and links between pages lead somewhere."""

from __future__ import annotations

import pathlib
import re
import textwrap
from typing import Any

import pytest

import cqrs
from cqrs import exceptions

pytest.importorskip("aiobreaker")
pytest.importorskip("di")
pytest.importorskip("dishka")
pytest.importorskip("dependency_injector")


ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))

_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)(?P<target>[^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: pathlib.Path, blocks_of: Any, run_page: Any, reader_backend: str) -> None:
    """Each block of a page runs after those before it, on both backends."""
    assert blocks_of(page) or page.stem in {"index", "api"}
    run_page(page, reader_backend)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """A link to a file of this repository names one that is there."""
    targets = [found["target"] for found in _LINK.finditer(_CODE.sub("", page.read_text(encoding="utf-8")))]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    """No page is left for nobody to find."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.stem != "index" and f"({page.name})" not in index] == []


def test_every_error_is_on_the_page_of_errors() -> None:
    """The tree of errors is the one that the library has."""
    tree = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert exceptions.__doc__ is not None
    drawn = textwrap.dedent(exceptions.__doc__.partition("::\n")[2].partition("An error that")[0]).strip()
    assert drawn in tree


def test_every_public_name_is_on_the_page_of_names() -> None:
    """What ``cqrs`` offers is listed, save the type variables and the container that needs di."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    unlisted = {"ContextT", "Resp", "DIContainer"}
    assert [name for name in cqrs.__all__ if f" {name}" not in page and name not in unlisted] == []
