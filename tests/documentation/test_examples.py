"""Each example runs on the backends it offers, without a warning, and prints what it promises."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("aiobreaker")
pytest.importorskip("di")
pytest.importorskip("dishka")
pytest.importorskip("dependency_injector")
pytest.importorskip("google.protobuf")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("faststream")


EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

ASYNCIO_ONLY = {"kafka_event_consuming"}

EXPECTED: dict[str, list[str]] = {
    "cor_mermaid": ["sequenceDiagram", "classDiagram", "cheque: transaction_id='invoice-1' method='invoice'"],
    "cor_request_handler": [
        "  booked: 99.00",
        "20.00 by voucher: paid by voucher",
        "200.00 by voucher: paid by invoice",
    ],
    "dependency_injection_di": ["  connection opened", "  alan joins standup", "  connection closed"],
    "dependency_injection_dishka": ["  committed", "  rolled back after ValueError('a name is needed')"],
    "dependency_injection_plain": ["  audit: moved 100", "  commit", "  rollback", "  refused: over the limit"],
    "dependency_injector_integration_simple_example": ["Hello, Ada!", "Good evening, Ada!"],
    "domain_event_handler": ["  delivery to tony noted", "connections at once: 3, open after send: 0"],
    "event_fallback": ["order 2: push service called", "order 3: told by mail"],
    "event_producing": [
        "user_ecst_events, key retro: UserJoined UserJoined(user_id='alan', meeting_id='retro')",
        "broker closed, subscriber ended",
    ],
    "failure_policies": [
        "  bill of slow: cancelled",
        "  send raised: no address for broken",
        "  reported: no address for broken",
        "  send succeeded",
    ],
    "fastapi_integration": ['GET /meetings/1: 200 {"meeting_id":1,"members":["ada","alan"]}'],
    "fastapi_sse_streaming": [
        'data: {"type": "progress", "data": {"file_id": "b.txt", "status": "completed"}}',
        'data: {"type": "complete"}',
    ],
    "kafka_event_consuming": ["Hello World", "Good evening World", "passed over b'not an event': ValueError"],
    "middlewares": ["  answered 'receipt over 20'", "  printer released"],
    "order_service": [
        "  reordered desk: 2 left",
        "order-1 accepted, 644.00 EUR",
        "robots at once: 3, still at work: 0",
        "order-3 refused: we sell no piano",
        "stock-taking cancelled: True, still at work: 0",
        "shipped 2 of 2: order-2",
        "ada: order-1 shipped",
        "alan: order-2 shipped",
    ],
    "protobuf_events": ["the same event again: True", "something else: DeserializeProtobufError"],
    "request_fallback": ["request 4: 1.08 (last known), service called 2 times"],
    "request_handler": ["in standup: ada, alan"],
    "request_response_types": ["dataclass: {'product_id': 'p-1', 'price': 9.5}", "own class: {'text': 'hello'}"],
    "streaming_fallback": [
        "report 1: page 1 (primary), page 1 (replica), page 2 (replica)",
        "report 2: page 1 (replica), page 2 (replica)",
    ],
    "streaming_handler_parallel_events": ["  done: b.txt", "  handler closed", "after the block nothing of it runs"],
    "streaming_send_stream": ["faster answered after 10 ms", "the slow one has been cancelled, and has ended"],
}
"""Lines that each example prints, in this order; others may come between them."""


def _is_runnable(script: pathlib.Path) -> bool:
    return "__main__" in script.read_text(encoding="utf-8")


def test_every_example_is_run() -> None:
    """An example that is added is run as well."""
    assert {script.stem for script in EXAMPLES.glob("*.py") if _is_runnable(script)} == set(EXPECTED)


@pytest.mark.parametrize("example", sorted(EXPECTED))
def test_example_prints_what_it_promises(example: str, reader_backend: str) -> None:
    """The example ends well, with its lines in their order, on each backend it supports."""
    if example in ASYNCIO_ONLY and reader_backend != "asyncio":
        pytest.skip("a library that it shows knows only asyncio")
    script = str(EXAMPLES / f"{example}.py")
    run = subprocess.run(
        [sys.executable, "-W", "error", script, "--backend", reader_backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    printed = iter(run.stdout.splitlines())
    assert [line for line in EXPECTED[example] if line not in printed] == []
