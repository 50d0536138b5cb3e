"""A streaming handler with a task group of its own: it sends its results instead of yielding them."""

from __future__ import annotations

import argparse

import anyio
from anyio.abc import ObjectSendStream

import cqrs
from cqrs.requests import bootstrap


class Answer(cqrs.Response):
    """What one server said."""

    server: str
    milliseconds: int


class AskServers(cqrs.Request[Answer]):
    """Ask all servers at once; answers come as they are ready."""

    servers: dict[str, float]


class AskServersHandler(cqrs.SendStreamRequestHandler[AskServers, Answer]):
    """An async generator must not yield inside a task group. A coroutine may send from inside one."""

    async def handle(self, request: AskServers, results: ObjectSendStream[Answer]) -> None:
        async def ask(server: str, delay: float) -> None:
            try:
                await anyio.sleep(delay)
                await results.send(Answer(server=server, milliseconds=round(delay * 1000)))
            except anyio.get_cancelled_exc_class():
                print(f"  {server}: not waited for any longer")
                raise

        async with anyio.create_task_group() as tasks:
            for server, delay in request.servers.items():
                tasks.start_soon(ask, server, delay)


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Bound like any other handler."""
    mapper.bind(AskServers, AskServersHandler)


async def main() -> None:
    """The two fastest answers are enough."""
    mediator = bootstrap.bootstrap_streaming(commands_mapper=bind_commands)
    question = AskServers(servers={"slow": 30, "fast": 0.05, "faster": 0.01})

    async with mediator.stream(question) as answers:
        count = 0
        async for answer in answers:
            print(f"{answer.server} answered after {answer.milliseconds} ms")
            count += 1
            if count == 2:
                break
    print("the slow one has been cancelled, and has ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
