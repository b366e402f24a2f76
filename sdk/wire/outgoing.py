"""How one message is addressed, where it differs from what the address of its connection says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trunkline.errors import RefusedError, RemoteError
from trunkline.wire import utf8, values

__all__ = ["Outgoing"]


class Outgoing(NamedTuple):
    """Arguments of `Connection.write` beside the data; None: as the address says."""

    topic: str | None = None
    """Topic, subject or routing key."""
    key: str | bytes | None = None
    headers: Mapping[str, Any] | None = None
    """In place of the address's headers."""
    expiry_ms: float | None = None
    """How long the message broker keeps the message for its readers, in milliseconds."""
    reply_to: str | None = None
    """Where the writer waits for an answer."""
    correlation: str | bytes | None = None
    """By what the one who asked knows the answer."""
    answers: bool = False
    """`topic` is the `reply_to` of a message that this one answers."""
    null: bool = False
    """The message has no value at all (Kafka's tombstone); its data is empty on the way."""

    def checked(self) -> Outgoing:
        """Itself; TypeError or ValueError, in the words of `Connection.write`, for what makes no sense."""
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
        """Only what is given, so nothing for most messages; TypeError where a value cannot travel,
        RefusedError where a text is none that UTF-8 can hold, or all together is too long."""
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
        """RemoteError for what `pack` did not make."""
        try:
            found = cls(**values.unpack(data))
        except (TypeError, ValueError):
            raise RemoteError("a malformed WRITE arrived") from None
        for value, kinds in zip(found, _KINDS, strict=True):
            if not isinstance(value, kinds):
                raise RemoteError("a malformed WRITE arrived")
        return found

    def fields(self) -> frozenset[str]:
        """The names of what is given, as `StreamDriver.addressing` names them."""
        return frozenset(
            name
            for name, value in zip(_NAMES, self, strict=True)
            if value is not None and value is not False
        )


_MOST_BYTES = 60_000
"""It travels to the worker in a header, which has 65,535 bytes at most."""
_LONGEST_EXPIRY_MS = (1 << 32) - 1
"""What an AMQP and an MQTT message can say at most is at least this."""
_GIVEN: tuple[tuple[type, ...], ...] = (
    (str,),
    (str, bytes),
    (Mapping,),
    (int, float),
    (str,),
    (str, bytes),
)
_SPOKEN = {"correlation": "correlation_id"}
"""Fields as users know them, where that is not their name."""
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
