"""Reads a message as MQTT sends it (PUBLISH), so no message can stop the messages behind it.

No I/O.

paho's own decoder ends the link for an unknown or repeated property, and for odd text. A retained
message, or an unacknowledged one, then comes again on each link. The decoder here leaves out
unreadable properties and names them in `unread`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Publish", "Unreadable", "read_publish"]

_AGAIN, _QOS, _KEPT = 0x08, 0x06, 0x01
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_PROPERTIES = {
    1: ("payload_format", "byte"),
    2: ("message_expiry", "u32"),
    3: ("content_type", "text"),
    8: ("reply_to", "address"),
    9: ("correlation_data", "binary"),
    11: ("subscription_id", "varint"),
    35: ("topic_alias", "u16"),
    38: ("user property", "pair"),
}
_OTHERS = {
    **dict.fromkeys((23, 25, 36, 37, 40, 41, 42), "byte"),
    **dict.fromkeys((19, 33, 34), "u16"),
    **dict.fromkeys((17, 24, 39), "u32"),
    **dict.fromkeys((18, 21, 26, 28, 31), "text"),
    22: "binary",
}
"""Properties of other packets. The layout tells where a property ends."""
_MOST_NAMED = 5


class Unreadable(ValueError):
    """The place of the message in the packet cannot be found.

    `number`: its packet id, 0 for none.
    """

    def __init__(self, text: str, qos: int, number: int = 0) -> None:
        super().__init__(text)
        self.qos = qos
        self.number = number


@dataclass(slots=True)
class Publish:
    """The contents of a packet. Names and texts that are not UTF-8 have replacement characters."""

    number: int
    """The packet id; 0 with QoS 0."""
    qos: int
    again: bool
    kept: bool
    topic: str
    payload: bytes
    headers: dict[str, Any] | None = None
    """MQTT 5's user properties; a name that occurs more than once has a list of values."""
    reply_to: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    """The other properties of MQTT 5, by Trunkline's names."""
    unread: list[str] = field(default_factory=list)
    """Names of properties that could not be read."""


def read_publish(head: int, body: bytes, *, v5: bool) -> Publish:
    """Read a packet.

    `head`: its first byte. `body`: the bytes behind its length. Raises Unreadable.
    """
    qos = (head & _QOS) >> 1
    if qos == 3:
        raise Unreadable("a message with QoS 3", qos)
    reading = _Reading(body, 0, len(body))
    number = 0
    try:
        topic = _text(reading.counted())
        if qos:
            number = reading.u16()
        found = Publish(number, qos, bool(head & _AGAIN), bool(head & _KEPT), topic, b"")
        if v5:
            length = reading.varint()
            _read_properties(found, reading.part(length))
    except _Short:
        raise Unreadable("a message in a packet that is too short for it", qos, number) from None
    found.payload = body[reading.at :]
    return found


def _read_properties(found: Publish, reading: _Reading) -> None:
    """Read the properties of MQTT 5. Behind an unknown property nothing can be read, as its length
    is unknown.
    """
    name = "properties"
    try:
        while reading.at < reading.end:
            name = "properties"
            kind = reading.varint()
            name, layout = _PROPERTIES.get(kind) or (f"property {kind}", _OTHERS.get(kind, ""))
            if not layout:
                raise _Short
            value = getattr(reading, layout)()
            if value is None or kind in _OTHERS:
                _missed(found, name)
            else:
                _put(found, name, value)
    except _Short:
        _missed(found, name)


def _put(found: Publish, name: str, value: Any) -> None:
    """Store a property. Where a property must not be repeated, the first one counts."""
    if name == "user property":
        found.headers = found.headers or {}
        header, text = value
        if header not in found.headers:
            found.headers[header] = text
        elif isinstance(found.headers[header], list):
            found.headers[header].append(text)
        else:
            found.headers[header] = [found.headers[header], text]
    elif name == "subscription_id":
        found.properties.setdefault(name, []).append(value)
    elif name == "reply_to":
        found.reply_to = found.reply_to or value
    elif name != "topic_alias":
        found.properties.setdefault(name, value)


def _missed(found: Publish, name: str) -> None:
    if len(found.unread) < _MOST_NAMED and name not in found.unread:
        found.unread.append(name)


class _Short(Exception):
    """The packet is too short, or a property is unknown."""


class _Reading:
    """The bytes of a packet from `at` to `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def part(self, length: int) -> _Reading:
        """Return a reading of the next bytes; this reading goes on behind them."""
        begin = self.at
        self._pass(length)
        return _Reading(self.data, begin, self.at)

    def byte(self) -> int:
        return self._take(1)[0]

    def u16(self) -> int:
        return int(_U16.unpack(self._take(2))[0])

    def u32(self) -> int:
        return int(_U32.unpack(self._take(4))[0])

    def varint(self) -> int:
        value = 0
        for place in range(4):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value
        raise _Short

    def counted(self) -> bytes:
        return self._take(self.u16())

    binary = counted

    def text(self) -> str:
        return _text(self.counted())

    def address(self) -> str | None:
        """Return a topic for writing.

        None for invalid UTF-8, because a repaired topic would be a different topic.
        """
        try:
            return self.counted().decode()
        except UnicodeDecodeError:
            return None

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()

    def _take(self, count: int) -> bytes:
        begin = self.at
        self._pass(count)
        return self.data[begin : self.at]

    def _pass(self, count: int) -> None:
        if self.at + count > self.end:
            raise _Short
        self.at += count


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
