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
        "  order-4: ReserveInventory done",
        "  order-4: ProcessPayment done",
        "  order-4: ShipOrder done",
        "saga of order-4: completed",
        "  log: ReserveInventory act started",
        "  log: ReserveInventory act completed",
        "  log: ProcessPayment act started",
        "  log: ProcessPayment act completed",
        "  log: ShipOrder act started",
        "  log: ShipOrder act completed",
        "  order-5: ReserveInventory done",
        "  order-5: put back on the shelf",
        "  order-5: rolled back, as grace cannot pay 249.00 EUR",
        "saga of order-5: failed",
        "  log: ReserveInventory act started",
        "  log: ReserveInventory act completed",
        "  log: ProcessPayment act started",
        "  log: ProcessPayment act failed",
        "  log: ReserveInventory compensate started",
        "  log: ReserveInventory compensate completed",
        "desks before: 2, after: 2",
        "ada: order-1 shipped",
        "alan: order-2 shipped",
        "grace: order-4 shipped, order-5 refused",
    ],
    "protobuf_events": ["the same event again: True", "something else: DeserializeProtobufError"],
    "request_fallback": ["request 4: 1.08 (last known), service called 2 times"],
    "request_handler": ["in standup: ada, alan"],
    "request_response_types": ["dataclass: {'product_id': 'p-1', 'price': 9.5}", "own class: {'text': 'hello'}"],
    "saga": [
        "London",
        "  event: flight to London booked",
        "  step: BookFlight: flight to London",
        "  step: BookRoom: room of Ada",
        "  step: SendTickets: done",
        "Venice",
        "  step: BookFlight: flight to Venice",
        "  undo: flight to Venice",
        "  failed: no room in Venice; the flight is None",
        (
            "  failed: BookFlight act started, BookFlight act completed, BookRoom act started, BookRoom act failed, "
            "BookFlight compensate started, BookFlight compensate completed"
        ),
    ],
    "saga_fallback": [
        "  reservation before the fallback: None",
        "order-1: ReserveFarAway done",
        "order-1: near warehouse called 1 times so far",
        "order-2: near warehouse called 2 times so far",
        "order-3: ReserveFarAway done",
        "  undo: far-order-3",
        "order-3: 5000.00 refused",
        "order-3: near warehouse called 2 times so far",
    ],
    "saga_mermaid": [
        "sequenceDiagram",
        "    else up to TakePayment, a step fails or the run is cancelled",
        "        opt BookCourier acted, or may have",
        "        alt ReserveInventory acted, or may have",
        "classDiagram",
        "    OrderSaga --> TakePayment : step 3 as pivot",
        "    ReserveInventory --> ReserveInFarWarehouse : fallback",
    ],
    "saga_parallel_and_pivot": [
        "  step: ReserveInventory",
        "  step: CheckFraud",
        "  step: BookCourier",
        "  step: TakePayment",
        "  mail: order-1 comes with courier of order-1",
        "  mail server called 3 times",
        "order-2",
        "  undo: reservation of order-2",
        "  undo: whatever the courier service has for order-2",
        "  failed: order-2 looks suspicious",
    ],
    "saga_recovery": [
        "  running, {'order_id': 'order-1', 'reservation_id': 'r-order-1'}",
        "  ProcessPayment - act - not_started",
        "recovered",
        "  bank: paid",
        "  completed, {'order_id': 'order-1', 'reservation_id': 'r-order-1'}",
        "  as well: SagaCompensationError, because of ConnectionError('warehouse is down')",
        "  compensation_failed, {'order_id': 'order-2', 'reservation_id': 'r-order-2'}",
        "  ReserveInventory - compensate - failed",
        "recovered",
        "  warehouse: release r-order-2",
        "  failed, {'order_id': 'order-2', 'reservation_id': 'r-order-2'}",
        "  ReserveInventory - compensate - completed",
    ],
    "saga_recovery_worker": [
        "left behind: 3",
        "paid: order-1 x 1, order-2 x 1",
        "parked: order-3, recovery failed 3 times: LookupError('no such card')",
        "after repair and unpark_saga(): order-3 paid 1 time",
    ],
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
