"""Entries of a stream as messages: one field is the data, the others are headers. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trunkline.actors.driver import Delivery

__all__ = ["Entry", "delivery_of", "entries_of", "fields_of", "id_key"]

Id = tuple[int, int]
"""An entry's id as two numbers, which compare as Redis compares ids."""


class Entry(NamedTuple):
    """An entry of a stream."""

    stream: str
    id: str
    fields: Sequence[bytes] | None
    """Names and values alternately; None where the entry was deleted before it was delivered."""


def id_key(text: str | bytes) -> Id:
    """Return an id such as `1526919030474-55` as two numbers. ValueError for any other text."""
    first, _, second = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(first), int(second or 0)


def entries_of(stream: str, reply: Any) -> list[Entry]:
    """Return the entries in a part of an answer, which is a list of pairs of id and fields.

    Redis 6.2 has None in the list for a deleted entry.
    """
    return [Entry(stream, pair[0].decode(), pair[1]) for pair in reply or () if pair is not None]


def delivery_of(entry: Entry, data_field: bytes, *, group: str | None, again: bool) -> Delivery:
    """Return the entry as a message.

    The field `data_field` is the data. Without it the data is the value of the only field, or JSON
    of all fields.
    """
    fields = entry.fields or ()
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    data = next((value for name, value in pairs if name == data_field), None)
    if data is not None:
        others = [(name, value) for name, value in pairs if name != data_field]
    elif len(pairs) == 1:
        others, data = pairs, pairs[0][1]
    else:
        others, data = pairs, _as_json(pairs)
    identity = (entry.stream, entry.id)
    return Delivery(
        data,
        topic=entry.stream,
        headers=_headers(others),
        timestamp=id_key(entry.id)[0] / 1000,
        redelivered=again,
        properties={"id": entry.id},
        token=identity,
        identity=identity if group is not None else None,
    )


def fields_of(data: bytes, headers: Mapping[str, str | bytes], data_field: bytes) -> list[bytes]:
    """Return the arguments of XADD behind the id: the headers first, the data last."""
    found: list[bytes] = []
    for name, value in headers.items():
        found += (name.encode(), value.encode() if isinstance(value, str) else value)
    return [*found, data_field, data]


def _as_json(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return all fields of an entry as a JSON object."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        _put(found, name.decode(errors="replace"), value.decode(errors="replace"))
    return json.dumps(found, ensure_ascii=False).encode()


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, Any] | None:
    """Return fields as headers; None for none."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        _put(found, name.decode(errors="replace"), _text(value))
    return found or None


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    """Store a value; a name that occurs more than once has a list of values."""
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _text(value: bytes) -> str | bytes:
    """Return `str` for valid UTF-8, otherwise the bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
