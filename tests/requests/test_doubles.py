"""Test doubles that applications put in the place of our parts are used."""

from __future__ import annotations

from typing import Any
from unittest import mock

import cqrs


class Ask(cqrs.Request[str]):
    """Asks."""


class Asked(cqrs.DomainEvent):
    """Somebody asked."""


class AskHandler(cqrs.RequestHandler[Ask, str]):
    """Answers, and records an event."""

    @property
    def events(self) -> list[cqrs.IEvent]:
        return [Asked()]

    async def handle(self, request: Ask) -> str:
        return "answer"


def _map() -> cqrs.RequestMap:
    request_map = cqrs.RequestMap()
    request_map.bind(Ask, AskHandler)
    return request_map


def _container(kind: Any) -> Any:
    container = kind()
    container.resolve = mock.AsyncMock(side_effect=lambda type_: type_())
    return container


async def test_a_mock_is_a_container_without_scopes() -> None:
    """A mock has every attribute; that does not make it offer scopes."""
    for kind in (mock.MagicMock, mock.Mock):
        assert await cqrs.RequestMediator(_map(), _container(kind)).send(Ask()) == "answer"


async def test_an_emitter_that_is_patched_is_called() -> None:
    """``emit`` replaced on the instance is what events go through."""
    emitter = cqrs.EventEmitter(cqrs.EventMap(), cqrs.PlainContainer())
    with mock.patch.object(emitter, "emit", mock.AsyncMock(return_value=[])) as emit:
        await cqrs.RequestMediator(_map(), cqrs.PlainContainer(), emitter).send(Ask())
    emit.assert_awaited_once_with(Asked())


async def test_a_mock_is_an_emitter() -> None:
    """A mock made after ``EventEmitter`` is called as one."""
    emitter = mock.MagicMock(spec=cqrs.EventEmitter)
    emitter.emit = mock.AsyncMock(return_value=[])
    await cqrs.RequestMediator(_map(), cqrs.PlainContainer(), emitter).send(Ask())
    emitter.emit.assert_awaited_once_with(Asked())


async def test_a_dispatcher_that_is_patched_is_called() -> None:
    """``dispatch`` replaced on the instance is what requests go through."""
    mediator = cqrs.RequestMediator(_map(), cqrs.PlainContainer())
    result = cqrs.dispatcher.RequestDispatchResult("patched")
    with mock.patch.object(mediator._dispatcher, "dispatch", mock.AsyncMock(return_value=result)):
        assert await mediator.send(Ask()) == "patched"
