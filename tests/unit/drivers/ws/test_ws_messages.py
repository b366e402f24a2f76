"""The receiving rules of RFC 6455, frame by frame."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.drivers.ws.messages import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Assembler,
    Close,
    Ping,
    Pong,
    Violation,
    close_payload,
    loss,
)

Frame = tuple[int, bool, int, bytes]


def feed(*frames: Frame, limit: int = 1000) -> list[object]:
    assembler = Assembler(limit)
    events = [assembler.feed(*frame) for frame in frames]
    return [event for event in events if event is not None]


@given(st.text(), st.lists(st.integers(min_value=0), max_size=5))
def test_a_text_cut_into_any_fragments_arrives_whole(text: str, places: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    last = len(pieces) - 1
    frames = [(CONTINUATION if n else TEXT, n == last, 0, piece) for n, piece in enumerate(pieces)]
    assert feed(*frames, limit=len(data)) == [text]


def test_control_frames_may_come_between_fragments() -> None:
    events = feed(
        (BINARY, False, 0, b"a"),
        (PING, True, 0, b"?"),
        (PONG, True, 0, b"!"),
        (CONTINUATION, True, 0, b"b"),
    )
    assert events == [Ping(b"?"), Pong(b"!"), b"ab"]


@pytest.mark.parametrize("piece", [b"", b"a"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_flood_of_tiny_fragments_takes_no_more_memory_than_its_bytes(
    opcode: int, piece: bytes
) -> None:
    count = 100_000
    assembler = Assembler(count)
    assembler.feed(opcode, False, 0, b"")
    tracemalloc.start()
    try:
        for _ in range(count):
            assembler.feed(CONTINUATION, False, 0, piece)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 2 * count * len(piece) + 10_000
    whole = assembler.feed(CONTINUATION, True, 0, b"")
    assert whole == ((piece * count).decode() if opcode == TEXT else piece * count)


def test_state_starts_afresh_after_each_message() -> None:
    assert feed(
        (TEXT, False, 0, b"x" * 9),
        (CONTINUATION, True, 0, b"y"),
        (BINARY, True, 0, b"z" * 10),
        limit=10,
    ) == [
        "x" * 9 + "y",
        b"z" * 10,
    ]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(CONTINUATION, True, 0, b"")], 1002),
        ([(TEXT, False, 0, b""), (TEXT, True, 0, b"")], 1002),
        ([(3, True, 0, b"")], 1002),
        ([(11, True, 0, b"")], 1002),
        ([(TEXT, True, 4, b"")], 1002),
        ([(BINARY, True, 1, b"")], 1002),
        ([(TEXT, False, 0, b""), (CONTINUATION, True, 4, b"")], 1002),
        ([(PING, True, 2, b"")], 1002),
        ([(PING, False, 0, b"")], 1002),
        ([(PING, True, 0, bytes(126))], 1002),
        ([(CLOSE, True, 0, b"\x03")], 1002),
        ([(CLOSE, True, 0, b"\x03\xe8\xff")], 1007),
        ([(TEXT, True, 0, b"ab\xc3\x28")], 1007),
        ([(TEXT, True, 0, b"\xe2\x82")], 1007),
        ([(TEXT, False, 0, b"\xed\xa0\x80")], 1007),
        ([(TEXT, False, 0, b"\xe2"), (CONTINUATION, False, 0, b"\x28")], 1007),
        ([(BINARY, True, 0, bytes(1001))], 1009),
        ([(BINARY, False, 0, bytes(600)), (CONTINUATION, False, 0, bytes(600))], 1009),
    ],
)
def test_a_broken_rule_has_its_close_code(frames: list[Frame], code: int) -> None:
    with pytest.raises(Violation) as caught:
        feed(*frames)
    assert caught.value.code == code


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4001, 4999])
def test_close_codes_that_may_travel(code: int) -> None:
    assert feed((CLOSE, True, 0, close_payload(code, "é"))) == [Close(code, "é")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_may_not(code: int) -> None:
    with pytest.raises(Violation, match="invalid code"):
        feed((CLOSE, True, 0, close_payload(code)))


def test_a_close_without_a_code_has_none() -> None:
    assert feed((CLOSE, True, 0, b"")) == [Close(None, "")]
    assert close_payload(None) == b""


def test_a_long_reason_is_cut_between_characters() -> None:
    payload = close_payload(1000, "€" * 60)
    assert len(payload) <= 125
    assert payload[2:].decode() == "€" * 41


def test_what_a_close_means_for_the_link() -> None:
    closes = [
        Close(None, ""),
        Close(1000, ""),
        Close(1001, "restart"),
        Close(4001, "bye\r\nnow\x1b"),
    ]
    assert [str(loss(close)).removeprefix("closed by the peer: ") for close in closes] == [
        "no code", "1000", "1001 restart", "4001 bye now",
    ]  # fmt: skip
    assert [(loss(close).code, loss(close).reason) for close in closes[1:3]] == [
        (1000, ""),
        (1001, "restart"),
    ]


def test_text_that_is_no_text_comes_as_bytes_unless_it_must_be_text() -> None:
    assembler = Assembler(1000, strict_text=False)
    frames = [
        (TEXT, True, 0, b"caf\xe9"),
        (TEXT, False, 0, b"\xc3"),
        (CONTINUATION, True, 0, b"\xa9"),
    ]
    assert [assembler.feed(*frame) for frame in frames] == [b"caf\xe9", None, "é"]
