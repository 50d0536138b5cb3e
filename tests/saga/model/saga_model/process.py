"""A process that runs sagas: what it does can go wrong at each point that it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from cqrs.exceptions import HandlerTimeoutError
from saga_model.faults import NATIVE_CANCELS, Crash, Injected, Kind, Place
from saga_model.steps import ModelStep

if TYPE_CHECKING:
    from saga_model.world import World


class Process:
    """A runner or a recovery worker, in a task of its own.

    :param outcome: what its work ended with. None: without an error.
    :param has_left: whether its consumer left the stream early.
    :param first_errors: what was raised in it before it began to roll back.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.truth = world.truth
        self.name = name
        self.is_alive = True
        self.is_torn = False
        self.has_left = False
        self.outcome: BaseException | None = None
        self.first_errors: list[BaseException] = []
        self.halted = anyio.Event()
        self.ended = anyio.Event()
        self._resumed: anyio.Event | None = None
        self._scope = anyio.CancelScope()
        self._host: asyncio.Task[Any] | None = None
        self._native_cancels = 0

    def __str__(self) -> str:
        return self.name

    # The container of this process

    async def resolve(self, type_: Any) -> Any:
        return type_(self)

    @property
    def external_container(self) -> Any:
        return self

    def attach_external_container(self, container: Any) -> None:
        raise NotImplementedError

    # Its life

    async def run(self, work: Callable[[Process], Awaitable[None]]) -> None:
        """Do ``work``, and keep what it raised."""
        if self.world.is_asyncio:
            self._host = asyncio.current_task()
        try:
            with self._scope:
                await self._do(work)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self.halted.set()
            self.ended.set()

    async def _do(self, work: Callable[[Process], Awaitable[None]]) -> None:
        try:
            await work(self)
        except BaseException as error:
            self.outcome = error
            raise

    def resume(self) -> None:
        """Go on after a pause."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    # Its points

    async def reach(self, label: str, place: Place) -> Kind | None:
        """Come to a point, at which something can go wrong. Give what does, if this is for the caller to do."""
        self.stay_dead()
        kind = self.world.arrive(self, label, place)
        if self._native_cancels:
            self._cancel_natively()
        if kind is None or kind is Kind.LEAVE:
            await checkpoint()
        else:
            await self._suffer(kind, label)
        if self._resumed is not None:
            await self._resumed.wait()
        self.stay_dead()
        return kind

    def stay_dead(self) -> None:
        """:raises Crash: the process is dead."""
        if not self.is_alive:
            raise Crash(self.name)

    def raised(self, error: Exception) -> Exception:
        """``error``, which is about to be raised."""
        if self.world.is_going_forward:
            self.first_errors.append(error)
        return error

    async def _suffer(self, kind: Kind, label: str) -> None:
        if kind is Kind.ERROR:
            raise self.raised(Injected(label))
        if kind is Kind.UNKNOWN:
            raise self.raised(HandlerTimeoutError(ModelStep, 1.0))
        if kind is Kind.CRASH:
            self.is_alive = False
            raise Crash(label)
        if kind is Kind.PAUSE:
            self._resumed = anyio.Event()
            self.halted.set()
            return
        if kind in NATIVE_CANCELS:
            self._native_cancels = NATIVE_CANCELS[kind]
            self._cancel_natively()
        else:
            self._scope.cancel()
        if kind is Kind.CANCEL_ERROR:
            raise self.raised(Injected(label))
        await checkpoint()

    def _cancel_natively(self) -> None:
        assert self._host is not None
        self._native_cancels -= 1
        self._host.cancel()
