"""A process that runs sagas in child processes, and kills these at random points. Run by ``test_kill.py``.

``python killed_sagas.py kill BACKEND DIRECTORY SEED KILLS``, or, where nobody is killed and processes on this backend
and on the other one recover together what one has left, ``share BACKEND DIRECTORY SEED WORKERS``.

Sagas are kept in ``DIRECTORY/sagas.db``, what their steps do to the world in ``DIRECTORY/world.db``. The children
are forked, which saves starting the interpreter for each of them; each runs an event loop of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import tenacity
from sqlite_saga_storage import SqliteSagaStorage, utc_now

from cqrs import PlainContainer, SagaMap
from cqrs.retry import RetryPolicy
from cqrs.saga.fallback import Fallback
from cqrs.saga.mediator import SagaMediator
from cqrs.saga.models import SagaContext, dump_context, load_context
from cqrs.saga.parallel import Parallel
from cqrs.saga.pivot import Pivot
from cqrs.saga.recovery_worker import SagaRecoveryWorker
from cqrs.saga.saga import Saga
from cqrs.saga.step import SagaStepHandler, SagaStepResult

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

SAGAS_AT_ONCE = 2
BETWEEN_ROUNDS = timedelta(minutes=1)
"""How much later each process is started than the one before, on the clock of the storage: leases have ended."""

WORLD = """
CREATE TABLE IF NOT EXISTS effects (saga TEXT, step TEXT, acted INTEGER, undone INTEGER, PRIMARY KEY (saga, step));
CREATE TABLE IF NOT EXISTS calls (nth INTEGER PRIMARY KEY AUTOINCREMENT, saga TEXT, step TEXT, what TEXT);
"""
IS_POSSIBLE = hasattr(os, "fork")


class World:
    """What steps do: by idempotency key, so that doing it again does nothing."""

    def __init__(self, path: Path, chances: random.Random) -> None:
        self.chances = chances
        self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.executescript(WORLD)
        self.tell: Callable[[str], None] = lambda line: None

    async def do(self, saga: str, step: str, what: str, fails: float) -> None:
        self.note(saga, step, f"{what} begins")
        try:
            await self._take_time()
            if self.chances.random() < fails:
                raise RuntimeError(f"{step} fails")
            column = "acted" if what == "act" else "undone"
            self.connection.execute(
                f"INSERT INTO effects (saga, step, {column}) VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET {column} = 1",
                (saga, step),
            )
            await self._take_time()
        finally:
            self.note(saga, step, f"{what} ends")

    def note(self, saga: str, step: str, what: str) -> None:
        self.connection.execute("INSERT INTO calls (saga, step, what) VALUES (?, ?, ?)", (saga, step, what))
        self.tell(f"{saga} {step} {what}")

    async def _take_time(self) -> None:
        await anyio.sleep(self.chances.random() * 0.001)


WORLDS: list[World] = []


@dataclasses.dataclass
class OrderContext(SagaContext):
    key: str
    done: list[str] = dataclasses.field(default_factory=list)
    paid: bool = False
    packed: bool = False


@dataclasses.dataclass
class TransferContext(SagaContext):
    key: str
    done: list[str] = dataclasses.field(default_factory=list)


class _Effect(SagaStepHandler[Any, None]):
    fails: ClassVar[float] = 0.1

    async def act(self, context: Any) -> SagaStepResult[Any, None]:
        name = type(self).__name__
        await WORLDS[-1].do(context.key, name, "act", self.fails)
        self.remember(context, name)
        return self._generate_step_result(None)

    def remember(self, context: Any, name: str) -> None:
        context.done = [*context.done, name]

    async def compensate(self, context: Any) -> None:
        await WORLDS[-1].do(context.key, type(self).__name__, "compensate", 0.1)


class Reserve(_Effect):
    pass


class Pay(_Effect):
    on_unknown = "compensate"

    def remember(self, context: Any, name: str) -> None:
        context.paid = True


class Pack(_Effect):
    on_unknown = "retry"

    def remember(self, context: Any, name: str) -> None:
        context.packed = True


class ShipByAir(_Effect):
    fails = 0.5


class ShipByRoad(_Effect):
    pass


class Notify(_Effect):
    retry = RetryPolicy(attempts=2, wait=tenacity.wait_none())


class Debit(_Effect):
    pass


class Credit(_Effect):
    fails = 0.2


class Confirm(_Effect):
    fails = 0.2
    retry = RetryPolicy(attempts=20, wait=tenacity.wait_none())


class OrderSaga(Saga[OrderContext]):
    steps = [Reserve, Parallel(Pay, Pack), Fallback(step=ShipByAir, fallback=ShipByRoad), Notify]


class TransferSaga(Saga[TransferContext]):
    steps = [Debit, Pivot(Credit), Confirm]


def mediator_for(storage: SqliteSagaStorage) -> SagaMediator:
    sagas = SagaMap()
    sagas.bind(OrderContext, OrderSaga)
    sagas.bind(TransferContext, TransferSaga)
    return SagaMediator(sagas, PlainContainer(), storage=storage, compensation_retry_delay=0.0001)


async def run_sagas(mediator: SagaMediator, number: int) -> None:
    async def run(context: SagaContext, saga_id: uuid.UUID) -> None:
        try:
            async with contextlib.aclosing(mediator.stream(context, saga_id=saga_id)) as results:
                async for _ in results:
                    pass
        except (RuntimeError, ExceptionGroup) as error:
            if isinstance(error, ExceptionGroup) and error.split(RuntimeError)[1] is not None:
                raise

    async with anyio.create_task_group() as tasks:
        for nth in range(SAGAS_AT_ONCE):
            saga_id = uuid.uuid4()
            context = (OrderContext, TransferContext)[(number + nth) % 2](str(saga_id))
            tasks.start_soon(run, context, saga_id)


async def leave_sagas(mediator: SagaMediator, number: int) -> None:
    for nth in range(40):
        saga_id = uuid.uuid4()
        context = (OrderContext, TransferContext)[nth % 2](str(saga_id))
        with contextlib.suppress(RuntimeError):
            async with contextlib.aclosing(mediator.stream(context, saga_id=saga_id)) as results:
                await results.__anext__()


async def recover(mediator: SagaMediator, number: int) -> None:
    worker = SagaRecoveryWorker(mediator, max_concurrent_sagas=4, max_recovery_attempts=1000, backoff=0.0001)
    idle = 0
    while idle < 5:
        idle = 0 if await worker.recover_once() else idle + 1
        await anyio.sleep(0.002)


@dataclasses.dataclass
class Launcher:
    backend: str
    directory: Path
    chances: random.Random
    rounds: int = 0

    def child(self, work: Callable[[SagaMediator, int], Any], output: int) -> None:
        storage = SqliteSagaStorage(self.directory / "sagas.db", clock=lambda: utc_now() + self.rounds * BETWEEN_ROUNDS)
        WORLDS.append(World(self.directory / "world.db", self.chances))
        WORLDS[-1].tell = lambda line: (os.write(output, f"{line}\n".encode()), None)[1]
        anyio.run(work, mediator_for(storage), self.rounds, backend=self.backend)

    @contextlib.contextmanager
    def forked(self, work: Callable[[SagaMediator, int], Any]) -> Iterator[tuple[int, Any]]:
        self.rounds += 1
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reading)
                self.child(work, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        with open(reading) as lines:
            yield child, lines

    def run_and_kill(self, work: Callable[[SagaMediator, int], Any]) -> bool:
        """Whether the child was killed before its end."""
        nth_line = self.chances.randint(1, 20)
        moment = self.chances.random() * 0.02 if self.chances.random() < 0.5 else None
        with self.forked(work) as (child, lines):
            if moment is None:
                for _ in range(nth_line):
                    lines.readline()
            else:
                lines.readline()
                time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
            raise SystemExit(f"a child failed: {status}")
        return os.WIFSIGNALED(status)

    def run_to_the_end(self, work: Callable[[SagaMediator, int], Any]) -> None:
        with self.forked(work) as (child, lines):
            lines.read()
            _, status = os.waitpid(child, 0)
        if status != 0:
            raise SystemExit(f"the last recovery failed: {status}")


def share(launcher: Launcher, workers: int) -> None:
    launcher.run_to_the_end(leave_sagas)
    with contextlib.ExitStack() as children:
        started = []
        for nth in range(workers):
            launcher.backend = ("asyncio", "trio")[nth % 2]
            started.append(children.enter_context(launcher.forked(recover)))
            launcher.rounds -= 1  # all of them are there at the same time
        for child, lines in started:
            lines.read()
            if os.waitpid(child, 0)[1] != 0:
                raise SystemExit("a worker failed")


def kill(launcher: Launcher, wanted: int) -> None:
    kills = {"running": 0, "recovering": 0}
    while sum(kills.values()) < wanted:
        recovers = launcher.rounds % 4 == 3
        killed = launcher.run_and_kill(recover if recovers else run_sagas)
        kills["recovering" if recovers else "running"] += killed
    launcher.run_to_the_end(recover)
    sys.stdout.write(json.dumps(kills))


def warm_up(*backends: str) -> None:
    """Load, before anything is forked, what each child would have to load by itself."""
    for backend in backends:
        importlib.import_module(f"anyio._backends._{backend}")
    for context in (OrderContext(""), TransferContext("")):
        load_context(type(context), dump_context(context))


def main(what: str, backend: str, directory: str, seed: str, number: str) -> None:
    logging.disable(logging.CRITICAL)
    warm_up(*({backend} if what == "kill" else {"asyncio", "trio"}))
    launcher = Launcher(backend, Path(directory), random.Random(int(seed)))
    {"kill": kill, "share": share}[what](launcher, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
