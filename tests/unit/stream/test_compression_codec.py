"""Message compression as exchanges do it, rightly and nearly so."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.stream.compression import METHODS, Codec, CompressionError

LIMIT = 1 << 20
TEXT = json.dumps({"arg": {"channel": "tickers"}, "data": [{"last": "9999.99"}] * 20})


def raw_deflate(data: bytes, flush: int = zlib.Z_FINISH) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush(flush)


def codec(method: str = "gzip_raw", mode: str = "recv", limit: int = LIMIT) -> Codec:
    return Codec(method, mode, max_size=limit)


@pytest.mark.parametrize("method", METHODS)
@given(data=st.one_of(st.text(min_size=1), st.binary(min_size=1)))
def test_what_one_end_compresses_the_other_understands(method: str, data: str | bytes) -> None:
    packed = codec(method, "send").outgoing(data)
    raw = data.encode() if isinstance(data, str) else data
    assert isinstance(packed, bytes)
    back = codec(method).incoming(packed)
    assert (back.encode() if isinstance(back, str) else back) == raw


@pytest.mark.parametrize(
    ("mode", "packs", "unpacks"),
    [("recv", False, True), ("send", True, False), ("dual", True, True)],
)
def test_mode_says_which_way(mode: str, packs: bool, unpacks: bool) -> None:
    packed = gzip.compress(TEXT.encode(), mtime=0)
    assert (codec("gzip", mode).outgoing(TEXT) != TEXT) is packs
    assert (codec("gzip", mode).incoming(packed) == TEXT) is unpacks


@pytest.mark.parametrize("method", METHODS)
def test_text_and_plain_binary_frames_pass_as_they_are(method: str) -> None:
    assert codec(method).incoming("pong") == "pong"
    assert codec(method).incoming(TEXT.encode()) == TEXT.encode()
    assert codec(method).incoming(b"") == b""


@pytest.mark.parametrize("method", ["gzip_raw", "deflate"])
@pytest.mark.parametrize(
    "packed",
    [
        raw_deflate(TEXT.encode()),
        raw_deflate(TEXT.encode(), zlib.Z_SYNC_FLUSH),
        zlib.compress(TEXT.encode()),
        gzip.compress(TEXT.encode(), mtime=0),
    ],
    ids=["raw", "raw to a sync flush", "zlib header", "gzip header"],
)
def test_raw_methods_understand_every_dress_of_deflate(method: str, packed: bytes) -> None:
    assert codec(method).incoming(packed) == TEXT


def test_gzip_may_have_several_members_and_padding() -> None:
    packed = gzip.compress(TEXT.encode(), mtime=0) + gzip.compress(b"more") + b"\0\0"
    assert codec("gzip").incoming(packed) == TEXT + "more"


def test_what_is_no_text_stays_bytes() -> None:
    assert codec("gzip").incoming(gzip.compress(b"\xff\x00")) == b"\xff\x00"


@pytest.mark.parametrize(
    ("method", "packed", "says"),
    [
        ("gzip", gzip.compress(TEXT.encode(), mtime=0)[:-9], "cut short"),
        ("gzip", b"\x1f\x8b\x08\x00 nonsense that is no gzip", "cannot be decompressed"),
        ("gzip", gzip.compress(TEXT.encode(), mtime=0)[:-8] + bytes(8), "cannot be decompressed"),
        ("zlib", zlib.compress(TEXT.encode())[:-5], "cut short"),
        ("zlib", zlib.compress(TEXT.encode()) + b"tail", "follow the end"),
        ("gzip_raw", raw_deflate(TEXT.encode())[:-3], "cut short"),
        ("deflate", b"\xff\xfe\xfd", "cannot be decompressed"),
    ],
)
def test_a_broken_frame_is_an_error_that_says_why(method: str, packed: bytes, says: str) -> None:
    with pytest.raises(CompressionError, match=says):
        codec(method).incoming(packed)


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_is_refused_with_little_memory(method: str) -> None:
    packed = codec(method, "send").outgoing(bytes(80 << 20))
    victim = codec(method, limit=64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(CompressionError, match="more than 67108864 bytes"):
            victim.incoming(packed)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_of_all_members_together() -> None:
    packed = gzip.compress(bytes(600)) * 2
    assert codec("gzip", limit=1200).incoming(packed) == bytes(1200).decode()
    with pytest.raises(CompressionError, match="max_size"):
        codec("gzip", limit=1199).incoming(packed)


def test_a_message_beyond_a_megabyte_is_whole() -> None:
    data = bytes(range(256)) * 20_000
    assert codec("zlib", limit=len(data)).incoming(zlib.compress(data)) == data


def test_unknown_methods_and_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="compress=brotli"):
        codec("brotli")
    with pytest.raises(ValueError, match="mode=both"):
        codec("gzip", "both")
