"""How middlewares are called."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import cqrs
from cqrs.exceptions import MiddlewareTypeError
from cqrs.requests.bootstrap import bootstrap, bootstrap_streaming

Handle = Callable[..., Awaitable[Any]]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


class Ask(cqrs.Request[str]):
    """Asks."""


class AskHandler(cqrs.RequestHandler[Ask, str]):
    """Answers."""

    async def handle(self, request: Ask) -> str:
        return "answer"


class Count(cqrs.Request[str]):
    """Streams."""


class CountHandler(cqrs.StreamingRequestHandler[Count, str]):
    """Streams what the variable is."""

    async def handle(self, request: Count) -> AsyncIterator[str]:
        yield variable.get()
        yield variable.get()


def _commands(mapper: cqrs.RequestMap) -> None:
    mapper.bind(Ask, AskHandler)
    mapper.bind(Count, CountHandler)


async def _by_name(request: Any, *, handle: Handle) -> Any:
    return await handle(request=request)


async def _by_position(request: Any, call_next: Handle) -> Any:
    return await call_next(request)


def _sync(request: Any, handle: Handle) -> Any:
    return handle(request)


@pytest.mark.parametrize("middleware", [_by_name, _by_position, _sync, lambda request, handle: handle(request)])
async def test_each_way_to_write_a_middleware(middleware: Any) -> None:
    """By name, by position under another name, and as a plain function that returns what is to be awaited."""
    assert await bootstrap(middlewares=[middleware], commands_mapper=_commands).send(Ask()) == "answer"


async def test_a_middleware_that_returns_nothing_to_await_says_so() -> None:
    """Its name is in the error."""

    def forgetful(request: Any, handle: Handle) -> None: ...

    middleware: Any = forgetful
    with pytest.raises(MiddlewareTypeError, match="forgetful"):
        await bootstrap(middlewares=[middleware], commands_mapper=_commands).send(Ask())


async def test_what_a_middleware_sets_is_not_there_between_two_results() -> None:
    """A context variable is seen by the handler, not by the consumer, and is reset where it was set."""

    async def setting(request: Any, handle: Handle) -> Any:
        token = variable.set("inside")
        try:
            return await handle(request)
        finally:
            variable.reset(token)

    mediator = bootstrap_streaming(middlewares=[setting], commands_mapper=_commands)
    seen = [(result, variable.get()) async for result in mediator.stream(Count())]
    assert seen == [("inside", "outside")] * 2
    async with mediator:
        async for _ in mediator.stream(Count()):
            break
    assert variable.get() == "outside"
