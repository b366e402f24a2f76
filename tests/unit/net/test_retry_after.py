"""`Retry-After`, and its way from the driver to the program."""

from __future__ import annotations

import msgpack
import pytest

from trunkline.actors.driver import FatalError
from trunkline.actors.net.retry_after import read_retry_after
from trunkline.errors import DialError, DialTimeout, from_wire, to_wire

NOW = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT"""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("6", 6.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("1.5", 2.0),
        ("0.001", 1.0),
        ("5, 9", 9.0),
        ("9,5.2", 9.0),
        ("9" * 400, 366 * 86_400.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        ("-5", None),
        ("1.", None),
        ("5s", None),
        ("5,", None),
        ("soon", None),
        ("\u0665", None),
        ("Sun, 99 Nov 1994 08:50:07 GMT", None),
    ],
)
def test_seconds_and_the_three_forms_of_a_date(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, now=NOW) == seconds


def test_a_date_is_counted_from_the_date_of_the_answer() -> None:
    value, date = "Sun, 06 Nov 1994 08:50:07 GMT", "Sun, 06 Nov 1994 08:50:00 GMT"
    assert read_retry_after(value, now=NOW, date=date) == 7.0
    assert read_retry_after(value, now=NOW, date="no date") == 30.0


@pytest.mark.parametrize("kind", [DialError, FatalError, DialTimeout])
def test_it_travels_with_the_error(kind: type[DialError]) -> None:
    sent = kind("refused", code=429, retry_after_s=6.0)
    wire = msgpack.unpackb(msgpack.packb(to_wire(sent)))
    got = from_wire(wire)
    assert isinstance(got, DialError)
    assert (got.code, got.retry_after_s) == (429, 6.0)
    silent = from_wire(to_wire(kind("refused")))
    assert isinstance(silent, DialError)
    assert silent.retry_after_s is None
