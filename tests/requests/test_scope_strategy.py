"""What does not go with one scope for a request and all its events is refused."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import Self

import cqrs
from cqrs.dispatcher.request import RequestDispatcher
from cqrs.events.bootstrap import bootstrap as bootstrap_events
from cqrs.exceptions import ConfigurationError
from cqrs.requests.bootstrap import bootstrap, bootstrap_streaming

SEND = cqrs.ScopeStrategy.SEND


@pytest.mark.parametrize("set_up", [bootstrap, bootstrap_streaming, bootstrap_events])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concurrent_event_handle_enable": True}, "concurrent_event_handle_enable=False"),
        ({"event_failure_policy": cqrs.EventFailurePolicy.ISOLATE}, "half done"),
    ],
)
def test_what_would_share_a_broken_scope_is_refused(set_up: Any, options: dict[str, Any], reason: str) -> None:
    """At bootstrap, with the way out in the error."""
    with pytest.raises(ConfigurationError, match=reason):
        set_up(scope_strategy=SEND, **options)


def test_a_dispatcher_of_ones_own_has_scopes_of_its_own() -> None:
    """A dispatcher that overrides ``dispatch`` cannot be given the shared scope."""

    class OwnDispatcher(RequestDispatcher):
        async def dispatch(self, request: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="dispatch"):
        cqrs.RequestMediator(
            cqrs.RequestMap(),
            cqrs.PlainContainer(),
            concurrent_event_handle_enable=False,
            dispatcher_type=OwnDispatcher,
            scope_strategy=SEND,
        )


class Whoami(cqrs.Request[bool]):
    """Asks whether its handler was resolved from an open scope."""


class SelfScoped:
    """A container that is its own scope."""

    def __init__(self) -> None:
        self.depth = self.deepest = 0

    def scope(self) -> SelfScoped:
        return self

    def needs_scope(self, type_: type) -> bool:
        return True

    async def __aenter__(self) -> Self:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.depth -= 1

    async def resolve(self, type_: Any) -> Any:
        return type_()


class WhoamiHandler(cqrs.RequestHandler[Whoami, bool]):
    """Answers."""

    async def handle(self, request: Whoami) -> bool:
        return True


async def test_a_container_may_be_its_own_scope() -> None:
    """One scope is opened under SEND, also where the scope gives the container itself."""
    container = SelfScoped()
    mediator = bootstrap(
        container, commands_mapper=lambda mapper: mapper.bind(Whoami, WhoamiHandler), scope_strategy=SEND
    )
    assert await mediator.send(Whoami())
    assert (container.depth, container.deepest) == (0, 1)


class Failing(cqrs.RequestHandler[Whoami, bool]):
    """Fails."""

    async def handle(self, request: Whoami) -> bool:
        raise ValueError


def test_a_fallback_in_the_scope_of_what_failed_is_refused() -> None:
    """It would commit what the primary left half done."""
    fallback = cqrs.RequestHandlerFallback(Failing, WhoamiHandler)
    with pytest.raises(ConfigurationError, match="half done"):
        bootstrap(commands_mapper=lambda mapper: mapper.bind(Whoami, fallback), scope_strategy=SEND)


async def test_a_fallback_of_an_event_in_a_shared_scope_is_refused() -> None:
    """Also where it was bound later than the mediator was made."""

    class Happened(cqrs.DomainEvent):
        pass

    class Handler(cqrs.EventHandler[Happened]):
        async def handle(self, event: Happened) -> None: ...

    bound: list[cqrs.EventMap] = []
    mediator = bootstrap_events(events_mapper=bound.append, scope_strategy=SEND)
    bound[0].bind(Happened, cqrs.EventHandlerFallback(Handler, Handler))
    with pytest.raises(ConfigurationError, match="half done"):
        await mediator.send(Happened())
