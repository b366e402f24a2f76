"""The addressing of one message, where it differs from the address of its connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trunkline.errors import RefusedError, RemoteError
from trunkline.wire import utf8, values

__all__ = ["Outgoing"]


class Outgoing(NamedTuple):
    """Arguments of `Connection.write` beside the data. None: as the address says."""

    topic: str | None = None
    """Topic, subject or routing key."""
    key: str | bytes | None = None
    headers: Mapping[str, Any] | None = None
    """Headers in place of the address's headers."""
    expiry_ms: float | None = None
    """How long the message broker keeps the message for its readers, in milliseconds."""
    reply_to: str | None = None
    """The topic on which the writer waits for an answer."""
    correlation: str | bytes | None = None
    """The mark by which the asking program recognises the answer."""
    answers: bool = False
    """The message is an answer, and `topic` is the `reply_to` of the question."""
    null: bool = False
    """The message has no value (Kafka's tombstone). Its data is empty on the way."""

    def checked(self) -> Outgoing:
        """Check the arguments, and return them.

        Raises TypeError or ValueError, in the words of `Connection.write`.
        """
        for name, value, kinds in zip(("topic", "key", "headers", "expiry_ms", "reply_to", "correlation_id"),
                                      self, _GIVEN, strict=False):  # fmt: skip
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"write takes {name} as {wanted}, not {type(value).__name__}")
        if self.topic == "" or self.reply_to == "":
            raise ValueError("write takes a topic or reply_to that is not empty")
        if self.expiry_ms is not None and not 0 < self.expiry_ms <= _LONGEST_EXPIRY_MS:
            raise ValueError(
                f"write takes expiry_ms above 0 and up to {_LONGEST_EXPIRY_MS} milliseconds"
            )
        if self.headers is not None and not all(isinstance(name, str) for name in self.headers):
            raise TypeError("write takes headers whose names are str")
        return self

    def pack(self) -> bytes:
        """Return the given arguments as bytes; b"" for none, the usual case.

        Raises TypeError for a value that cannot travel. Raises RefusedError for a text that UTF-8
        cannot hold, and for more than 60,000 bytes together.
        """
        if self == _NOTHING:
            return b""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        for name, value in given.items():
            utf8.check(value, f"the message's {_SPOKEN.get(name, name)}")
        if self.headers is not None:
            given["headers"] = dict(self.headers)
        packed = values.pack(given)
        if len(packed) > _MOST_BYTES:
            raise RefusedError(
                f"the message's topic, headers and what else stands beside its data are {len(packed)} bytes, "
                f"and {_MOST_BYTES} is the most: nothing was sent"
            )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Outgoing:
        """Make an `Outgoing` of the bytes of `pack`. Raises RemoteError for other bytes."""
        try:
            found = cls(**values.unpack(data))
        except (TypeError, ValueError):
            raise RemoteError("a malformed WRITE arrived") from None
        for value, kinds in zip(found, _KINDS, strict=True):
            if not isinstance(value, kinds):
                raise RemoteError("a malformed WRITE arrived")
        return found

    def fields(self) -> frozenset[str]:
        """The names of the given arguments, as in `StreamDriver.addressing`."""
        return frozenset(
            name
            for name, value in zip(_NAMES, self, strict=True)
            if value is not None and value is not False
        )


_MOST_BYTES = 60_000
"""The limit on `pack`: a header has 65,535 bytes at most, and these bytes travel in a header."""
_LONGEST_EXPIRY_MS = (1 << 32) - 1
"""AMQP and MQTT messages can both express this limit."""
_GIVEN: tuple[tuple[type, ...], ...] = (
    (str,),
    (str, bytes),
    (Mapping,),
    (int, float),
    (str,),
    (str, bytes),
)
_SPOKEN = {"correlation": "correlation_id"}
"""Fields whose name differs from the argument of `Connection.write`."""
_NOTHING = Outgoing()
_NAMES = Outgoing._fields
_NONE = type(None)
_KINDS: tuple[tuple[type, ...], ...] = (
    (str, _NONE),
    (str, bytes, _NONE),
    (dict, _NONE),
    (int, float, _NONE),
    (str, _NONE),
    (str, bytes, _NONE),
    (bool,),
    (bool,),
)
