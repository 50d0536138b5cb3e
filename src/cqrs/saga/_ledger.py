"""What one run of a saga knows, and how that is made durable."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

from cqrs._concurrency import SingleErrorTaskGroup, drive, nobodys_cancellation_fails
from cqrs.exceptions import SagaConcurrencyError, SerializationError
from cqrs.saga._progress import Progress, StepProgress
from cqrs.saga.journal import Checkpoint, Journal
from cqrs.saga.models import SagaContext, adopt, dump_context, load_context

_T = TypeVar("_T")
_logger = logging.getLogger("cqrs")


class Ledger:
    """The context and the progress of one run, and its journal. ``has_failed`` says that the storage has.

    :param context: shared with the caller and with the steps, which write into it. None: it comes from the storage.
    """

    def __init__(
        self,
        journal: Journal,
        progress: Progress,
        context: SagaContext | None,
    ) -> None:
        self.journal = journal
        self.saga_id: uuid.UUID = journal.saga_id
        self.progress = progress
        self._context = context
        self.has_failed: bool = False
        self._lock: anyio.Lock | None = None

    @property
    def context(self) -> SagaContext:
        """What the steps share."""
        assert self._context is not None  # noqa: S101  # nothing is done before it is there
        return self._context

    def load(self, build: Callable[[dict[str, Any]], SagaContext] | None, stored: dict[str, Any]) -> None:
        """Give the context the values that are stored.

        :param build: makes a context of them. None: the class of the context that is there does.
        """
        loaded = load_context(type(self.context), stored) if build is None else build(stored)
        if self._context is None:
            self._context = loaded
        else:
            adopt(self._context, loaded)

    async def write(self, fill: Callable[[Checkpoint], None]) -> None:
        """Make durable what ``fill`` puts into a checkpoint.

        :raises SagaLeaseLostError: somebody else has taken the saga over.
        :raises Exception: what the storage raised; it may be durable or not.
        """
        if self._lock is None:
            await self._write(fill)
            return
        async with self._lock:
            await self._write(fill)

    async def _write(self, fill: Callable[[Checkpoint], None]) -> None:
        checkpoint = Checkpoint()
        try:
            fill(checkpoint)
            await self.journal.write(checkpoint)
            self.has_failed = False
        except BaseException as error:
            self.has_failed = isinstance(error, Exception) and not isinstance(error, SerializationError)
            self.progress.distrust(checkpoint)
            raise

    async def keep(self) -> None:
        """See that the saga stays this run's for a good while from now.

        :raises SagaLeaseLostError: somebody else has taken it over.
        """
        try:
            await self.journal.keep()
        except Exception:
            self.has_failed = True
            raise

    @asynccontextmanager
    async def shared(self) -> AsyncGenerator[None]:
        """Within it, several tasks write: one after the other, each with the context as it is when its turn comes."""
        self._lock = anyio.Lock()
        try:
            yield
        finally:
            self._lock = None

    def keep_context(self, checkpoint: Checkpoint) -> None:
        """Have the context kept.

        :raises SerializationError: a value in it has no form in JSON.
        """
        checkpoint.context = dump_context(self.context)

    def keep_what_can_be(self, checkpoint: Checkpoint, steps: Iterable[StepProgress]) -> None:
        """Have the log tell the truth of ``steps``, and the context kept, if it has a form."""
        for step in steps:
            step.settle(checkpoint)
        try:
            self.keep_context(checkpoint)
        except SerializationError as error:
            _logger.error("Saga %s goes on with the context that was stored before: %s", self.saga_id, error)  # noqa: TRY400

    async def hold(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Await ``work()``; as long as that takes, the saga stays this run's.

        :raises SagaLeaseLostError: somebody else has taken it over, and the work has been cancelled.
        """
        interval = self.journal.renewal_interval
        if interval is None:
            return await work()
        result: list[_T] = []
        beats = False

        async def run() -> None:
            result.append(await work())

        # Work that does not suspend has no need of a second task.
        def beat() -> None:
            nonlocal beats
            if not beats:
                beats = True
                tasks.start_soon(nobodys_cancellation_fails, lambda: self._renew(interval))

        async with SingleErrorTaskGroup(f"saga {self.saga_id} failed in several ways") as tasks:
            await drive(run(), on_suspend=beat)
            if beats:
                tasks.cancel_scope.cancel()
        return result[0]

    async def _renew(self, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            try:
                await self.journal.keep()
            except SagaConcurrencyError:
                raise
            except Exception:
                _logger.warning("The lease on saga %s could not be renewed", self.saga_id, exc_info=True)
                self.journal.check_is_held()
