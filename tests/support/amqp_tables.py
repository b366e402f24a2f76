"""Header tables of AMQP for tests, at random, as bytes: what brokers pass on and clients seldom expect."""

from __future__ import annotations

import struct
from random import Random

__all__ = ["item", "nested", "random_items"]

_DOUBLES = (0.0, -1.5, 5e-324, 64000.25)
_NO_NUMBERS = (float("nan"), float("inf"), float("-inf"))
"""Not with RabbitMQ, which knows none of these and ends the connection of who sends them."""
_ODD_TIMES = (0, 1_772_000_000, 1_772_000_000_000, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 14_256_000)
_INTEGERS = {"b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8}
_TEXTS = (b"", b"x", "grüße".encode(), b"\xff\xfe", b"a\x00b", b"\xed\xa0\x80", b"y" * 300)


def item(name: bytes, value: bytes) -> bytes:
    """One header: its name, and its value with the letter before it."""
    return bytes((len(name),)) + name + value


def nested(depth: int, letter: bytes = b"A") -> bytes:
    """Lists (or tables, `F`) in one another, so many, the innermost empty."""
    value = b""
    for level in range(depth):
        inner = value if letter == b"A" or not level else b"\x00" + value
        value = letter + struct.pack(">I", len(inner)) + inner
    return value


def random_items(random: Random, depth: int = 0, *, rabbit: bool = True) -> bytes:
    """The inside of a table: up to six headers. `rabbit`: only such as RabbitMQ takes."""
    names = (
        b"",
        b"n",
        b"at",
        "größe".encode(),
        b"\xff\xfe",
        b"n" * 255,
        b"x-death",
        b"x-delivery-count",
    )
    return b"".join(
        item(random.choice(names), _value(random, depth, rabbit))
        for _ in range(random.randrange(7))
    )


def _value(random: Random, depth: int, rabbit: bool) -> bytes:
    letters = "tbBsuIilfdDTSxV" + ("FA" if depth < 4 else "")
    letter = random.choice(letters)
    return letter.encode() + _content(random, letter, depth, rabbit)


def _content(random: Random, letter: str, depth: int, rabbit: bool) -> bytes:
    if letter in _INTEGERS:
        return random.choice((random.randbytes(_INTEGERS[letter]), b"\xff" * _INTEGERS[letter]))
    doubles = _DOUBLES if rabbit else _DOUBLES + _NO_NUMBERS
    match letter:
        case "t":
            return random.choice((b"\x00", b"\x01"))
        case "f":
            return struct.pack(">f", random.choice(doubles))
        case "d":
            return struct.pack(">d", random.choice(doubles))
        case "D":
            return random.randbytes(5)
        case "T":
            return struct.pack(">Q", random.choice(_ODD_TIMES))
        case "V":
            return b""
        case "F":
            inner = random_items(random, depth + 1, rabbit=rabbit)
        case "A":
            inner = b"".join(_value(random, depth + 1, rabbit) for _ in range(random.randrange(4)))
        case _:
            inner = random.choice(_TEXTS)
    return struct.pack(">I", len(inner)) + inner
