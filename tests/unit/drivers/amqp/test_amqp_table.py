"""Headers of AMQP messages that are written: read again as they were, or refused in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from trunkline.actors.drivers.amqp.header import read_properties
from trunkline.actors.drivers.amqp.table import WrittenProperties


def there_and_back(headers: dict[str, Any], **others: Any) -> Any:
    return read_properties(b"".join(WrittenProperties(headers=headers, **others).encode()))


def test_all_types_come_back() -> None:
    headers = {
        "": "",
        "text": "grüße\0",
        "yes": True,
        "no": False,
        "small": -(1 << 31),
        "large": (1 << 63) - 1,
        "real": -0.1,
        "bytes": b"\xff",
        "none": None,
        "price": Decimal("-64000.25"),
        "thousand": Decimal("1E+3"),
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "before": datetime(1969, 7, 20, tzinfo=timezone(timedelta(hours=9))),
        "list": [1, ["x", {"a": None}], 1.5],
        "in": {"a": {"b": []}},
    }
    found = there_and_back(
        headers, content_type="t", content_encoding="e", delivery_mode=2, reply_to="r"
    )
    assert found.headers == {**headers, "thousand": Decimal(1000)}
    assert (found.content_type, found.content_encoding) == ("t", "e")
    assert (found.delivery_mode, found.reply_to, found.unread) == (2, "r", ())
    assert there_and_back({}).headers == {}
    assert there_and_back({"a": (1, 2)}, correlation_id=b"\xff").headers == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"n": 1 << 63}, "header 'n' holds a whole number that is beyond 64 bits; give it as text"),
        ({"n": [1, {"m": -(1 << 64)}]}, "header 'n' holds a whole number"),
        ({"n": float("nan")}, "header 'n' holds nan, for which RabbitMQ ends the connection"),
        ({"n": float("-inf")}, "header 'n' holds -inf"),
        ({"n": Decimal("12345678901.5")}, "a Decimal that is none of AMQP's"),
        ({"n": Decimal("NaN")}, "a Decimal that is none of AMQP's"),
        ({"n": Decimal("1E+999999")}, "a Decimal that is none of AMQP's"),
        ({"n": {1}}, "header 'n' holds a set, for which AMQP has no type"),
        ({"n": {1: 2}}, "header 'n' holds a dict with a name of type int, which is not str"),
        ({"ü" * 128: 1}, "has a name of 256 bytes, and AMQP allows 255"),
        ({"n": "x" * 200_000}, "its headers have 200011 bytes, and AMQP's frame holds 126976"),
    ],
)
def test_what_amqp_has_no_type_for_is_said(headers: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        there_and_back(headers)


def test_depth_is_bounded() -> None:
    value: list[Any] = []
    for _ in range(30):
        value = [value]
    assert there_and_back({"n": value}).headers == {"n": value}
    with pytest.raises(ValueError, match="header 'n' is nested deeper than 32 levels"):
        there_and_back({"n": [value]})


def test_names_and_texts_of_255_bytes_at_most() -> None:
    with pytest.raises(ValueError, match="correlation_id has 256 bytes, and AMQP allows 255"):
        there_and_back({}, correlation_id="x" * 256)
    assert there_and_back({"n" * 255: 1}, message_id="x" * 255).message_id == "x" * 255


def test_at_random_what_is_written_is_what_is_read() -> None:
    random = Random(3)

    def value(depth: int) -> Any:
        kind = random.randrange(9 if depth < 5 else 7)
        match kind:
            case 0:
                return random.choice(("", "ü", "x" * 500))
            case 1:
                return random.randbytes(random.randrange(5)) + b"\xff"
            case 2:
                return random.choice((True, False, None))
            case 3:
                return random.randrange(-(1 << 63), 1 << 63) >> random.randrange(64)
            case 4:
                return random.uniform(-1e9, 1e9)
            case 5:
                return datetime.fromtimestamp(random.randrange(-(1 << 32), 1 << 34), UTC)
            case 6:
                return Decimal(random.randrange(-(1 << 31), 1 << 31)).scaleb(-random.randrange(9))
            case 7:
                return [value(depth + 1) for _ in range(random.randrange(4))]
            case _:
                return {
                    str(random.randrange(9)): value(depth + 1) for _ in range(random.randrange(4))
                }

    for _ in range(500):
        headers = {f"h{number}": value(0) for number in range(random.randrange(6))}
        assert there_and_back(headers, priority=random.choice((None, 3))).headers == headers
