"""Texts that UTF-8 cannot hold."""

from __future__ import annotations

import pytest

from trunkline.errors import RefusedError
from trunkline.wire.utf8 import check, encoded


@pytest.mark.parametrize("text", ["", "plain", "ä€", "\U0001f600"])
def test_texts_are_encoded(text: str) -> None:
    assert encoded(text, "the text") == text.encode()


def test_half_of_a_pair_is_named_with_its_place() -> None:
    with pytest.raises(RefusedError, match=r"half of a surrogate pair \('\\ud83d' at position 2\)"):
        encoded("ab\ud83d", "the text")


@pytest.mark.parametrize("value", [7, None, b"\xff", ["a", {"b": ("c", 1.5)}], {"a": [b"x"]}])
def test_values_without_such_a_text_pass(value: object) -> None:
    check(value, "the value")


@pytest.mark.parametrize(
    "value", ["\ud800", ["a", "\ud800"], {"\ud800": 1}, {"a": {"b": ("\udc00",)}}]
)
def test_it_is_found_wherever_it_hides(value: object) -> None:
    with pytest.raises(RefusedError, match="the value has half of a surrogate pair"):
        check(value, "the value")
