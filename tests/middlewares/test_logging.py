"""LoggingMiddleware: what it writes, and what it costs when nobody reads."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import cqrs.middlewares.logging as logging_module
from cqrs.events.event import DomainEvent
from cqrs.middlewares.base import MiddlewareChain
from cqrs.middlewares.logging import LoggingMiddleware
from cqrs.requests.request import Request
from cqrs.response import Response


class CreateOrder(Request):
    amount: int = 1


class OrderCreated(Response):
    order: int = 2


class Moved(DomainEvent, frozen=True):
    to: str = "here"


@dataclasses.dataclass
class Context:
    step: int = 3

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Unshowable:
    def to_dict(self) -> dict[str, Any]:
        raise AssertionError("asked for its fields")


def records(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any, Any]]:
    found = [record for record in caplog.records if record.name == "cqrs"]
    assert all(record.levelno == logging.DEBUG for record in found)
    return [(r.getMessage(), getattr(r, "request_json_fields", None), getattr(r, "to_mask", None)) for r in found]


async def test_logs_request_and_response_with_the_documented_extra(caplog: pytest.LogCaptureFixture) -> None:
    """Request and response are logged at DEBUG under their class's name, with fields and mask flag."""
    caplog.set_level(logging.DEBUG, "cqrs")

    async def handle(request: CreateOrder) -> OrderCreated:
        return OrderCreated()

    assert await LoggingMiddleware()(CreateOrder(), handle) == OrderCreated()
    assert records(caplog) == [
        ("Handle CreateOrder request", {"request": {"amount": 1}}, True),
        ("Request CreateOrder handled", {"response": {"order": 2}}, True),
    ]


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (None, None),
        ("done", "done"),
        (7, 7),
        (True, True),
        ([OrderCreated(), 1, None], [{"order": 2}, 1, None]),
        ((1, "a"), [1, "a"]),
        ({1}, "{1}"),
    ],
)
async def test_logs_responses_without_to_dict(caplog: pytest.LogCaptureFixture, response: Any, shown: Any) -> None:
    """A response needs no to_dict() to be logged, and is returned as it is."""
    caplog.set_level(logging.DEBUG, "cqrs")

    async def handle(request: Any) -> Any:
        return response

    assert await LoggingMiddleware()(CreateOrder(), handle) is response
    assert records(caplog)[1][1] == {"response": shown}


@pytest.mark.parametrize(("message", "fields"), [(Moved(), {"to": "here"}), (Context(), {"step": 3})])
async def test_logs_events_and_contexts(caplog: pytest.LogCaptureFixture, message: Any, fields: Any) -> None:
    """Events and saga contexts are logged like requests."""
    caplog.set_level(logging.DEBUG, "cqrs")

    async def handle(request: Any) -> None: ...

    await LoggingMiddleware()(message, handle)
    assert records(caplog)[0] == (f"Handle {type(message).__name__} request", {"request": fields}, True)


async def test_a_response_that_cannot_be_shown_is_returned_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A failing to_dict() is noted in the log and fails nothing."""
    caplog.set_level(logging.DEBUG, "cqrs")
    response = Unshowable()

    async def handle(request: Any) -> Any:
        return response

    assert await LoggingMiddleware()(CreateOrder(), handle) is response
    assert "asked for its fields" in records(caplog)[1][1]["response"]


async def test_costs_one_question_while_debug_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DEBUG the logger is asked once, nothing is logged and no field is read."""
    asked: list[str] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return lambda *_: False

    monkeypatch.setattr(logging_module, "_logger", Spy())
    response = Unshowable()

    async def handle(request: Any) -> Any:
        return response

    assert await LoggingMiddleware()(Unshowable(), handle) is response
    assert asked == ["isEnabledFor"]


async def test_logs_a_failure_and_raises_it_on(caplog: pytest.LogCaptureFixture) -> None:
    """The handler's own error leaves, and is logged at DEBUG with its traceback."""
    caplog.set_level(logging.DEBUG, "cqrs")
    failure = ValueError("no stock")

    async def handle(request: Any) -> None:
        raise failure

    with pytest.raises(ValueError, match="no stock") as caught:
        await LoggingMiddleware()(CreateOrder(), handle)
    assert caught.value is failure
    assert records(caplog)[1] == ("Request CreateOrder failed", {"error": "ValueError('no stock')"}, True)
    assert caplog.records[-1].exc_info is not None


async def test_a_cancellation_is_not_logged_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled handler leaves the first record alone in the log."""
    caplog.set_level(logging.DEBUG, "cqrs")

    async def hang(request: Any) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await LoggingMiddleware()(CreateOrder(), hang)
    assert scope.cancelled_caught
    assert [message for message, *_ in records(caplog)] == ["Handle CreateOrder request"]


def test_is_a_middleware() -> None:
    """A chain takes it."""
    chain = MiddlewareChain()
    chain.set([LoggingMiddleware()])
    assert chain


async def test_a_stream_is_logged_at_its_beginning_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """With DEBUG on, a stream has two records around its results; with DEBUG off it is handed on as it is."""

    async def results(request: object) -> AsyncIterator[int]:
        yield 1
        yield 2

    middleware = LoggingMiddleware()
    with caplog.at_level(logging.DEBUG, logger="cqrs"):
        assert [item async for item in middleware.stream("request", results)] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["Handle str request", "Request str handled"]
    with caplog.at_level(logging.INFO, logger="cqrs"):
        items = middleware.stream("request", results)
        assert [item async for item in items] == [1, 2]
        assert getattr(items, "ag_code", None) is results.__code__


async def test_a_stream_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The failure of a stream is logged and leaves as itself."""

    async def results(request: object) -> AsyncIterator[int]:
        yield 1
        raise LookupError("gone")

    with caplog.at_level(logging.DEBUG, logger="cqrs"), pytest.raises(LookupError, match="gone"):
        async for _ in LoggingMiddleware().stream("request", results):
            pass
    assert [record.getMessage() for record in caplog.records] == ["Handle str request", "Request str failed"]
