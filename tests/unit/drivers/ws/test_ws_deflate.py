"""permessage-deflate: what is agreed on, and both ways of a link against plain zlib."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from trunkline.actors.drivers.ws.deflate import Deflate, NegotiationError, negotiate
from trunkline.actors.drivers.ws.messages import BINARY, CONTINUATION, TEXT, Assembler, Violation

TAIL = b"\x00\x00\xff\xff"
WORDS = b'{"channel":"tickers","last":"9999.99"}' * 5


class Server:
    """The other end, kept as simple as the RFC's examples."""

    def __init__(self, bits: int = 15) -> None:
        self._packer = zlib.compressobj(wbits=-bits)
        self._unpacker = zlib.decompressobj(wbits=-15)

    def pack(self, data: bytes) -> bytes:
        return (self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
            TAIL
        )

    def unpack(self, data: bytes) -> bytes:
        return self._unpacker.decompress(data + TAIL)


def agreed(header: str) -> Deflate:
    deflate = negotiate(header)
    assert deflate is not None
    return deflate


def test_a_server_may_decline() -> None:
    assert negotiate(None) is None
    assert negotiate("  ") is None


@pytest.mark.parametrize(
    "header",
    [
        "x-webkit-deflate-frame",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; unheard_of",
    ],
)
def test_what_was_not_offered_or_is_malformed_is_refused(header: str) -> None:
    with pytest.raises(NegotiationError):
        negotiate(header)


def test_the_window_is_shared_by_the_messages_of_a_link() -> None:
    deflate, server = agreed("permessage-deflate"), Server()
    first, second = server.pack(WORDS), server.pack(WORDS)
    assert len(second) < len(first)
    assert [deflate.inflate(data, True, 1000) for data in (first, second)] == [WORDS, WORDS]
    sent = [deflate.deflate(WORDS), deflate.deflate(WORDS)]
    assert len(sent[1] or b"") < len(sent[0] or b"")
    assert [server.unpack(data or b"") for data in sent] == [WORDS, WORDS]


def test_no_context_takeover_starts_afresh_each_time() -> None:
    deflate = agreed(
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        'server_max_window_bits="10"; client_max_window_bits=10'
    )
    assert deflate.deflate(WORDS) == deflate.deflate(WORDS)
    for _ in range(2):
        assert deflate.inflate(Server(bits=10).pack(WORDS), True, 1000) == WORDS


def test_a_window_zlib_cannot_make_is_answered_uncompressed() -> None:
    assert agreed("permessage-deflate; client_max_window_bits=8").deflate(WORDS) is None


def test_a_compressed_message_may_be_fragmented() -> None:
    packed = Server().pack("Grüße".encode() * 9)
    assembler = Assembler(1000, agreed("permessage-deflate"))
    assert assembler.feed(TEXT, False, 4, packed[:7]) is None
    assert assembler.feed(CONTINUATION, True, 0, packed[7:]) == "Grüße" * 9
    assert assembler.feed(BINARY, True, 0, b"plain") == b"plain"


def test_a_final_block_inside_a_message_is_allowed() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(WORDS) + packer.flush() + b"\0"
    deflate = agreed("permessage-deflate")
    assert deflate.inflate(packed, True, 1000) == WORDS
    assert deflate.inflate(Server().pack(b"next"), True, 1000) == b"next"


def test_broken_data_is_a_violation() -> None:
    with pytest.raises(Violation, match="cannot be read") as caught:
        agreed("permessage-deflate").inflate(b"\xff\xff\xff", True, 1000)
    assert caught.value.code == 1002


def test_a_bomb_is_a_violation_with_little_memory() -> None:
    packed = Server().pack(bytes(64 << 20))
    deflate = agreed("permessage-deflate")
    tracemalloc.start()
    try:
        with pytest.raises(Violation) as caught:
            deflate.inflate(packed, True, 1 << 20)
        assert caught.value.code == 1009
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_message_of_exactly_the_limit_passes() -> None:
    assert (
        Assembler(len(WORDS), agreed("permessage-deflate")).feed(
            TEXT, True, 4, Server().pack(WORDS)
        )
        == WORDS.decode()
    )
