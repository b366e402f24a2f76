"""Type objects, descriptions, and the constructors of values."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from trunkline import dbapi
from trunkline.db.types import described


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", dbapi.STRING),
        (b"x", dbapi.BINARY),
        (1, dbapi.NUMBER),
        (1.5, dbapi.NUMBER),
        (True, dbapi.NUMBER),
        (Decimal(1), dbapi.NUMBER),
        (datetime(2024, 1, 31), dbapi.DATETIME),
        (date(2024, 1, 31), dbapi.DATETIME),
        (timedelta(1), dbapi.DATETIME),
    ],
)
def test_a_type_code_equals_the_object_it_belongs_to_and_no_other(
    value: object, kind: dbapi.TypeObject
) -> None:
    found = described(["a"], [[value]])
    assert found is not None
    code = found[0][1]
    assert code == kind
    others = {dbapi.STRING, dbapi.BINARY, dbapi.NUMBER, dbapi.DATETIME} - {kind}
    assert not [other for other in others if code == other]


def test_a_row_id_is_a_number() -> None:
    found = described(["id", "uuid"], [[1, UUID(int=1)]])
    assert found is not None
    assert found[0][1] == dbapi.ROWID
    assert found[1][1] != dbapi.ROWID


def test_the_first_value_that_is_not_null_tells_the_type() -> None:
    assert described(["a", "b"], [[None, None], [None, "x"]]) == [
        ("a", None, None, None, None, None, None),
        ("b", str, None, None, None, None, None),
    ]


def test_no_columns_are_no_description() -> None:
    assert described([], []) is None
    assert described(["a"], []) == [("a", None, None, None, None, None, None)]


def test_the_constructors() -> None:
    assert dbapi.Date(2024, 1, 31) == date(2024, 1, 31)
    assert dbapi.Time(1, 2, 3).isoformat() == "01:02:03"
    assert dbapi.Timestamp(2024, 1, 31, 1, 2, 3) == datetime(2024, 1, 31, 1, 2, 3)
    assert dbapi.Binary(b"x") == b"x"
    moment = datetime(2024, 1, 31, 1, 2, 3)
    ticks = time.mktime(moment.timetuple())
    assert dbapi.TimestampFromTicks(ticks) == moment
    assert dbapi.DateFromTicks(ticks) == moment.date()
    assert dbapi.TimeFromTicks(ticks) == moment.time()


def test_the_module_says_what_it_is() -> None:
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 1, "qmark")
    assert repr(dbapi.NUMBER) == "NUMBER"


def test_the_module_needs_neither_sqlalchemy_nor_pandas() -> None:
    script = (
        "import sys, trunkline.dbapi; print(*{'sqlalchemy', 'pandas', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")
