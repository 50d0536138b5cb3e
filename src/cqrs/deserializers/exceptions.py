"""What deserializers return in place of a message that they cannot read.

These are values, not exceptions: a consumer decides what becomes of a message that nobody can read.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class DeserializeJsonError:
    """Data that is not the JSON of a message.

    :param error_message: what is wrong with it.
    :param error_type: the type of the exception that said so.
    :param message_data: the data, as it came.
    """

    error_message: str
    error_type: type[Exception]
    message_data: str | bytes | None


@dataclasses.dataclass(frozen=True)
class DeserializeProtobufError:
    """Data that is not the protobuf form of a message.

    :param error_message: what is wrong with it.
    :param error_type: the type of the exception that said so.
    :param message_data: the data, as it came.
    """

    error_message: str
    error_type: type[Exception]
    message_data: bytes | None
