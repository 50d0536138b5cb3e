"""A stream that breaks, and goes on with the results of a second handler."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import anyio

import cqrs
from cqrs.adapters.circuit_breaker import AioBreakerAdapter
from cqrs.requests import bootstrap


class Page(cqrs.Response):
    """A page of a report."""

    number: int
    source: str


class ReadReport(cqrs.Request[Page]):
    """Ask for all pages of a report."""

    pages: int


class PrimaryReportHandler(cqrs.StreamingRequestHandler[ReadReport, Page]):
    """Breaks in the middle."""

    async def handle(self, request: ReadReport) -> AsyncIterator[Page]:
        print("primary starts")
        yield Page(number=1, source="primary")
        raise ConnectionError("primary is gone")


class ReplicaReportHandler(cqrs.StreamingRequestHandler[ReadReport, Page]):
    """Has all pages. It starts at the beginning: what is out already is the consumer's to know."""

    async def handle(self, request: ReadReport) -> AsyncIterator[Page]:
        for number in range(1, request.pages + 1):
            yield Page(number=number, source="replica")


def bind_queries(mapper: cqrs.RequestMap) -> None:
    """Both handlers stream."""
    mapper.bind(
        ReadReport,
        cqrs.RequestHandlerFallback(
            primary=PrimaryReportHandler,
            fallback=ReplicaReportHandler,
            failure_exceptions=(ConnectionError,),
            circuit_breaker=AioBreakerAdapter(fail_max=1, timeout_duration=60),
        ),
    )


async def main() -> None:
    """Two reports; for the second one the circuit is open, and the primary is not asked."""
    mediator = bootstrap.bootstrap_streaming(queries_mapper=bind_queries)
    for number in (1, 2):
        pages = [page async for page in mediator.stream(ReadReport(pages=2))]
        print(f"report {number}:", ", ".join(f"page {page.number} ({page.source})" for page in pages))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
