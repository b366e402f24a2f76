"""The wishes of an mqtt address, checked before anything is connected. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.actors.driver import FatalError
from trunkline.address import Address
from trunkline.address.header_text import header_text

__all__ = ["ENVELOPE", "Plan", "no_target", "user_properties"]

_V5 = ("5", "5.0")
_V311 = ("3.1.1", "311", "4")
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no")
_LONGEST = 65_535
_ODD = re.compile(
    "[\0-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0, 0x11_0000, 0x1_0000)
    )
    + "]"
)
"""Control characters, and code points that Unicode never assigns. mosquitto ends the link of a
client for such letters.
"""
FOR_EVER = 0xFFFF_FFFF
ENVELOPE = 128 * 1024
"""Room in a packet for topic and properties, beside a payload of `max_size` bytes."""
_LARGEST_PACKET = 268_435_460
"""The longest packet that MQTT allows, in bytes."""
_OUTAGE_S = 300
"""Seconds for which a broker of MQTT 5 keeps the messages of a `clean` connection whose link
broke.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of one address. `repr` leaves out secrets: the will's payload and the headers."""

    topics: tuple[str, ...] = ()
    """Topics to read; none for a connection that only writes."""
    covered: tuple[str, ...] = ()
    """Topics of the address that another topic includes: a broker would send the messages twice."""
    write_topic: str | None = None
    """The topic to write to, or None."""
    qos: int = 0
    retain: bool = False
    clean: bool = True
    v5: bool = False
    session_expiry: int | None = None
    """Seconds; None: `expiry` decides."""
    will_topic: str | None = None
    will_payload: bytes = field(default=b"", repr=False)
    will_qos: int = 0
    will_retain: bool = False
    keep_alive: int = 0
    """Seconds; 0 is off."""
    retain_handling: int = 0
    """MQTT 5: when retained messages come. 0: with each subscription, 1: with a new one, 2:
    never.
    """
    no_local: bool = False
    """MQTT 5: whether this client's own messages do not come back."""
    receive_maximum: int = _LONGEST
    largest: int = _LARGEST_PACKET
    """Packets of more bytes are not accepted."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """User properties of every message that is written (MQTT 5)."""

    @property
    def persistent(self) -> bool:
        """Whether the broker keeps the session when the link breaks."""
        return self.expiry > 0 if self.v5 else not self.clean

    @property
    def expiry(self) -> int:
        """MQTT 5's session expiry, in seconds."""
        if self.session_expiry is not None:
            return self.session_expiry
        if not self.clean:
            return FOR_EVER
        return _OUTAGE_S if self.qos and self.topics else 0

    @property
    def keeps_few(self) -> bool:
        """Whether the broker keeps no more than its own queue for a busy reader: MQTT 3.1.1 cannot
        ask for more.
        """
        return bool(self.qos and self.topics) and not self.clean and not self.v5

    @staticmethod
    def promises(address: Address) -> bool:
        """Whether messages are acknowledged: with QoS 1 and 2."""
        return (address.params.get("qos") or "0") != "0"

    @staticmethod
    def is_clean(address: Address) -> bool:
        """Whether the session ends with the connection.

        `of` rejects values that are neither true nor false.
        """
        return (address.params.get("clean") or "true").lower() not in _NO

    @staticmethod
    def login(address: Address, place: int) -> tuple[str | None, str | None]:
        """Return user and password for the server at this index of `address.hosts`.

        FatalError for too long ones.
        """
        logins = address.extra.get("logins")
        user, password = logins[place] if logins else (address.user, address.password)
        for name, text in (("user", user), ("password", password)):
            if text is not None and len(text.encode()) > _LONGEST:
                raise FatalError(
                    f"the {name} has {len(text.encode())} bytes, and MQTT allows {_LONGEST}"
                )
        return user, password

    @classmethod
    def of(cls, address: Address) -> Plan:
        """Return the plan of an address. FatalError says what to change."""
        params = address.params
        v5 = _version(params)
        topics = tuple(
            address.extra.get("topics") or filter(None, params.get("topic", "").split(","))
        )
        for topic in topics:
            _check_filter(topic)
        clean = _bool(params, "clean", default=True)
        if not clean and not params.get("client_id"):
            raise FatalError(
                "clean=false needs a client_id=..., by which the broker knows the session again"
            )
        if "session_expiry" in params and not v5:
            raise FatalError("session_expiry= is of MQTT 5: give version=5")
        for name in ("retain_handling", "no_local"):
            if name in params and not v5:
                raise FatalError(f"{name}= is of MQTT 5: give version=5")
        no_local = _bool(params, "no_local", default=False)
        if no_local and any(map(_is_shared, topics)):
            raise FatalError("no_local= cannot be with $share/...: MQTT does not allow it")
        if (odd := _odd_text(params.get("client_id", ""))) is not None:
            raise FatalError(f"client_id= has {odd}")
        will_topic = params.get("will_topic") or None
        if will_topic is None and any(params.get(name) for name in _WILL):
            raise FatalError("a will needs will_topic=..., where the broker is to publish it")
        if will_topic is not None:
            _check_topic("will_topic", will_topic)
        will_payload = params.get("will_payload", "").encode()
        if len(will_payload) > _LONGEST:
            raise FatalError(
                f"will_payload= has {len(will_payload)} bytes, and MQTT allows {_LONGEST}"
            )
        return cls(
            topics=topics,
            covered=tuple(
                t for t in dict.fromkeys(topics) if any(_covers(o, t) for o in topics if o != t)
            ),
            write_topic=_write_topic(params, topics),
            qos=_count(params, "qos", 2),
            retain=_bool(params, "retain", default=False),
            clean=clean,
            v5=v5,
            session_expiry=_count(params, "session_expiry", FOR_EVER)
            if "session_expiry" in params
            else None,
            will_topic=will_topic,
            will_payload=will_payload,
            will_qos=_count(params, "will_qos", 2),
            will_retain=_bool(params, "will_retain", default=False),
            keep_alive=min(_LONGEST, -(-int(address.option("pingInterval")) // 1000)),
            retain_handling=_count(params, "retain_handling", 2),
            no_local=no_local,
            receive_maximum=_receive_maximum(address, topics),
            largest=min(_LARGEST_PACKET, int(address.option("max_size")) + ENVELOPE),
            headers=_headers(address, v5),
        )


def _receive_maximum(address: Address, topics: tuple[str, ...]) -> int:
    """Return how many messages may be unacknowledged (MQTT 5).

    The limit is the number of packet ids: a broker may drop queued messages, but no messages
    already sent. With shared topics the limit is the length of the buffer, because other clients
    may read the rest.
    """
    if any(map(_is_shared, topics)):
        return max(1, min(_LONGEST, int(address.option("buffer"))))
    return _LONGEST


_WILL = ("will_payload", "will_qos", "will_retain")


def _version(params: Mapping[str, str]) -> bool:
    """Whether the address asks for MQTT 5."""
    version = params.get("version") or _V311[0]
    if version not in (*_V5, *_V311):
        raise FatalError(
            f"version={version[:20]} is none of MQTT that is known here: give 3.1.1 or 5"
        )
    return version in _V5


def _write_topic(params: Mapping[str, str], topics: tuple[str, ...]) -> str | None:
    """Return the given topic to write to, else the first topic that can be written to."""
    if given := params.get("write_topic"):
        _check_topic("write_topic", given)
        return given
    return next(
        (topic for topic in topics if not _has_wildcard(topic) and not _is_shared(topic)), None
    )


def _has_wildcard(topic: str) -> bool:
    return "+" in topic or "#" in topic


def _is_shared(topic: str) -> bool:
    return topic.startswith("$share/")


def _covers(pattern: str, other: str) -> bool:
    """Whether the pattern brings all messages of the other filter."""
    if _is_shared(pattern) or _is_shared(other) or (other[0] == "$" and _has_wildcard(pattern[0])):
        return False
    levels, others = pattern.split("/"), other.split("/")
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(others) or others[place] == "#" or level not in ("+", others[place]):
            return False
    return len(levels) == len(others)


def _odd_text(text: str) -> str | None:
    """Return the fault of a text in MQTT, or None.

    A broker may end the link for such a text, and with the link all waiting calls.
    """
    found = _ODD.search(text)
    if found is not None:
        return f"the character U+{ord(found[0]):04X}, for which a broker may end the link"
    if len(text.encode()) > _LONGEST:
        return f"{len(text.encode())} bytes, and MQTT allows {_LONGEST}"
    return None


def no_target(topic: str) -> str | None:
    """Return why a topic cannot be written to, or None."""
    if _has_wildcard(topic):
        return "it has a wildcard, and a message goes to one topic: write its name out"
    if _is_shared(topic):
        return "$share/group/topic is for reading: write to the topic alone"
    if topic.split("/")[0] == "$SYS":
        return "$SYS is the broker's own: mosquitto ends the link of who writes there"
    odd = _odd_text(topic)
    return None if odd is None else f"it has {odd}"


def _check_topic(name: str, topic: str) -> None:
    if (why := no_target(topic)) is not None:
        raise FatalError(f"{name}={topic[:50]!r} is no topic to write to: {why}")


def _check_filter(topic: str) -> None:
    """Raise FatalError for a topic filter that MQTT does not allow."""
    if (odd := _odd_text(topic)) is not None:
        raise FatalError(f"topic= is no MQTT topic: it has {odd}")
    levels = topic.split("/")
    if _is_shared(topic) and (
        len(levels) < 3 or not levels[1] or _has_wildcard(levels[1]) or not levels[2:]
    ):
        raise FatalError(f"topic={topic} is no shared subscription: write $share/group/topic")
    for place, level in enumerate(levels):
        if _has_wildcard(level) and (len(level) > 1 or (level == "#" and place < len(levels) - 1)):
            raise FatalError(
                f"topic={topic} has a misplaced wildcard: + stands for one whole level, # for all at the end"
            )


def _headers(address: Address, v5: bool) -> tuple[tuple[str, str], ...]:
    """Return the headers as user properties.

    On ws+mqtt and wss+mqtt headers belong to the handshake.
    """
    given = address.option("headers") or {}
    if not given or "+" in address.scheme:
        return ()
    if not v5:
        raise FatalError(
            "headers= need MQTT 5, whose messages have user properties: give version=5"
        )
    try:
        return tuple(user_properties(given))
    except ValueError as error:
        raise FatalError(f"headers= cannot be sent: {error}") from None


def user_properties(headers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return headers as MQTT 5 has them; a list stands for a name with several values.

    ValueError says in words what cannot be sent.
    """
    items = [
        (name, header_text(name, value))
        for name, values in headers.items()
        for value in _values(values)
    ]
    for name, value in items:
        if (odd := _odd_text(name) or _odd_text(value)) is not None:
            raise ValueError(f"header {name[:50]!r} has {odd}")
    return items


def _values(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _bool(params: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Read a parameter that is true or false."""
    value = params.get(name, "").lower()
    if not value:
        return default
    if value not in (*_YES, *_NO):
        raise FatalError(f"{name}={value[:20]} is neither true nor false")
    return value in _YES


def _count(params: Mapping[str, str], name: str, most: int) -> int:
    """Read a parameter that is a whole number up to `most`."""
    value = params.get(name) or "0"
    if not (value.isascii() and value.isdigit()) or int(value[:20]) > most:
        raise FatalError(f"{name}={value[:20]} is no whole number from 0 to {most}")
    return int(value)
