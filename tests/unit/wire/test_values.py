"""Every value keeps its type and itself from `pack` to `unpack`, and no bytes can do harm."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
import threading
from collections import OrderedDict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.wire.values import MAX_DEPTH, pack, unpack

ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.builds(
        timezone,
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
        st.text(min_size=1, max_size=5),
    ),
    st.sampled_from([ZoneInfo(key) for key in ("Europe/Berlin", "America/New_York", "UTC")]),
)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(1 << 300), max_value=1 << 300),
    st.floats(),
    st.decimals().filter(lambda value: not value.is_snan()),
    st.text(),
    st.text(st.characters()),  # lone surrogates too
    st.binary(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
)
KEYS = st.recursive(HASHABLE, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(KEYS, max_size=4),
        st.sets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """`value` as text that shows every type, sign and zone, so that nan and -0.0 can be compared."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted(repr(shape(item)) for item in value)
    if isinstance(value, (datetime, time)):
        return kind, repr(value), value.fold
    return kind, repr(value)


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_what_goes_in_comes_out(value: Any) -> None:
    assert shape(unpack(pack(value))) == shape(value)


EXACT: list[Any] = [
    0,
    -1,
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
    1 << 64,
    -(1 << 63) - 1,
    7**5000,
    -0.0,
    math.inf,
    -math.inf,
    Decimal("NaN"),
    Decimal("sNaN12"),
    Decimal("-Infinity"),
    Decimal("-0E+7"),
    Decimal("1E-999999"),
    Decimal("1.10"),
    Decimal("3." + "14159" * 50),
    "\U0001f600 \x00 \ud800",
    {"\udfff": ["\ud800", "ok", {"\ud801": 1}]},
    ("\ud800",),
    b"\x00\xff",
    True,
    None,
    datetime(2024, 1, 2, 3, 4, 5, 6),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=53, seconds=28), "LMT")),
    datetime.max,
    date.min,
    time(23, 59, 59, 999999, tzinfo=UTC, fold=1),
    timedelta.max,
    timedelta.min,
    UUID(int=1),
    ((), [], {}, set(), frozenset()),
    {(1, "a"): {frozenset((1, 2))}, 1.5: None, b"k": (), date(2024, 1, 1): UUID(int=0)},
    ipaddress.ip_interface("10.0.0.1/8"),
    ipaddress.ip_network("2001:db8::/32"),
    ipaddress.ip_address("fe80::1%eth0"),
]


@pytest.mark.parametrize("value", EXACT, ids=lambda value: ascii(value)[:40])
def test_a_corner_of_each_type_keeps_type_and_value(value: Any) -> None:
    assert shape(unpack(pack(value))) == shape(value)


class Side(Enum):
    BUY = "buy"
    PAIR = (1, 2)
    HUGE = 1 << 90


class Level(IntEnum):
    LOW = 1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd"), b"abcd"),
        ([memoryview(b"abcd")[::2]], [b"ac"]),
        (Side.BUY, "buy"),
        (Side.PAIR, (1, 2)),
        (Side.HUGE, 1 << 90),
        ({Level.LOW: Level.LOW}, {1: 1}),
        (Point(1, 2), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (type("Text", (str,), {})("ä"), "ä"),
        (type("Number", (float,), {})(1.5), 1.5),
        (type("Big", (int,), {})(1 << 70), 1 << 70),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_a_relative_of_a_type_arrives_as_the_type(value: Any, arrives: Any) -> None:
    assert shape(unpack(pack(value))) == shape(arrives)


class OwnZone(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None if when is None else timedelta(hours=2)

    def tzname(self, when: datetime | None) -> str:
        return "OWN"

    def dst(self, when: datetime | None) -> timedelta | None:
        return None


def test_a_foreign_zone_becomes_its_offset_with_its_name() -> None:
    there = unpack(pack(datetime(2024, 1, 1, tzinfo=OwnZone())))
    assert there == datetime(2024, 1, 1, tzinfo=OwnZone())
    assert there.tzname() == "OWN"


def test_a_time_whose_zone_needs_a_date_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a time in OwnZone cannot be sent .*; use a ZoneInfo"):
        pack(time(1, tzinfo=OwnZone()))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        (deque(), "collections.deque"),
        ([{"a": 1j}], "complex"),
        (len, "builtin_function"),
    ],
    ids=lambda value: str(type(value)),
)
def test_an_unknown_type_is_named_with_what_is_accepted(value: Any, name: str) -> None:
    with pytest.raises(
        TypeError, match=f"a value of type {name}.* cannot be sent .*accepted are None, bool"
    ):
        pack(value)


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)


@given(VALUES, st.data())
@settings(deadline=None)
def test_a_changed_byte_gives_a_value_or_a_value_error(value: Any, data: st.DataObject) -> None:
    packed = bytearray(pack(value))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        unpack(packed)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack([1, 2])[:-1],
        pack(1) + pack(2),
        b"\xdd\xff\xff\xff\xff",  # a list of 4 billion
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5000 + b"\x01",
        b"\x81\x90\x01",  # a list as a key
        b"\xa1\xff",
        msgpack.packb(msgpack.ExtType(2, b"1x")),
        msgpack.packb(msgpack.ExtType(4, b"\x07\xe8\x0d\x01" + bytes(8))),
        msgpack.packb(msgpack.ExtType(6, bytes(8) + b"zNo/Where")),
        msgpack.packb(msgpack.ExtType(6, bytes(8) + b"z../../etc/passwd")),
        msgpack.packb(msgpack.ExtType(6, bytes(8) + b"x")),
        msgpack.packb(msgpack.ExtType(8, b"short")),
        msgpack.packb(msgpack.ExtType(9, b"\x01")),
        msgpack.packb(msgpack.ExtType(9, b"\x92\x01")),
        msgpack.packb(msgpack.ExtType(9, b"\x90\x90")),
        msgpack.packb(msgpack.ExtType(10, b"\x91\x90")),
        msgpack.packb(msgpack.ExtType(12, b"\x07::1")),
        msgpack.packb(msgpack.ExtType(99, b"")),
    ],
    ids=lambda data: ascii(data)[:30],
)
def test_malformed_input_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed value on the wire"):
        unpack(data)


def test_nesting_has_an_end_on_both_sides() -> None:
    tuples: Any = ()
    lists: Any = []
    bomb = b"\xc7\x00\x09"
    for _ in range(2000):
        tuples, lists = (tuples,), [lists]
        bomb = msgpack.packb(msgpack.ExtType(9, b"\x91" + bomb))
    with pytest.raises(ValueError, match="nested deeper than 100"):
        pack(tuples)
    with pytest.raises(ValueError, match="recursion limit"):
        pack(lists)
    with pytest.raises(ValueError, match="nested deeper than 100"):
        unpack(bomb)


def test_lists_and_tuples_count_together() -> None:
    value: Any = 1
    for _ in range(50):
        value = [[[value]], {"a": (value,)}]
    with pytest.raises(ValueError, match="nested deeper than 100"):
        pack(value)


def test_deep_text_that_is_not_utf8_is_refused() -> None:
    value: Any = "\ud800"
    for _ in range(900):
        value = [value]
    with pytest.raises(ValueError, match="nested deeper than 100"):
        exec_deep(lambda: pack(value))


def exec_deep(call: Any, depth: int = 200) -> Any:
    return call() if not depth else exec_deep(call, depth - 1)


def test_a_value_that_holds_itself_is_refused() -> None:
    items: list[Any] = []
    items.append((items,))
    with pytest.raises(ValueError, match="nested deeper"):
        pack(items)


def test_the_deepest_value_fits_a_thread_with_a_small_stack() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH // 3):
        value = ({"k": [value]},)
    result: list[Any] = []
    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=lambda: result.append(unpack(pack(value)) == value))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(30)
    assert result == [True]


def test_a_timestamp_of_msgpack_is_a_datetime() -> None:
    assert unpack(msgpack.packb(msgpack.Timestamp(1, 0))) == datetime(
        1970, 1, 1, 0, 0, 1, tzinfo=UTC
    )


def test_plain_rows_never_reach_python_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a plain value took the slow way")

    monkeypatch.setattr("trunkline.wire.values._Packing.encode", refuse)
    monkeypatch.setattr("trunkline.wire.values._decode", refuse)
    rows = [[1, 1.5, "text ü", b"bytes", None], [-(1 << 63), True, "", b"", False]]
    assert unpack(pack({"columns": ["a"], "values": rows})) == {"columns": ["a"], "values": rows}
