"""Reads the properties of a message as AMQP sends them, so no message can stop the messages behind
it.

pika's own decoder raises for values that it does not know or cannot hold (a time after the year
9999, NaN, endlessly nested tables). The broker then sends the message again on each link. The
decoder here never raises: an unreadable part is left out and named in `unread`. It never reads
beyond the length of a container.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pika import BasicProperties
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.frame import Header

__all__ = ["AmqpConnection", "Properties", "read_properties"]

MAX_DEPTH = 32
"""How deep tables and lists may be nested; deeper ones are left out."""
_MOST_NAMED = 5
"""How many unreadable parts are named."""
_HEADER_FRAME, _BASIC = 2, 60
_FRAME_HEAD, _HEADER_HEAD, _FRAME_END = struct.Struct(">BHL"), struct.Struct(">HHQ"), 0xCE
_LENGTH, _WORD, _LONG = struct.Struct(">I"), struct.Struct(">H"), struct.Struct(">q")
_MORE_FLAGS = 1
_FIELDS = (
    ("content_type", "text"),
    ("content_encoding", "text"),
    ("headers", "table"),
    ("delivery_mode", "byte"),
    ("priority", "byte"),
    ("correlation_id", "text"),
    ("reply_to", "text"),
    ("expiration", "text"),
    ("message_id", "text"),
    ("timestamp", "time"),
    ("type", "text"),
    ("user_id", "text"),
    ("app_id", "text"),
    ("cluster_id", "text"),
)
"""In the order of their flags, from bit 15 down. The values follow in the same order."""
_NUMBERS = {
    ord(kind): struct.Struct(layout)
    for kind, layout in (
        ("b", ">b"),
        ("B", ">B"),
        ("U", ">h"),
        ("s", ">h"),  # RabbitMQ's letter
        ("u", ">H"),
        ("I", ">i"),
        ("i", ">I"),
        ("L", ">q"),
        ("l", ">q"),  # signed, as in RabbitMQ
        ("f", ">f"),
        ("d", ">d"),
    )
}
_DECIMAL = struct.Struct(">Bi")


class Properties(BasicProperties):  # type: ignore[misc]
    """pika's properties, with the bytes that they were read from."""

    __slots__ = ("raw", "unread")  # slots, because `vars` must hold the properties only

    raw: bytes
    unread: tuple[str, ...]
    """The names of headers and properties that could not be read, or only in part."""


class AmqpConnection(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, with the decoder above for the frame that holds a message's properties."""

    def _read_frame(self) -> Any:
        """Take a header frame of a message off pika's buffer; leave all other frames to pika."""
        data = self._frame_buffer
        if len(data) < _FRAME_HEAD.size or data.startswith(b"AMQP"):
            return super()._read_frame()
        kind, channel, size = _FRAME_HEAD.unpack_from(data)
        if size > self.params.frame_max:
            raise ValueError(f"a frame of {size} bytes where {self.params.frame_max} are agreed")
        end = _FRAME_HEAD.size + size
        if kind != _HEADER_FRAME or end >= len(data) or data[end] != _FRAME_END:
            return super()._read_frame()
        class_id, _, body_size = _HEADER_HEAD.unpack_from(data, _FRAME_HEAD.size)
        if class_id != _BASIC:
            return super()._read_frame()
        properties = read_properties(data[_FRAME_HEAD.size + _HEADER_HEAD.size : end])
        return end + 1, Header(channel, body_size, properties)


def read_properties(data: bytes) -> Properties:
    """Return the properties in `data`: the bytes of a header frame behind the size of the body.

    Never raises.
    """
    found = Properties()
    reading = _Reading(bytes(data))
    for name, value in reading.properties():
        setattr(found, name, value)
    found.raw, found.unread = reading.data, tuple(dict.fromkeys(reading.unread))
    return found


class _Unreadable(Exception):
    """The rest of the present container cannot be read."""


class _Reading:
    """One pass over the bytes. `_end` is where the innermost container ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.unread: list[str] = []
        self._at, self._end = 0, len(data)
        self._depth = 0

    def properties(self) -> Iterator[tuple[str, Any]]:
        """Yield name and value of each property, up to the first unreadable one."""
        name = "properties"
        try:
            flags = self._flags()
            for number, (name, kind) in enumerate(_FIELDS):
                if flags & (1 << (15 - number)):
                    yield name, self._field(kind)
        except _Unreadable:
            self._missed(name)

    def _flags(self) -> int:
        """Read the flags that say which properties follow."""
        flags: int = self._number(_WORD)
        word = flags
        while word & _MORE_FLAGS:
            word = self._number(_WORD)  # flags of properties outside the standard
        return flags

    def _field(self, kind: str) -> Any:
        """Read a property of the given kind."""
        if kind == "table":
            return self._table()
        if kind == "text":
            return _text(self._take(self._byte()))
        return self._byte() if kind == "byte" else self._number(_LONG)

    def _table(self) -> dict[str, Any]:
        """Read a table. Behind an unreadable value the rest of the table is left out."""
        found: dict[str, Any] = {}
        with self._container():
            while self._at < self._end:
                name = "?"
                try:
                    name = _name(self._take(self._byte()))
                    found[name] = self._value(name)
                except _TooDeep:
                    self._missed(name)
                except _Unreadable:
                    self._missed(name)
                    break
        return found

    def _list(self, name: str) -> list[Any]:
        """Read a list. Behind an unreadable value the rest of the list is left out."""
        found: list[Any] = []
        with self._container():
            while self._at < self._end:
                try:
                    found.append(self._value(name))
                except _TooDeep:
                    self._missed(name)
                except _Unreadable:
                    self._missed(name)
                    break
        return found

    @contextmanager
    def _container(self) -> Iterator[None]:
        """Enter a container, whose length is read first.

        Afterwards the place is behind the container.

        A length beyond the outer container is cut at its end, and the loss is noted.
        """
        length, outer = self._number(_LENGTH), self._end
        inner = self._at + length
        cut = inner > outer
        if self._depth >= MAX_DEPTH:
            self._at = min(inner, outer)
            raise _Unreadable if cut else _TooDeep
        self._end = min(inner, outer)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._at, self._end = self._end, outer
        if cut:
            self._missed("headers")

    def _value(self, name: str) -> Any:
        """Read a value, which begins with the letter of its type."""
        kind = self._byte()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        match chr(kind):
            case "S":
                return _text(self._take(self._number(_LENGTH)))
            case "x":
                return self._take(self._number(_LENGTH))
            case "t":
                return bool(self._byte())
            case "T":
                return _time(self._number(_LONG))
            case "F":
                return self._table()
            case "A":
                return self._list(name)
            case "D":
                decimals, raw = self._numbers(_DECIMAL)
                return Decimal(raw).scaleb(-decimals)
            case "V":
                return None
        raise _Unreadable

    def _missed(self, name: str) -> None:
        if len(self.unread) < _MOST_NAMED:
            self.unread.append(name)

    # bytes

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        """Return the next `count` bytes; _Unreadable beyond the end of the container."""
        begin, self._at = self._at, self._at + count
        if self._at > self._end:
            raise _Unreadable
        return self.data[begin : self._at]

    def _number(self, layout: struct.Struct) -> Any:
        return self._numbers(layout)[0]

    def _numbers(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._take(layout.size))


class _TooDeep(_Unreadable):
    """A table or list is nested too deep; the reading place is behind it now."""


def _text(data: bytes) -> str | bytes:
    """Return `str` for valid UTF-8, otherwise the bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _name(data: bytes) -> str:
    return data.decode(errors="replace")


def _time(seconds: int) -> datetime | int:
    """Return the time, or the number where `datetime` cannot hold it, such as milliseconds in place
    of seconds.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds
