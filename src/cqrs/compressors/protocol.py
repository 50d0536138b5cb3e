"""What the library asks of a compressor."""

from __future__ import annotations

from typing import Protocol


class Compressor(Protocol):
    """Makes bytes smaller, and gives them back."""

    def compress(self, value: bytes) -> bytes:
        """``value`` in fewer bytes."""
        ...

    def decompress(self, value: bytes) -> bytes:
        """The bytes that :meth:`compress` made ``value`` of.

        :raises cqrs.exceptions.DecompressionError: ``value`` was not made by :meth:`compress`.
        """
        ...
