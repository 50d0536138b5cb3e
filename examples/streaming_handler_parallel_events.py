"""A stream of results, pulled or pipelined; the events of each result are handled in parallel before it is out."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence

import anyio

import cqrs
from cqrs.requests import bootstrap


class FileProcessed(cqrs.Response):
    """One file is done."""

    file_id: str


class ProcessFiles(cqrs.Request[FileProcessed]):
    """Process files, and tell of each."""

    file_ids: list[str]


class FileIndexed(cqrs.DomainEvent):
    """A file is to be indexed."""

    file_id: str


class FileScanned(cqrs.DomainEvent):
    """A file is to be scanned for viruses."""

    file_id: str


class ProcessFilesHandler(cqrs.StreamingRequestHandler[ProcessFiles, FileProcessed]):
    """An async generator: it yields results, and records events before each of them."""

    def __init__(self) -> None:
        self._events: list[cqrs.IEvent] = []

    @property
    def events(self) -> Sequence[cqrs.IEvent]:
        return self._events.copy()

    def clear_events(self) -> None:
        self._events.clear()

    async def handle(self, request: ProcessFiles) -> AsyncIterator[FileProcessed]:
        try:
            for file_id in request.file_ids:
                print(f"  processing {file_id}")
                self._events += [FileIndexed(file_id=file_id), FileScanned(file_id=file_id)]
                yield FileProcessed(file_id=file_id)
        finally:
            print("  handler closed")


class IndexFile(cqrs.EventHandler[FileIndexed]):
    """One of two that run side by side."""

    async def handle(self, event: FileIndexed) -> None:
        await anyio.sleep(0.02)
        print(f"    indexed {event.file_id}")


class ScanFile(cqrs.EventHandler[FileScanned]):
    """The other one; it is the faster."""

    async def handle(self, event: FileScanned) -> None:
        print(f"    scanned {event.file_id}")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """Streaming handlers are bound like any other."""
    mapper.bind(ProcessFiles, ProcessFilesHandler)


def bind_events(mapper: cqrs.EventMap) -> None:
    """What is done for each file."""
    mapper.bind(FileIndexed, IndexFile)
    mapper.bind(FileScanned, ScanFile)


async def main() -> None:
    """Pull all results; then read ahead, and leave early."""
    mediator = bootstrap.bootstrap_streaming(
        commands_mapper=bind_commands,
        domain_events_mapper=bind_events,
        max_concurrent_event_handlers=2,
        concurrent_event_handle_enable=True,
    )
    async with mediator:
        print("pulled:")
        async for result in mediator.stream(ProcessFiles(file_ids=["a.txt", "b.txt"])):
            print(f"  done: {result.file_id}")

        print("pipelined, left after the first result:")
        async with mediator.stream(ProcessFiles(file_ids=["c.txt", "d.txt", "e.txt"])) as results:
            async for result in results:
                print(f"  done: {result.file_id}")
                break
        print("after the block nothing of it runs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
