"""DevnullMessageBroker."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from cqrs.message_brokers import DevnullMessageBroker, Message, MessageBroker


async def test_message_is_dropped_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each message is told of at debug level, without its payload."""
    broker: MessageBroker = DevnullMessageBroker()
    message = Message("Paid", "payments", {"secret": 1})
    with caplog.at_level(logging.DEBUG, logger="cqrs"):
        await broker.send_messages([message, message])
    assert [record.levelno for record in caplog.records] == [logging.DEBUG] * 2
    assert str(message.message_id) in caplog.text
    assert "'payments'" in caplog.text
    assert "secret" not in caplog.text


async def test_nothing_is_kept() -> None:
    """A message that was sent can be collected."""
    broker = DevnullMessageBroker()
    message = Message("Paid", "payments", None)
    gone = weakref.ref(message)
    await broker.send_message(message)
    del message
    gc.collect()
    assert gone() is None
