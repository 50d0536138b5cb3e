"""Message brokers. Those that need a driver are modules of their own: ``message_brokers.kafka``, ``.amqp``."""

from __future__ import annotations

from cqrs.message_brokers.devnull import DevnullMessageBroker
from cqrs.message_brokers.memory import InMemoryMessageBroker
from cqrs.message_brokers.protocol import Message, MessageBroker

__all__ = ["DevnullMessageBroker", "InMemoryMessageBroker", "Message", "MessageBroker"]
