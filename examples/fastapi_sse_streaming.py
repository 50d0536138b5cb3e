"""Server-sent events: FastAPI passes the results of a stream on as they come.

Served for real: ``uvicorn examples.fastapi_sse_streaming:app``, or Hypercorn with its trio worker.
"""

import argparse
import functools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
import fastapi
import httpx
from fastapi.responses import StreamingResponse

import cqrs
from cqrs.requests import bootstrap


class FileProcessed(cqrs.Response):
    """One file is done."""

    file_id: str
    status: str


class ProcessFiles(cqrs.Request[FileProcessed]):
    """Process files, and tell of each."""

    file_ids: list[str]


class ProcessFilesHandler(cqrs.StreamingRequestHandler[ProcessFiles, FileProcessed]):
    """Yields a result for each file."""

    async def handle(self, request: ProcessFiles) -> AsyncIterator[FileProcessed]:
        for file_id in request.file_ids:
            await anyio.sleep(0.01)
            yield FileProcessed(file_id=file_id, status="completed")


def bind_commands(mapper: cqrs.RequestMap) -> None:
    """The command."""
    mapper.bind(ProcessFiles, ProcessFilesHandler)


@functools.lru_cache
def streaming_mediator_factory() -> cqrs.StreamingRequestMediator:
    """One mediator for the application."""
    return bootstrap.bootstrap_streaming(commands_mapper=bind_commands)


@asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncGenerator[None]:
    """Entered, the mediator ends the streams that clients left."""
    async with streaming_mediator_factory():
        yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/process-files")
async def process_files(
    command: ProcessFiles,
    mediator: Annotated[cqrs.StreamingRequestMediator, fastapi.Depends(streaming_mediator_factory)],
) -> StreamingResponse:
    """Answer with progress."""

    async def generate_sse() -> AsyncGenerator[str]:
        yield _sse({"type": "start"})
        # Pulled: a generator must not yield inside the task group of a pipelined stream.
        async for result in mediator.stream(command):
            yield _sse({"type": "progress", "data": result.to_dict()})
        yield _sse({"type": "complete"})

    return StreamingResponse(generate_sse(), media_type="text/event-stream")


def _sse(data: dict[str, object]) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def main() -> None:
    """Be one's own client."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        client.stream("POST", "/process-files", json={"file_ids": ["a.txt", "b.txt"]}) as response,
    ):
        print(response.status_code, response.headers["content-type"])
        async for line in response.aiter_lines():
            if line:
                print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
