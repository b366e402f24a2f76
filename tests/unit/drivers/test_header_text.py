"""Headers whose values are no text arrive as text or are refused, never as Python's notation of them."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

from trunkline import AddressError, parse_address
from trunkline.actors.drivers.kafka.plan import header_pairs
from trunkline.actors.drivers.mqtt.plan import user_properties
from trunkline.actors.drivers.nats.plan import sound_headers
from trunkline.address.header_text import header_text
from trunkline.errors import RefusedError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        (b"a\xc3\xa9", "aé"),
        (bytearray(b"a"), "a"),
        (5, "5"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_text(value: Any, text: str) -> None:
    assert header_text("a", value) == text
    assert sound_headers({"a": value}) == {"a": text}
    assert user_properties({"a": [value, "b"]}) == [("a", text), ("a", "b")]
    assert header_pairs({"a": (value,)}) in (
        (("a", text.encode()),),
        (("a", bytes(text, "utf-8")),),
    )


@pytest.mark.parametrize("value", [None, {"s3cret": 1}, {"s3cret"}, [["s3cret"]], b"\xffs3cret"])
def test_what_is_no_text_is_refused_without_quoting_it(value: Any) -> None:
    for refusing in (sound_headers, user_properties):
        with pytest.raises(ValueError, match="header 'a' has ") as told:
            refusing({"a": value})
        assert "s3cret" not in str(told.value)
    with pytest.raises(AddressError, match="option 'headers': header 'a' has ") as refused:
        parse_address("ws://h", {"headers": {"a": value}})
    assert "s3cret" not in str(refused.value)


def test_kafka_has_bytes_and_nothing_too() -> None:
    assert header_pairs({"a": None, "b": b"\xff", "c": [None, "x"]}) == (
        ("a", None), ("b", b"\xff"), ("c", None), ("c", b"x"),
    )  # fmt: skip
    with pytest.raises(RefusedError, match="header 'a' has a value of type dict"):
        header_pairs({"a": {"b": 1}})
