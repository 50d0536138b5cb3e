"""OpenTelemetryMiddleware: spans, measurements, and whose context is current when."""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cqrs.events.event import NotificationEvent
from cqrs.exceptions import MissingDependencyError
from cqrs.middlewares.base import StreamMiddleware
from cqrs.middlewares.opentelemetry import OpenTelemetryMiddleware

BASE = {
    "messaging.system": "cqrs",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": "CreateOrder",
}


class CreateOrder: ...


class NoStock(Exception): ...


class Telemetry:
    """A middleware, and what it reports."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.middleware = OpenTelemetryMiddleware(self.tracer_provider, self.meter_provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def points(self, name: str) -> list[Any]:
        data: Any = self._reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        return [point for metric in found for point in metric.data.data_points]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def current() -> str | None:
    return getattr(trace.get_current_span(), "name", None)


async def test_a_handled_message_is_a_span(telemetry: Telemetry) -> None:
    """The span has the documented name, kind and attributes, and is current while the handler works."""
    seen = []

    async def handle(request: Any) -> str:
        seen.append(current())
        await anyio.lowlevel.checkpoint()
        seen.append(current())
        return "done"

    assert await telemetry.middleware(CreateOrder(), handle) == "done"
    assert seen == ["process CreateOrder"] * 2
    assert current() is None
    assert telemetry.span.name == "process CreateOrder"
    assert telemetry.span.kind is trace.SpanKind.CONSUMER
    assert dict(telemetry.span.attributes or {}) == BASE
    assert telemetry.span.status.is_unset


async def test_it_is_a_child_of_the_callers_span(telemetry: Telemetry) -> None:
    """Handlers below handlers make a tree."""

    async def inner(request: Any) -> None: ...

    async def outer(request: Any) -> None:
        await telemetry.middleware(CreateOrder(), inner)

    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("caller") as caller:
        await telemetry.middleware(CreateOrder(), outer)
    child, parent, _ = telemetry.spans
    assert child.parent is not None
    assert parent.parent is not None
    assert child.parent.span_id == parent.context.span_id
    assert parent.parent.span_id == caller.get_span_context().span_id


async def test_an_event_brings_its_identity(telemetry: Telemetry) -> None:
    """event_id and correlation_id are on the span, and not on the measurements."""

    class OrderPlaced(NotificationEvent[int], frozen=True): ...

    identity = uuid.uuid4()

    async def handle(request: Any) -> None: ...

    event = OrderPlaced(event_name="placed", payload=1, event_id=identity, correlation_id="cart-7")
    await telemetry.middleware(event, handle)
    attributes = dict(telemetry.span.attributes or {})
    assert attributes["messaging.message.id"] == str(identity)
    assert attributes["messaging.message.conversation_id"] == "cart-7"
    (point,) = telemetry.points("messaging.process.duration")
    assert dict(point.attributes) == BASE | {"messaging.destination.name": "OrderPlaced"}


async def test_measures_each_message(telemetry: Telemetry) -> None:
    """The duration is in seconds, and messages are counted by class."""

    async def handle(request: Any) -> None:
        await anyio.sleep(0.02)

    for _ in range(3):
        await telemetry.middleware(CreateOrder(), handle)
    (duration,) = telemetry.points("messaging.process.duration")
    (consumed,) = telemetry.points("messaging.client.consumed.messages")
    assert duration.count == 3
    assert 0.06 <= duration.sum < 5
    assert (consumed.value, dict(consumed.attributes)) == (3, BASE)


async def test_a_failure_is_recorded_and_raised_on(telemetry: Telemetry) -> None:
    """The span's status, error.type and event tell of the error, the measurements of its type."""
    failure = NoStock("none left")

    async def handle(request: Any) -> None:
        raise failure

    with pytest.raises(NoStock) as caught:
        await telemetry.middleware(CreateOrder(), handle)
    assert caught.value is failure
    kind = f"{__name__}.NoStock"
    assert (telemetry.span.attributes or {})["error.type"] == kind
    assert telemetry.span.status.status_code is trace.StatusCode.ERROR
    assert telemetry.span.status.description == f"{kind}: none left"
    assert [event.name for event in telemetry.span.events] == ["exception"]
    for name in ("messaging.process.duration", "messaging.client.consumed.messages"):
        (point,) = telemetry.points(name)
        assert dict(point.attributes) == BASE | {"error.type": kind}
    assert current() is None


async def test_builtin_errors_are_named_without_their_module(telemetry: Telemetry) -> None:
    """error.type of a ValueError is ValueError."""

    async def handle(request: Any) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await telemetry.middleware(CreateOrder(), handle)
    assert (telemetry.span.attributes or {})["error.type"] == "ValueError"


def cancellation() -> str:
    kind = anyio.get_cancelled_exc_class()
    return f"{kind.__module__}.{kind.__qualname__}"


async def test_a_cancellation_ends_the_span_and_goes_on(telemetry: Telemetry) -> None:
    """A cancelled handler's span carries the cancellation's class, without an exception event."""

    async def hang(request: Any) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await telemetry.middleware(CreateOrder(), hang)
    assert scope.cancelled_caught
    assert (telemetry.span.attributes or {})["error.type"] == cancellation()
    assert telemetry.span.status.status_code is trace.StatusCode.ERROR
    assert not telemetry.span.events
    assert current() is None


async def test_native_cancellation_ends_the_span_and_goes_on(telemetry: Telemetry, backend_name: str) -> None:
    """So does task.cancel()."""
    if backend_name != "asyncio":
        pytest.skip("asyncio's own way to cancel")

    async def hang(request: Any) -> None:
        await anyio.sleep_forever()

    task = asyncio.ensure_future(telemetry.middleware(CreateOrder(), hang))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (telemetry.span.attributes or {})["error.type"] == cancellation()


class Stream:
    """A streaming handler that notes which span is current in it."""

    def __init__(self, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self.seen: list[str | None] = []
        self._failure = failure
        self._hangs = hangs

    async def __call__(self, request: Any) -> AsyncIterator[int]:
        try:
            for number in range(3):
                self.seen.append(current())
                await anyio.lowlevel.checkpoint()
                yield number
            if self._hangs:
                await anyio.sleep_forever()
            if self._failure is not None:
                raise self._failure
        finally:
            self.seen.append(current())


def test_has_a_way_of_its_own_with_streams(telemetry: Telemetry) -> None:
    """It is a StreamMiddleware: its context is not current while a result is out."""
    assert isinstance(telemetry.middleware, StreamMiddleware)


async def test_one_span_covers_a_stream(telemetry: Telemetry) -> None:
    """The span is current in the handler, clean-up included, and never in the reader; it ends with the stream."""
    handle, in_reader = Stream(), []
    async for _ in telemetry.middleware.stream(CreateOrder(), handle):
        in_reader.append(current())
        assert not telemetry.spans
    assert in_reader == [None] * 3
    assert handle.seen == ["process CreateOrder"] * 4
    assert telemetry.span.name == "process CreateOrder"
    assert telemetry.span.status.is_unset
    (consumed,) = telemetry.points("messaging.client.consumed.messages")
    assert consumed.value == 1


async def test_the_duration_of_a_stream_leaves_out_the_reader(telemetry: Telemetry) -> None:
    """The time a reader holds results is in the span, and not in the duration measured."""
    async for _ in telemetry.middleware.stream(CreateOrder(), Stream()):
        await anyio.sleep(0.1)
    (duration,) = telemetry.points("messaging.process.duration")
    assert duration.sum < 0.3
    assert telemetry.span.end_time is not None
    assert telemetry.span.start_time is not None
    assert telemetry.span.end_time - telemetry.span.start_time >= 0.3e9


async def test_a_span_of_the_readers_own_stays_current(telemetry: Telemetry) -> None:
    """A reader may enter and leave spans between results."""
    tracer = telemetry.tracer_provider.get_tracer("test")
    results: Any = telemetry.middleware.stream(CreateOrder(), Stream())
    async with aclosing(results):
        with tracer.start_as_current_span("reading"):
            assert await results.__anext__() == 0
            assert current() == "reading"
        assert await results.__anext__() == 1
        assert current() is None


async def test_a_stream_left_early_is_no_failure(telemetry: Telemetry) -> None:
    """Closing ends the handler under its span, and the span without an error."""
    handle = Stream()
    results: Any = telemetry.middleware.stream(CreateOrder(), handle)
    assert await results.__anext__() == 0
    await results.aclose()
    assert handle.seen == ["process CreateOrder"] * 2
    assert telemetry.span.status.is_unset
    assert dict(telemetry.span.attributes or {}) == BASE
    assert current() is None


async def test_a_stream_closed_in_another_task(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """No context is left attached where it cannot be detached."""
    results: Any = telemetry.middleware.stream(CreateOrder(), Stream())
    async with anyio.create_task_group() as group:
        group.start_soon(results.__anext__)
    async with anyio.create_task_group() as group:
        group.start_soon(results.aclose)
    assert telemetry.span.status.is_unset
    assert not caplog.records


async def test_a_failing_stream(telemetry: Telemetry) -> None:
    """Its error is recorded once and raised on."""
    failure = NoStock("none left")
    with pytest.raises(NoStock) as caught:
        async for _ in telemetry.middleware.stream(CreateOrder(), Stream(failure)):
            pass
    assert caught.value is failure
    assert (telemetry.span.attributes or {})["error.type"] == f"{__name__}.NoStock"
    assert [event.name for event in telemetry.span.events] == ["exception"]


async def test_a_cancelled_stream(telemetry: Telemetry) -> None:
    """A reader cancelled while the handler works ends the span with the cancellation's class."""
    handle = Stream(hangs=True)
    with anyio.move_on_after(0.05) as scope:
        async for _ in telemetry.middleware.stream(CreateOrder(), handle):
            pass
    assert scope.cancelled_caught
    assert handle.seen == ["process CreateOrder"] * 4
    assert (telemetry.span.attributes or {})["error.type"] == cancellation()
    assert current() is None


async def test_concurrent_handlers_do_not_mix_their_spans(telemetry: Telemetry) -> None:
    """Each task has its own span current."""
    seen: list[tuple[str, str | None]] = []

    class Other: ...

    async def handle(request: Any) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append((type(request).__name__, current()))

    async with anyio.create_task_group() as group:
        for message in (CreateOrder(), Other()):
            group.start_soon(telemetry.middleware, message, handle)
    assert sorted(seen, key=str) == [("CreateOrder", "process CreateOrder"), ("Other", "process Other")]


async def test_without_providers_it_is_silent() -> None:
    """With the global defaults, and no SDK set up, messages are handled and nothing is reported."""

    async def handle(request: Any) -> str:
        return "done"

    assert await OpenTelemetryMiddleware()(CreateOrder(), handle) == "done"


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the module without opentelemetry says what to install."""
    monkeypatch.delitem(sys.modules, "cqrs.middlewares.opentelemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError) as caught:
        importlib.import_module("cqrs.middlewares.opentelemetry")
    assert (caught.value.library, caught.value.extra) == ("opentelemetry-api", "opentelemetry")


def test_another_missing_library_leaves_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opentelemetry itself misses is not blamed on the extra."""
    broken = types.ModuleType("opentelemetry")

    def fail(name: str) -> None:
        raise ImportError("No module named 'importlib_metadata'", name="importlib_metadata")

    broken.__getattr__ = fail  # type: ignore[method-assign]
    monkeypatch.delitem(sys.modules, "cqrs.middlewares.opentelemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry", broken)
    with pytest.raises(ImportError, match="importlib_metadata") as caught:
        importlib.import_module("cqrs.middlewares.opentelemetry")
    assert not isinstance(caught.value, MissingDependencyError)
