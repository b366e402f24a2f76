"""librdkafka's messages as deliveries: no I/O. The loop runs for every message and is what reading costs."""

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
"""Not `message.headers()`: where a name is no UTF-8, confluent-kafka answers with an error and a result at
once, and Python does not look at the error in a loop that it has made fast."""


def deliveries(
    batch: Iterable[Any],
    positions: Positions,
    max_size: int,
    wrong: Callable[[Any], None],
    too_large: Callable[[str, int], None],
    no_headers: Callable[[str], None],
) -> list[Delivery]:
    """The messages with their envelopes, entered as given out. What is an error goes to `wrong`; what is
    larger than `max_size` to `too_large`; what is of no partition of ours, or was given out, is left out. One
    whose headers cannot be read comes without them, and its topic goes to `no_headers`."""
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
            continue  # of a partition that is no longer ours
        if offset < position.next:
            continue
        position.next = offset + 1
        value, key = message.value(), message.key()
        try:
            headers = _headers_of(message)
        except (SystemError, UnicodeDecodeError):
            # A name is no UTF-8. Asked again, confluent-kafka would give a list with a hole, which kills us.
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
    """`str` where it is valid UTF-8."""
    if isinstance(raw, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode()
    return raw


def _headers(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """One value, or a list of them where the name is there more than once."""
    found: dict[str, list[Any]] = {}
    for name, raw in pairs:
        found.setdefault(name, []).append(_text(raw))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
