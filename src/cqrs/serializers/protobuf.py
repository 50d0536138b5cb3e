"""Messages as protobuf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cqrs.exceptions import SerializationError

_WAY_OUT = "give it a method proto() that returns a protobuf message, or serialise it with default_serializer."


def protobuf_serializer(message: Any) -> bytes:
    """``message`` in protobuf's wire format.

    :param message: an event with ``proto()``, or a protobuf message; bytes pass unchanged.
    :raises SerializationError: it is none of these, or its ``proto()`` returns no protobuf message.
    """
    if isinstance(message, (bytes, bytearray)):
        return bytes(message)
    write = _writer_of(message)
    return write() if write is not None else _serialised_proto(message)


def _serialised_proto(message: object) -> bytes:
    kind = type(message)
    proto = getattr(message, "proto", None)
    if not callable(proto):
        raise SerializationError(kind, f"it has no proto(): {_WAY_OUT}")
    try:
        converted = proto()
    except NotImplementedError as error:
        raise SerializationError(kind, f"it does not implement proto(): {_WAY_OUT}") from error
    write = _writer_of(converted)
    if write is None:
        raise SerializationError(kind, f"its proto() returned {converted!r}, which is no protobuf message.")
    return write()


# Told by what it can do: an application may use another implementation of protobuf than Google's.
def _writer_of(message: object) -> Callable[[], bytes] | None:
    write: Callable[[], bytes] | None = getattr(message, "SerializeToString", None)
    return write if callable(write) else None
