"""A place in a message broker's log from which reading goes on (`Connection.seek`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from trunkline.address.broker_values import seconds_of
from trunkline.errors import RemoteError

__all__ = ["Place"]

_WORDS: Final = ("earliest", "latest")
_HIGHEST: Final = (1 << 63) - 1


class Place(NamedTuple):
    """A place in the log of one topic and partition, or of all."""

    kind: str
    """`earliest`, `latest`, `offset` or `time`."""
    value: int = 0
    """The offset, or milliseconds since 1970."""
    topic: str | None = None
    """The topic; None: all topics of the connection."""
    partition: int | None = None
    """The partition; None: all partitions of the connection."""

    @classmethod
    def of(cls, offset: object, topic: object, partition: object) -> Place:
        """Make a place of the arguments of `Connection.seek`.

        Raises TypeError for an argument of a wrong type, and ValueError for a value out of range.
        """
        if topic is not None and not isinstance(topic, str):
            raise TypeError(f"seek takes the topic as str, not {type(topic).__name__}")
        if partition is not None and (
            isinstance(partition, bool) or not isinstance(partition, int)
        ):
            raise TypeError(f"seek takes the partition as int, not {type(partition).__name__}")
        if partition is not None and not 0 <= partition < 1 << 31:
            raise ValueError("seek takes a partition that is 0 or more")
        return cls(*_kind_and_value(offset), topic, partition)

    @classmethod
    def from_wire(cls, fields: list[Any]) -> Place:
        """Make a place of the fields of SEEK. Raises RemoteError where they are malformed."""
        if len(fields) != 4:
            raise RemoteError("a malformed SEEK arrived")
        place = cls(*fields)
        sound = (
            place.kind in (*_WORDS, "offset", "time")
            and type(place.value) is int
            and 0 <= place.value <= _HIGHEST
            and isinstance(place.topic, (str, type(None)))
            and (place.partition is None or (type(place.partition) is int and place.partition >= 0))
        )
        if not sound:
            raise RemoteError("a malformed SEEK arrived")
        return place


def _kind_and_value(offset: object) -> tuple[str, int]:
    """Read the first argument of `seek`: a number, a word, or a time."""
    if isinstance(offset, str) and offset in _WORDS:
        return offset, 0
    if isinstance(offset, int) and not isinstance(offset, bool):
        if not 0 <= offset <= _HIGHEST:
            raise ValueError("seek takes an offset that is 0 or more")
        return "offset", offset
    if not isinstance(offset, (str, datetime)):
        raise TypeError(
            f"seek takes an offset as int, a time or a word, not {type(offset).__name__}"
        )
    seconds = seconds_of(offset)
    if seconds is None or not 0 <= seconds * 1000 <= _HIGHEST:
        raise ValueError(
            f"seek does not take {str(offset)[:80]!r}: use an offset, 'earliest', 'latest', or a time since "
            "1970 such as '2026-01-31T12:00:00Z'"
        )
    return "time", int(seconds * 1000)
