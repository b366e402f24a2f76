"""The properties of AMQP messages: what is well formed is read as it is, nothing raises, nothing is read
beyond its bounds."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from math import inf, isnan
from random import Random
from typing import Any

import pytest
from pika import BasicProperties

from tests.support.amqp_tables import item, nested, random_items
from tests.support.rabbit import raw_headers
from trunkline.actors.drivers.amqp.header import MAX_DEPTH, Properties, read_properties
from trunkline.wire import values


def read(items: bytes) -> Properties:
    """Of a header table with these items, and nothing else."""
    return read_properties(b"".join(raw_headers(items).encode()))


def test_what_pika_writes_is_read_as_it_was() -> None:
    headers = {
        "text": "hé",
        "count": -5,
        "large": 2**40,
        "yes": True,
        "none": None,
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "price": Decimal("64000.25"),
        "list": [1, "x", [b"\xff"]],
        "in": {"a": b"\xff", "deeper": {}},
    }
    given = BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers=headers,
        delivery_mode=2,
        priority=9,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=1_772_000_000,
        type="tick",
        user_id="u",
        app_id="a",
        cluster_id="k",
    )
    found = read_properties(b"".join(given.encode()))
    assert vars(found) == vars(given)
    assert found.unread == ()
    assert vars(read_properties(b"\x00\x00")) == vars(BasicProperties())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"T" + struct.pack(">Q", 1_772_000_000_000), 1_772_000_000_000),  # milliseconds
        (
            b"T" + struct.pack(">q", -14_256_000),
            datetime(1969, 7, 20, tzinfo=UTC),
        ),  # Java's, before 1970
        (b"T" + b"\x7f" + b"\xff" * 7, 2**63 - 1),
        (b"d" + struct.pack(">d", 1.5), 1.5),
        (b"f" + struct.pack(">f", -0.25), -0.25),
        (b"d" + struct.pack(">d", inf), inf),
        (b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),
        (b"D\xff\x7f\xff\xff\xff", Decimal(2**31 - 1).scaleb(-255)),
        (b"u\xff\xff", 65535),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
    ],
)
def test_values_that_are_odd_and_right(value: bytes, expected: Any) -> None:
    found = read(item(b"before", b"t\x01") + item(b"it", value) + item(b"behind", b"t\x01"))
    assert found.headers == {"before": True, "it": expected, "behind": True}
    assert found.unread == ()


def test_nan_is_a_number() -> None:
    found = read(item(b"it", b"d" + struct.pack(">d", float("nan"))))
    assert isnan(found.headers["it"])


def test_what_cannot_be_read_is_left_out_and_named() -> None:
    right = item(b"right", b"t\x01")
    unknown = item(b"odd", b"?1234")
    assert (read(right + unknown).headers, read(right + unknown).unread) == (
        {"right": True},
        ("odd",),
    )
    table = b"F" + struct.pack(">I", len(unknown)) + unknown
    found = read(item(b"in", table) + right)
    assert found.headers == {"in": {}, "right": True}, "what is behind it can be read again"
    assert found.unread == ("odd",)
    assert read(item(b"\xff", b"t\x01")).headers == {"\ufffd": True}
    long = item(b"long", b"S\xff\xff\xff\xffabc")
    assert (read(right + long).headers, read(right + long).unread) == ({"right": True}, ("long",))


def test_what_stands_behind_a_table_that_cannot_be_read() -> None:
    unknown = item(b"odd", b"?1234")
    flags, mode = struct.pack(">H", (1 << 13) | (1 << 12) | (1 << 6)), b"\x02"
    encoded = flags + struct.pack(">I", len(unknown)) + unknown + mode + struct.pack(">Q", 7)
    found = read_properties(encoded)
    assert (found.headers, found.delivery_mode, found.timestamp) == ({}, 2, 7)
    for end in range(2, len(encoded)):
        cut = read_properties(encoded[:end])
        assert cut.unread, end
        assert cut.timestamp is None


@pytest.mark.parametrize("letter", [b"A", b"F"])
def test_depth_is_bounded(letter: bytes) -> None:
    right = item(b"right", b"t\x01")
    found = read(item(b"deep", nested(20_000, letter)) + right)
    assert found.headers["right"] is True, "what is behind it can be read again"
    assert found.unread
    depth, value = 0, found.headers["deep"]
    while value:
        depth, value = depth + 1, value[0] if letter == b"A" else value[""]
    assert depth < MAX_DEPTH
    assert read(item(b"flat", nested(MAX_DEPTH - 1, letter))).unread == ()


def test_nothing_at_random_raises_or_is_too_much_to_pass_on() -> None:
    random = Random(8)
    for _ in range(5000):
        encoded = bytearray(b"".join(raw_headers(random_items(random, rabbit=False)).encode()))
        values.pack(vars(read_properties(bytes(encoded))))
        for _ in range(random.randrange(1, 5)):
            encoded[random.randrange(len(encoded))] = random.randrange(256)
        values.pack(vars(read_properties(bytes(encoded))))
        values.pack(vars(read_properties(bytes(encoded[: random.randrange(len(encoded))]))))
        values.pack(vars(read_properties(random.randbytes(random.randrange(60)))))
