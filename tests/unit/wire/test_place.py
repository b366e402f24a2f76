"""Places in a log: what `seek` takes, and what travels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trunkline.errors import RemoteError
from trunkline.wire.place import Place


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        (0, "offset", 0),
        (1 << 40, "offset", 1 << 40),
        ("earliest", "earliest", 0),
        ("latest", "latest", 0),
        ("1970-01-01T00:00:01Z", "time", 1000),
        ("1970-01-01T00:00:01.5", "time", 1500),
        ("1970-01-01T01:00:00+01:00", "time", 0),
        (datetime(1970, 1, 1, 0, 0, 2), "time", 2000),
        (datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), "time", 2000),
    ],
)
def test_a_place_travels(given: Any, kind: str, value: int) -> None:
    place = Place.of(given, "t", 3)
    assert place == (kind, value, "t", 3)
    assert Place.from_wire([*place]) == place


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["offset", 1],
        ["offset", -1, None, None],
        ["offset", "1", None, None],
        ["newest", 0, None, None],
        ["time", True, None, None],
        ["latest", 0, 5, None],
        ["latest", 0, None, -1],
        [["latest"], 0, None, None],
    ],
)
def test_what_is_no_place_is_refused(fields: list[Any]) -> None:
    with pytest.raises(RemoteError, match="malformed SEEK"):
        Place.from_wire(fields)
