"""The lines of the table. No contender is imported here: the process that prints the table needs none."""

from __future__ import annotations

SEND_DI = "send, bootstrap(di.Container())"
DIRECT = "await handler.handle(request)"
SEND_INSTANCE = "send, container returns an instance"
DIRECT_NEW = "await Handler().handle(request)"
SEND_NEW = "send, container returns type_()"
DIRECT_BUILDING = "await handler.handle(request), response is built"
SEND_BUILDING = "send, instance, response is built"
TEN_PLAIN = "10 events, nothing suspends"
TEN_YIELDING = "10 events, each asyncio.sleep(0)"
TEN_CHECKPOINT = "10 events, each anyio checkpoint()"
BARE_YIELDING = "bare task group, 10 x asyncio.sleep(0)"
BARE_CHECKPOINT = "bare task group, 10 x anyio checkpoint()"
STREAM_BY_HAND = "stream item, container returns type_()"
STREAM_DI = "stream item, bootstrap_streaming(di.Container())"
SAGA_DI = "3-step saga in memory, bootstrap(di.Container())"
SAGA_NEW = "3-step saga in memory, container returns type_()"
IMPORT_CQRS = "import cqrs"
IMPORT_FLOOR = "import anyio, pydantic"
IMPORT_IN_USE = "import anyio, pydantic; a task group's name, a model"

LIMITS = (10, 4_000)
MANY = (1_000, 4_000)


def many(events: int, limit: int) -> str:
    return f"{events:,} events yielding once, {limit:,} at a time"


DIRECT_CALL = "direct call of the handler"
TRIVIAL = "container that returns type_()"
PLAIN = "PlainContainer"
DI = "di"
DEPENDENCY_INJECTOR = "dependency-injector"
DISHKA = "dishka"
CONTAINERS = (DIRECT_CALL, TRIVIAL, PLAIN, DI, DEPENDENCY_INJECTOR, DISHKA)
BACKENDS = ("asyncio", "uvloop", "trio")
