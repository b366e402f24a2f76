"""What each kind of message carries: the table is whole, and what does not fit it is refused."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import RemoteError
from trunkline.wire.envelope import Kind, header, parse
from trunkline.wire.messages import LARGEST_COUNT, MESSAGES, TO_WORKER, Name, check, table_of_kinds

COUNTS = st.integers(-LARGEST_COUNT, LARGEST_COUNT)
NUMBERS = COUNTS | st.floats(allow_nan=False)
PAIRS = st.lists(st.tuples(COUNTS, COUNTS).map(list), max_size=3)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Everything that an annotation allows, in plain types."""
    known = {
        int: COUNTS,
        float: NUMBERS,
        Name: st.binary(min_size=1, max_size=20),
        list[list[int]]: PAIRS,
    }
    if hint in known:
        return known[hint]
    if parts := getattr(hint, "__args__", ()):
        return st.one_of(*map(values_of, parts))
    return st.from_type(hint)


def fields_of(message: type) -> st.SearchStrategy[list[Any]]:
    hints = [hint for name, hint in get_type_hints(message).items() if not name.startswith("_")]
    return st.tuples(*map(values_of, hints)).map(list)


def test_every_kind_is_in_the_table_and_explained() -> None:
    assert {row.kind for row in MESSAGES} == set(Kind)
    assert len({(row.kind, row.way) for row in MESSAGES}) == len(MESSAGES)
    assert all(row.fields.__doc__ for row in MESSAGES)
    assert table_of_kinds().count("\n") == len(MESSAGES) + 1


@given(
    st.sampled_from(sorted(TO_WORKER)).flatmap(
        lambda k: st.tuples(st.just(k), fields_of(TO_WORKER[k]))
    )
)
def test_what_fits_comes_through(case: tuple[Kind, list[Any]]) -> None:
    kind, fields = case
    found, _, unpacked = parse(header(kind, 0, *fields))
    check(TO_WORKER[found], unpacked)
    message = TO_WORKER[kind](*unpacked)
    assert list(message) == fields


@given(
    st.sampled_from(sorted(TO_WORKER)).flatmap(
        lambda k: st.tuples(st.just(k), fields_of(TO_WORKER[k]))
    )
)
def test_a_field_too_many_or_too_few_is_refused(case: tuple[Kind, list[Any]]) -> None:
    kind, fields = case
    for wrong in ([*fields, 0], fields[:-1]):
        if wrong != fields:
            with pytest.raises(RemoteError, match=TO_WORKER[kind].__name__):
                check(TO_WORKER[kind], wrong)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.START, [b"holder", True, 1 << 63, False, 0]),
        (Kind.START, [b"holder", True, 1.5, False, 0]),
        (Kind.START, [b"", True, 1, False, 0]),
        (Kind.START, [b"holder", True]),
        (Kind.ACK, [b"holder", -(1 << 62), 0, 0]),
        (Kind.ACK, ["holder", 1, 0, 0]),
        (Kind.READ, [b"holder", 0, 0, 0, 0, 1, False, 0, False]),
        (Kind.RECALLED, []),
        (Kind.RECALLED, [b"holder", 0, 0, 0, [[1, 1 << 60]], False]),
        (Kind.RECALLED, [b"holder", 0, 0, 0, [[1, 2, 3]], False]),
        (Kind.WRITE, [object(), True, 1.0, b""]),
        (Kind.EXEC, [b"holder", None, "soon", None]),
        (Kind.SETTLE, [True, "ack", 0]),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind, fields: list[object]) -> None:
    with pytest.raises(RemoteError, match=f"a malformed {TO_WORKER[kind].__name__} arrived"):
        check(TO_WORKER[kind], fields)


def test_counts_may_be_below_zero() -> None:
    check(TO_WORKER[Kind.ACK], [b"holder", -3, 0, 0])
