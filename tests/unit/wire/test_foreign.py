"""Values of numpy and pandas as Python's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trunkline.wire.foreign import as_python, record_values


@pytest.mark.parametrize("value", [None, 7, "text", b"x", 1.5, [1], {"a": 1}, datetime(2026, 1, 1)])
def test_pythons_own_values_are_themselves(value: Any) -> None:
    assert as_python(value) is value


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.bytes_(b"x"), b"x"),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.5], [2.5]]), [[1.5], [2.5]]),
        (np.datetime64("2026-01-02T03:04:05.000006"), datetime(2026, 1, 2, 3, 4, 5, 6)),
        (np.datetime64("2026-01-02T03:04:05.000006000"), datetime(2026, 1, 2, 3, 4, 5, 6)),
        (np.array(["2026-01-02", "NaT"], "datetime64[s]"), [datetime(2026, 1, 2), None]),
        (np.timedelta64(90, "s"), timedelta(seconds=90)),
        (np.ma.masked, None),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timestamp("2026-01-02T03:04:05Z"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (pd.Timedelta("90s"), timedelta(seconds=90)),
        (pd.Series([1, 2]), [1, 2]),
    ],
)
def test_values_of_the_libraries_become_pythons(value: Any, wanted: Any) -> None:
    found = as_python(value)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    "value",
    [np.datetime64("2026-01-02T03:04:05.000000001"), pd.Timestamp(1), pd.Timedelta(1, "ns")],
)
def test_nanoseconds_are_refused_and_not_cut(value: Any) -> None:
    with pytest.raises(ValueError, match="has nanoseconds"):
        as_python(value)


@pytest.mark.parametrize("value", [np.complex128(1j), np.longdouble(1.5), np.array([1j])])
def test_what_python_has_no_type_for_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="bind it as a number or as text"):
        as_python(value)


def test_the_values_of_a_record() -> None:
    rows = np.array([(1, "x")], dtype=[("n", "i8"), ("t", "U1")])
    assert record_values(rows[0]) == [1, "x"]
    assert record_values(rows) is None
    assert record_values((1, "x")) is None
