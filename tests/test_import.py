"""What importing the library does, and does not do."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import cqrs
from cqrs.exceptions import MissingDependencyError

OPTIONAL = [
    "aio_pika",
    "aiobreaker",
    "aiokafka",
    "asyncmy",
    "dependency_injector",
    "di",
    "dishka",
    "dotenv",
    "google.protobuf",
    "opentelemetry",
    "orjson",
    "psycopg",
    "pymysql",
    "sqlalchemy",
    "tenacity",
    "trio",
    "uvloop",
]


def in_a_new_interpreter(code: str) -> Any:
    """Run ``code``; what it prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_optional_library_is_loaded() -> None:
    """``import cqrs`` and the bootstraps load none of the libraries that extras bring, nor an event loop's."""
    loaded = in_a_new_interpreter(
        f"""
        import json, sys
        import cqrs, cqrs.requests.bootstrap, cqrs.events.bootstrap
        print(json.dumps([name for name in {OPTIONAL!r} if name in sys.modules]))
        """
    )
    assert loaded == []


def test_the_environment_is_not_read() -> None:
    """``import cqrs`` reads no environment variable and no file of them."""
    seen = in_a_new_interpreter(
        """
        import json, os, sys
        # these may read what they like
        import anyio.abc, anyio.lowlevel, pydantic, typing_extensions, logging, pydantic.root_model

        class Spy(dict):
            read = []
            def __getitem__(self, key):
                self.note(key)
                return super().__getitem__(key)
            def get(self, key, default=None):
                self.note(key)
                return super().get(key, default)
            def __contains__(self, key):
                self.note(key)
                return super().__contains__(key)
            def note(self, key):
                frame = sys._getframe(2)
                while frame:
                    name = frame.f_globals.get("__name__", "")
                    if name.startswith("cqrs"):
                        self.read.append(f"{key} in {name}")
                        break
                    if name.startswith("pydantic"):
                        break  # building a model, pydantic asks for its own settings
                    frame = frame.f_back

        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        os.environ = Spy(os.environ)
        import cqrs, cqrs.requests.bootstrap, cqrs.events.bootstrap
        files = [name for name in opened if name.rsplit("/", 1)[-1].startswith(".env")]
        print(json.dumps(Spy.read + files))
        """
    )
    assert seen == []


def test_logging_is_left_alone() -> None:
    """``import cqrs`` adds no handler and sets no level, on the root logger or any of its own."""
    state = in_a_new_interpreter(
        """
        import json, logging
        import cqrs, cqrs.requests.bootstrap, cqrs.events.bootstrap
        own = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("cqrs")]
        print(json.dumps({
            "root": [len(logging.root.handlers), logging.root.level == logging.WARNING],
            "own": [[len(logger.handlers), logger.level, logger.propagate, logger.disabled] for logger in own],
        }))
        """
    )
    assert state["root"] == [0, True]
    assert state["own"]
    assert all(each == [0, logging.NOTSET, True, False] for each in state["own"])


def test_no_event_loop_is_made() -> None:
    """Importing and bootstrapping need no event loop and make none."""
    assert in_a_new_interpreter(
        """
        import asyncio, json
        def refuse(*_):
            raise AssertionError("an event loop was asked for")
        asyncio.set_event_loop = asyncio.new_event_loop = asyncio.get_event_loop = refuse
        import cqrs
        from cqrs.requests import bootstrap
        bootstrap.bootstrap()
        bootstrap.bootstrap_streaming()
        print(json.dumps(True))
        """
    )


def public_names() -> list[str]:
    return sorted(cqrs.__all__)


def test_public_names_are_unique_and_listed() -> None:
    """``__all__`` names nothing twice, and ``dir`` shows every name of it."""
    assert len(set(cqrs.__all__)) == len(cqrs.__all__)
    assert set(cqrs.__all__) <= set(dir(cqrs))


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_there_and_documented(name: str) -> None:
    """Every name of ``__all__`` can be imported, also where it is defined, and has a docstring of its own."""
    try:
        thing = getattr(cqrs, name)
    except MissingDependencyError as missing:
        pytest.skip(str(missing))
    if not inspect.isclass(thing):
        assert callable(thing) or type(thing).__name__ == "TypeVar"
        return
    assert thing.__doc__
    inherited = [base.__doc__ for base in thing.__mro__[1:]]
    assert thing.__doc__ not in inherited
    home = importlib.import_module(thing.__module__)
    assert getattr(home, thing.__name__) is thing


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is no attribute of the package."""
    with pytest.raises(AttributeError, match="nothing_of_this_kind"):
        _ = cqrs.nothing_of_this_kind


NEEDING = [
    ("cqrs.container.di", "di", "di", "di"),
    ("cqrs.container.dependency_injector", "dependency_injector", "dependency-injector", "dependency-injector"),
    ("cqrs.container.dishka", "dishka", "dishka", "dishka"),
    ("cqrs.adapters.circuit_breaker", "aiobreaker", "aiobreaker", "aiobreaker"),
    ("cqrs.middlewares.opentelemetry", "opentelemetry", "opentelemetry-api", "opentelemetry"),
]


@pytest.mark.parametrize(("module", "library", "distribution", "extra"), NEEDING, ids=[row[0] for row in NEEDING])
def test_a_missing_library_names_its_extra(module: str, library: str, distribution: str, extra: str) -> None:
    """Without its library a module says, as an ImportError of ours, what to install."""
    told = in_a_new_interpreter(
        f"""
        import importlib, json, sys
        sys.modules[{library!r}] = None
        from cqrs.exceptions import MissingDependencyError
        try:
            module = importlib.import_module({module!r})
            getattr(module, "AioBreakerAdapter", int)()  # needs its library when it is used
        except MissingDependencyError as error:
            print(json.dumps([error.library, error.extra, str(error), isinstance(error, ImportError)]))
        else:
            print(json.dumps(None))
        """
    )
    assert told is not None, "it was imported without its library"
    assert told[:2] == [distribution, extra]
    assert f"anyio-cqrs[{extra}]" in told[2]
    assert told[3] is True


def test_a_name_that_needs_a_library_says_so_on_first_use() -> None:
    """``cqrs.DIContainer`` without ``di`` raises when it is used, not when cqrs is imported."""
    told = in_a_new_interpreter(
        """
        import json, sys
        sys.modules["di"] = None
        import cqrs
        try:
            cqrs.DIContainer()
        except ImportError as error:
            print(json.dumps([type(error).__name__, error.extra]))
        """
    )
    assert told == ["MissingDependencyError", "di"]


def test_a_library_that_is_broken_is_not_called_missing() -> None:
    """An ImportError from inside an installed library is not taken for its absence."""
    told = in_a_new_interpreter(
        """
        import importlib.abc, importlib.machinery, json, sys

        class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == "di" else None
            def create_module(self, spec):
                return None
            def exec_module(self, module):
                import a_dependency_of_di_that_is_not_there

        sys.meta_path.insert(0, Broken())
        try:
            import cqrs.container.di
        except ImportError as error:
            print(json.dumps([type(error).__name__, error.name]))
        """
    )
    assert told == ["ModuleNotFoundError", "a_dependency_of_di_that_is_not_there"]


@pytest.mark.parametrize("extra", sorted({row[3] for row in NEEDING}))
def test_every_extra_named_exists(extra: str) -> None:
    """The extras that errors tell users to install are extras of this distribution."""
    metadata = pytest.importorskip("importlib.metadata")
    assert extra in metadata.metadata("anyio-cqrs").get_all("Provides-Extra")
