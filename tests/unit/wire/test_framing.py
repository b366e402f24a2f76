"""Messages on a byte stream: however it is cut, the same messages come out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import RemoteError
from trunkline.wire.framing import MAX_BYTES, Unframer, frame

MESSAGES = st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=3000)), max_size=8)


@given(MESSAGES, st.data())
def test_any_cut_gives_the_same_messages(
    messages: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frame(head, body) for head, body in messages)
    unframer, found = Unframer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += list(unframer.feed(stream[:size]))
        stream = stream[size:]
    assert found == messages


@given(MESSAGES)
def test_byte_by_byte(messages: list[tuple[bytes, bytes]]) -> None:
    stream = b"".join(frame(head, body) for head, body in messages[:2])
    unframer = Unframer()
    found = [message for i in range(len(stream)) for message in unframer.feed(stream[i : i + 1])]
    assert found == messages[:2]


@pytest.mark.parametrize("lengths", [(MAX_BYTES + 1, 2), (5, 9)])
def test_what_is_no_such_stream_is_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(RemoteError, match="not Trunkline's"):
        list(Unframer().feed(struct.pack("!IH", *lengths) + b"abc"))


def test_a_memoryview_is_a_body() -> None:
    assert list(Unframer().feed(frame(b"h", memoryview(b"body")))) == [(b"h", b"body")]
