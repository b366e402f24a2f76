"""Turns librdkafka's messages into deliveries. No I/O.

`deliveries` has a loop that runs for every message, and makes up most of the cost of reading.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from operator import methodcaller
from typing import Any

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.kafka.offsets import Positions

__all__ = ["deliveries"]

_TOMBSTONE = {"tombstone": True}
_make = tuple.__new__
_headers_of = methodcaller("headers")
"""Used instead of `message.headers()`. Where a name is not UTF-8, confluent-kafka returns a result
and sets an error at once, and CPython's specialised method call does not look at the error.
"""


def deliveries(
    batch: Iterable[Any],
    positions: Positions,
    max_size: int,
    wrong: Callable[[Any], None],
    too_large: Callable[[str, int], None],
    no_headers: Callable[[str], None],
) -> list[Delivery]:
    """Return the messages of a batch as deliveries, and enter them in `positions` as given out.

    A message that is an error goes to `wrong`. A message of more than `max_size` bytes goes to
    `too_large`. Messages of foreign partitions, and messages that were given out already, are left
    out. A message with unreadable headers is delivered without headers, and its topic goes to
    `no_headers`.
    """
    found: list[Delivery] = []
    by_topic = positions.by_topic
    for message in batch:
        if message.error() is not None:
            wrong(message)
            continue
        topic, number, offset = message.topic(), message.partition(), message.offset()
        try:
            position = by_topic[topic][number]
        except KeyError:
            continue  # the partition was taken away
        if offset < position.next:
            continue
        position.next = offset + 1
        value, key = message.value(), message.key()
        try:
            headers = _headers_of(message)
        except (SystemError, UnicodeDecodeError):
            # A name is not UTF-8. A second call would return a list with an empty slot, which
            # crashes the process.
            headers = None
            no_headers(topic)
        if value is not None and len(value) > max_size:
            too_large(topic, len(value))
            continue
        position.pending.append(offset)
        kind, milliseconds = message.timestamp()
        fields = (
            b"" if value is None else value,
            topic,
            None if key is None else _text(key),
            None if headers is None else _headers(headers),
            milliseconds / 1000 if kind else None,
            offset,
            number,
            offset < position.seen,
            None,
            _TOMBSTONE if value is None else None,
            (position, offset),
            (topic, number, offset),
        )
        found.append(_make(Delivery, fields))
    return found


def _text(raw: Any) -> Any:
    """Return `str` for valid UTF-8, otherwise the bytes."""
    if isinstance(raw, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode()
    return raw


def _headers(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the headers by name. A name that occurs more than once has a list of values."""
    found: dict[str, list[Any]] = {}
    for name, raw in pairs:
        found.setdefault(name, []).append(_text(raw))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
