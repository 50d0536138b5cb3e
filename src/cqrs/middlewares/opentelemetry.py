"""Traces and metrics of what is handled, by the semantic conventions for messaging."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any, cast

from cqrs._optional_library import OptionalLibrary
from cqrs.middlewares.base import HandleType, StreamHandleType

with OptionalLibrary("opentelemetry-api", extra="opentelemetry", package="opentelemetry"):
    from opentelemetry import context, metrics, trace

SYSTEM = "cqrs"
"""``messaging.system`` of every span and measurement."""

OPERATION = "process"
"""``messaging.operation.name`` and ``messaging.operation.type`` of every span and measurement."""


class OpenTelemetryMiddleware:
    """A span and two measurements for each message that is handled.

    The span is named ``process <class of the message>``, is of kind CONSUMER, and is the current one
    while the handler works. Its attributes: ``messaging.system`` ("cqrs"), ``messaging.operation.name``
    and ``messaging.operation.type`` ("process"), ``messaging.destination.name`` (the class of the message),
    ``messaging.message.id`` (its ``event_id``), ``messaging.message.conversation_id`` (its
    ``correlation_id``), and on failure ``error.type``, with the exception recorded.

    The measurements: ``messaging.process.duration``, in seconds, and ``messaging.client.consumed.messages``,
    a counter, both with the attributes above save those of the single message.

    A cancellation ends the span with its own class as ``error.type`` and goes on. The span of a
    stream covers all of the stream; the duration measured is the time in which the handler worked.

    :param tracer_provider: where spans go. None: the global provider.
    :param meter_provider: where measurements go. None: the global provider.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        meter = metrics.get_meter("cqrs", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("cqrs", tracer_provider=tracer_provider)
        self._duration = meter.create_histogram(
            "messaging.process.duration", unit="s", description="Duration of processing operation."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            unit="{message}",
            description="Number of messages that were delivered to the application.",
        )

    async def __call__(self, request: Any, handle: HandleType) -> Any:
        """Handle ``request`` in a span of its own."""
        with self._processing(request) as processing, processing.work():
            return await handle(request)

    async def stream(self, request: Any, handle: StreamHandleType) -> AsyncIterator[Any]:
        """The results of ``handle(request)``, in one span that is current only while they are made."""
        with self._processing(request) as processing:
            results = cast("AsyncGenerator[Any]", handle(request))
            try:
                while True:
                    with processing.work():
                        try:
                            result = await results.__anext__()
                        except StopAsyncIteration:
                            return
                    yield result
            finally:
                with processing.work():
                    await results.aclose()

    @contextmanager
    def _processing(self, request: Any) -> Generator[_Processing]:
        attributes = _attributes(request)
        name = f"{OPERATION} {type(request).__name__}"
        span = self._tracer.start_span(
            name, kind=trace.SpanKind.CONSUMER, attributes={**attributes, **_identity(request)}
        )
        processing = _Processing(span)
        try:
            yield processing
        except GeneratorExit:  # the reader of a stream has enough
            raise
        except BaseException as error:
            attributes["error.type"] = _qualified_name(type(error))
            _fail(span, error)
            raise
        finally:
            span.end()
            self._consumed.add(1, attributes)
            self._duration.record(processing.seconds, attributes)


class _Processing:
    """A message being handled: its span, and the time worked on it so far."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.seconds = 0.0

    # Never around a yield: the reader's code must not run in the handler's context.
    @contextmanager
    def work(self) -> Generator[None]:
        token = context.attach(trace.set_span_in_context(self._span))
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            context.detach(token)


def _attributes(request: Any) -> dict[str, str]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": OPERATION,
        "messaging.operation.type": OPERATION,
        "messaging.destination.name": type(request).__name__,
    }


def _identity(request: Any) -> dict[str, str]:
    found = {
        "messaging.message.id": getattr(request, "event_id", None),
        "messaging.message.conversation_id": getattr(request, "correlation_id", None),
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _fail(span: trace.Span, error: BaseException) -> None:
    name = _qualified_name(type(error))
    span.set_attribute("error.type", name)
    span.set_status(trace.Status(trace.StatusCode.ERROR, f"{name}: {error}"))
    if isinstance(error, Exception):
        span.record_exception(error)


def _qualified_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
