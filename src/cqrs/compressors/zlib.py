"""Compression with zlib."""

from __future__ import annotations

import zlib

from cqrs.compressors.protocol import Compressor
from cqrs.exceptions import DecompressionError


class ZlibCompressor(Compressor):
    """Compresses with the standard library's zlib, at its default level."""

    def compress(self, value: bytes) -> bytes:
        """``value`` as a zlib stream."""
        return zlib.compress(value)

    def decompress(self, value: bytes) -> bytes:
        """The bytes in the zlib stream ``value``.

        :raises DecompressionError: ``value`` is no zlib stream, or only a part of one.
        """
        try:
            return zlib.decompress(value)
        except zlib.error as error:
            raise DecompressionError(
                f"{len(value)} bytes are not a whole zlib stream ({error}): was this written with ZlibCompressor?"
            ) from error
