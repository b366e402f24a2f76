"""Headers of a message that is written, as AMQP has them, and in words what it has no type for.

pika writes no floating point numbers, and says of what it cannot write which bytes it had so far. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from pika import BasicProperties

__all__ = ["WrittenProperties", "encode_table"]

_MAX_DEPTH = 32
"""Tables and lists in one another, the headers themselves included: as deep as they are read."""
_MAX_NAME = 255
_MOST_BYTES = 128 * 1024 - 4 * 1024
"""A message's headers and other properties go in one frame, of RabbitMQ's 128 KiB."""
_INT, _LONG, _DOUBLE = struct.Struct(">ci"), struct.Struct(">cq"), struct.Struct(">cd")
_LENGTH, _SIZED, _DECIMAL = struct.Struct(">I"), struct.Struct(">cI"), struct.Struct(">cBi")
_INT_MOST, _LONG_MOST = (1 << 31) - 1, (1 << 63) - 1


class WrittenProperties(BasicProperties):  # type: ignore[misc]
    """pika's, with our encoder for the headers. ValueError, in words, for what cannot be written."""

    def encode(self) -> list[bytes]:
        headers, others = self.headers, BasicProperties()
        vars(others).update({**vars(self), "headers": None})
        for name, value in vars(others).items():
            if isinstance(value, (str, bytes)) and len(_bytes(value)) > _MAX_NAME:
                raise ValueError(
                    f"{name} has {len(_bytes(value))} bytes, and AMQP allows {_MAX_NAME}"
                )
        pieces: list[bytes] = others.encode()
        if headers is None:
            return pieces
        flags = int.from_bytes(pieces[0], "big") | BasicProperties.FLAG_HEADERS
        # Behind the flags stand the values in the order of their flags: two texts may precede the headers.
        before = 1 + 2 * sum(
            value is not None for value in (self.content_type, self.content_encoding)
        )
        table = encode_table(headers)
        if len(table) > _MOST_BYTES:
            raise ValueError(
                f"its headers have {len(table)} bytes, and AMQP's frame holds {_MOST_BYTES}"
            )
        return [flags.to_bytes(2, "big"), *pieces[1:before], table, *pieces[before:]]


def encode_table(table: Mapping[str, Any]) -> bytes:
    """A header table with its length. ValueError names the header that cannot be written."""
    return _table(table, 0, "")


def _table(table: Mapping[Any, Any], depth: int, inside: str) -> bytes:
    content = b"".join(_item(name, value, depth, inside) for name, value in table.items())
    return _LENGTH.pack(len(content)) + content


def _item(name: Any, value: Any, depth: int, inside: str) -> bytes:
    where = inside or f"header {str(name)[:50]!r}"
    if not isinstance(name, str):
        raise ValueError(
            f"{where} holds a dict with a name of type {type(name).__name__}, which is not str"
        )
    short = name.encode()
    if len(short) > _MAX_NAME:
        raise ValueError(f"{where} has a name of {len(short)} bytes, and AMQP allows {_MAX_NAME}")
    return bytes((len(short),)) + short + _value(value, depth, where)


def _value(value: Any, depth: int, where: str) -> bytes:
    if depth >= _MAX_DEPTH - 1 and isinstance(value, (Mapping, list, tuple)):
        raise ValueError(f"{where} is nested deeper than {_MAX_DEPTH} levels")
    for kinds, encode in _ENCODERS:
        if isinstance(value, kinds):
            return encode(value, depth, where)
    raise ValueError(f"{where} holds a {type(value).__name__}, for which AMQP has no type")


def _integer(value: int, where: str) -> bytes:
    if -_INT_MOST - 1 <= value <= _INT_MOST:
        return _INT.pack(b"I", value)
    if -_LONG_MOST - 1 <= value <= _LONG_MOST:
        return _LONG.pack(b"l", value)
    raise ValueError(f"{where} holds a whole number that is beyond 64 bits; give it as text")


def _float(value: float, where: str) -> bytes:
    if not isfinite(value):
        raise ValueError(
            f"{where} holds {value}, for which RabbitMQ ends the connection; give it as text"
        )
    return _DOUBLE.pack(b"d", value)


def _decimal(value: Decimal, where: str) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 10:
        number = (
            int("".join(map(str, digits)) or "0") * 10 ** max(exponent, 0) * (-1 if sign else 1)
        )
        if -_INT_MOST - 1 <= number <= _INT_MOST:
            return _DECIMAL.pack(b"D", max(-exponent, 0), number)
    raise ValueError(
        f"{where} holds a Decimal that is none of AMQP's (32 bits and a scale); give it as text"
    )


def _time(value: datetime) -> bytes:
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return _LONG.pack(b"T", int(moment.timestamp() // 1))


def _sized(letter: bytes, content: bytes) -> bytes:
    return _SIZED.pack(letter, len(content)) + content


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


_ENCODERS: tuple[tuple[Any, Callable[[Any, int, str], bytes]], ...] = (
    (str, lambda value, depth, where: _sized(b"S", value.encode())),
    (bool, lambda value, depth, where: b"t\x01" if value else b"t\x00"),
    (int, lambda value, depth, where: _integer(value, where)),
    (float, lambda value, depth, where: _float(value, where)),
    (bytes, lambda value, depth, where: _sized(b"x", value)),
    (type(None), lambda value, depth, where: b"V"),
    (Decimal, lambda value, depth, where: _decimal(value, where)),
    (datetime, lambda value, depth, where: _time(value)),
    (Mapping, lambda value, depth, where: b"F" + _table(value, depth + 1, where)),
    (
        (list, tuple),
        lambda value, depth, where: _sized(
            b"A", b"".join(_value(each, depth + 1, where) for each in value)
        ),
    ),
)
