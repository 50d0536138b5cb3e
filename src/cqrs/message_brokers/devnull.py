"""A broker that forgets."""

from __future__ import annotations

import logging

from cqrs.message_brokers.protocol import Message, MessageBroker

_logger = logging.getLogger(__name__)


class DevnullMessageBroker(MessageBroker):
    """Drops each message, with a line in the log at debug level. For applications that send none."""

    async def send_message(self, message: Message) -> None:
        """Drop ``message``."""
        _logger.debug("Dropped message %s %r to topic %r", message.message_id, message.message_name, message.topic)
