"""The splitter never tears a character apart and never changes a byte."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.stream.text import Utf8Splitter


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def joined(parts: list[str | bytes]) -> bytes:
    return b"".join(part.encode() if isinstance(part, str) else part for part in parts)


@given(st.text(), st.lists(st.integers(min_value=0)))
def test_text_cut_anywhere_comes_out_as_text(text: str, places: list[int]) -> None:
    splitter = Utf8Splitter()
    parts = [part for chunk in cut(text.encode(), places) for part in splitter.feed(chunk)]
    assert all(isinstance(part, str) for part in parts)
    assert "".join(str(part) for part in parts) == text
    assert splitter.pending() == 0
    assert splitter.flush() == []


@given(st.binary(), st.lists(st.integers(min_value=0)))
def test_any_bytes_come_out_unchanged_in_sum(data: bytes, places: list[int]) -> None:
    splitter = Utf8Splitter()
    parts: list[str | bytes] = []
    for chunk in cut(data, places):
        parts += splitter.feed(chunk)
        assert splitter.pending() <= 3
    assert joined(parts + splitter.flush()) == data


def test_an_unfinished_character_is_held_until_its_rest_comes() -> None:
    splitter = Utf8Splitter()
    assert splitter.feed("price €".encode()[:-1]) == ["price "]
    assert splitter.pending() == 2
    assert splitter.feed("€".encode()[-1:] + b" 5") == ["€ 5"]


def test_a_flushed_half_character_comes_out_as_bytes_and_ends_the_text() -> None:
    splitter = Utf8Splitter()
    assert splitter.feed(b"a\xe2\x82") == ["a"]
    assert splitter.flush() == [b"\xe2\x82"]
    assert splitter.feed(b"\xac") == [b"\xac"]
    assert splitter.pending() == 0


def test_once_invalid_nothing_is_held_any_more() -> None:
    splitter = Utf8Splitter()
    assert splitter.feed(b"ok\xff") == [b"ok\xff"]
    assert splitter.feed(b"abc\xe2") == [b"abc\xe2"]
    assert splitter.binary


def test_empty_chunks_are_no_messages() -> None:
    splitter = Utf8Splitter()
    assert splitter.feed(b"") == []
    splitter.feed(b"\xff")
    assert splitter.feed(b"") == []
