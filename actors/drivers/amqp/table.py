"""Encodes the headers of a message that is written, and says in words which values AMQP has no type
for.

pika cannot write floating point numbers, and its errors only quote the bytes written so far. No
I/O.
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
"""How deep tables and lists may be nested, the headers included: as deep as `header` reads them."""
_MAX_NAME = 255
_MOST_BYTES = 128 * 1024 - 4 * 1024
"""The most bytes of encoded headers. Headers and other properties share one frame, of 128 KiB in
RabbitMQ.
"""
_INT, _LONG, _DOUBLE = struct.Struct(">ci"), struct.Struct(">cq"), struct.Struct(">cd")
_LENGTH, _SIZED, _DECIMAL = struct.Struct(">I"), struct.Struct(">cI"), struct.Struct(">cBi")
_INT_MOST, _LONG_MOST = (1 << 31) - 1, (1 << 63) - 1


class WrittenProperties(BasicProperties):  # type: ignore[misc]
    """pika's properties with an own encoder for the headers.

    ValueError says in words what cannot be written.
    """

    def encode(self) -> list[bytes]:
        """Return the pieces of the encoded properties. pika encodes everything but the headers."""
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
        # The values follow the flags in the order of the flags. Only two texts may stand before the
        # headers.
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
    """Return a header table with its length. ValueError names the header that cannot be written."""
    return _table(table, 0, "")


def _table(table: Mapping[Any, Any], depth: int, inside: str) -> bytes:
    content = b"".join(_item(name, value, depth, inside) for name, value in table.items())
    return _LENGTH.pack(len(content)) + content


def _item(name: Any, value: Any, depth: int, inside: str) -> bytes:
    """Encode a name with its value. `inside`: the header that the table belongs to, for error
    texts.
    """
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
    """Encode a value by the first type in `_ENCODERS` that fits."""
    if depth >= _MAX_DEPTH - 1 and isinstance(value, (Mapping, list, tuple)):
        raise ValueError(f"{where} is nested deeper than {_MAX_DEPTH} levels")
    for kinds, encode in _ENCODERS:
        if isinstance(value, kinds):
            return encode(value, depth, where)
    raise ValueError(f"{where} holds a {type(value).__name__}, for which AMQP has no type")


def _integer(value: int, where: str) -> bytes:
    """Encode a whole number in 32 or 64 bits."""
    if -_INT_MOST - 1 <= value <= _INT_MOST:
        return _INT.pack(b"I", value)
    if -_LONG_MOST - 1 <= value <= _LONG_MOST:
        return _LONG.pack(b"l", value)
    raise ValueError(f"{where} holds a whole number that is beyond 64 bits; give it as text")


def _float(value: float, where: str) -> bytes:
    """Encode a floating point number. RabbitMQ ends the connection for NaN and infinity."""
    if not isfinite(value):
        raise ValueError(
            f"{where} holds {value}, for which RabbitMQ ends the connection; give it as text"
        )
    return _DOUBLE.pack(b"d", value)


def _decimal(value: Decimal, where: str) -> bytes:
    """Encode a decimal number, for which AMQP has 32 bits and a scale of 0 to 255."""
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
