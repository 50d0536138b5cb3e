"""ZlibCompressor."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrs.compressors import Compressor, ZlibCompressor
from cqrs.exceptions import CQRSError, DecompressionError


@given(st.binary())
def test_decompress_gives_back_what_was_compressed(data: bytes) -> None:
    """Any bytes survive compression."""
    compressor: Compressor = ZlibCompressor()
    assert compressor.decompress(compressor.compress(data)) == data


def test_repetitive_data_gets_smaller() -> None:
    """Compression compresses."""
    assert len(ZlibCompressor().compress(b"order" * 1000)) < 100


@pytest.mark.parametrize("data", [b"", b"garbage", ZlibCompressor().compress(b"whole" * 100)[:-1]])
def test_garbage_is_told_from_data(data: bytes) -> None:
    """Data of another origin, or cut off, raises one error that can be caught in three ways and keeps its cause."""
    with pytest.raises(DecompressionError, match="not a whole zlib stream") as caught:
        ZlibCompressor().decompress(data)
    assert isinstance(caught.value, CQRSError)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value.__cause__, zlib.error)
