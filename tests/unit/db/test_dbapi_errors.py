"""Which PEP 249 exception stands for which of Trunkline's errors."""

from __future__ import annotations

import pickle

import pytest

from trunkline import dbapi, errors
from trunkline.db.errors import translated
from trunkline.errors import StatementError, TrunklineError


@pytest.mark.parametrize(
    ("scheme", "code", "kind"),
    [
        ("postgres", "22001", dbapi.DataError),
        ("postgres", "22012", dbapi.DataError),
        ("postgres", "23505", dbapi.IntegrityError),
        ("postgres", "40002", dbapi.IntegrityError),
        ("postgres", "40001", dbapi.OperationalError),
        ("postgres", "42P01", dbapi.ProgrammingError),
        ("postgres", "42501", dbapi.ProgrammingError),
        ("postgres", "26000", dbapi.ProgrammingError),
        ("postgres", "0A000", dbapi.NotSupportedError),
        ("postgres", "08006", dbapi.OperationalError),
        ("postgres", "53100", dbapi.OperationalError),
        ("postgres", "57014", dbapi.OperationalError),
        ("postgres", "58030", dbapi.OperationalError),
        ("postgres", "25P02", dbapi.InternalError),
        ("postgres", "XX000", dbapi.InternalError),
        ("postgres", "ZZ999", dbapi.DatabaseError),
        ("mysql", 1062, dbapi.IntegrityError),
        ("mysql", 1452, dbapi.IntegrityError),
        ("mysql", 4025, dbapi.IntegrityError),
        ("mysql", 1406, dbapi.DataError),
        ("mysql", 1264, dbapi.DataError),
        ("mysql", 1064, dbapi.ProgrammingError),
        ("mysql", 1146, dbapi.ProgrammingError),
        ("mysql", 1054, dbapi.ProgrammingError),
        ("mysql", 1235, dbapi.NotSupportedError),
        ("mysql", 1034, dbapi.InternalError),
        ("mysql", 1205, dbapi.OperationalError),
        ("mysql", 1213, dbapi.OperationalError),
        ("mysql", 2013, dbapi.OperationalError),
        ("clickhouse", 62, dbapi.ProgrammingError),
        ("clickhouse", 60, dbapi.ProgrammingError),
        ("clickhouse", 53, dbapi.DataError),
        ("clickhouse", 469, dbapi.IntegrityError),
        ("clickhouse", 48, dbapi.NotSupportedError),
        ("clickhouse", 49, dbapi.InternalError),
        ("clickhouse", 241, dbapi.OperationalError),
        ("sqlite3", "SQLITE_ERROR", dbapi.ProgrammingError),
        ("sqlite3", "SQLITE_CONSTRAINT_UNIQUE", dbapi.IntegrityError),
        ("sqlite3", "SQLITE_MISMATCH", dbapi.IntegrityError),
        ("sqlite3", "SQLITE_TOOBIG", dbapi.DataError),
        ("sqlite3", "SQLITE_BUSY_SNAPSHOT", dbapi.OperationalError),
        ("sqlite3", "SQLITE_FULL", dbapi.OperationalError),
        ("sqlite3", "SQLITE_CORRUPT_VTAB", dbapi.DatabaseError),
        ("sqlite3", "TRANSACTION_OVER", dbapi.OperationalError),
        ("sqlite3", None, dbapi.ProgrammingError),
    ],
)
def test_a_refused_statement_is_what_its_code_says(
    scheme: str, code: str | int | None, kind: type[dbapi.Error]
) -> None:
    found = translated(StatementError("the text", code=code), scheme)
    assert type(found) is kind
    assert (str(found), found.code) == ("the text", code)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AddressError", dbapi.InterfaceError),
        ("UnknownScheme", dbapi.InterfaceError),
        ("MissingLibrary", dbapi.InterfaceError),
        ("ClosedError", dbapi.InterfaceError),
        ("DialError", dbapi.OperationalError),
        ("DialTimeout", dbapi.OperationalError),
        ("DeadHandle", dbapi.OperationalError),
        ("BrokenError", dbapi.OperationalError),
        ("WorkerDied", dbapi.OperationalError),
        ("BrokerGone", dbapi.OperationalError),
        ("OperationTimeout", dbapi.OperationalError),
        ("OutcomeUnknown", dbapi.OperationalError),
        ("Unsupported", dbapi.NotSupportedError),
        ("RemoteError", dbapi.InternalError),
    ],
)
def test_every_other_error_has_its_place(name: str, kind: type[dbapi.Error]) -> None:
    error: TrunklineError = getattr(errors, name)("what happened")
    assert type(translated(error, "sqlite3")) is kind


def test_no_error_of_ours_is_left_out() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, TrunklineError):
            assert isinstance(translated(kind("x"), "mysql"), dbapi.Error)


def test_the_tree_is_that_of_pep_249() -> None:
    assert issubclass(dbapi.Warning, Exception)
    assert not issubclass(dbapi.Warning, dbapi.Error)
    assert issubclass(dbapi.InterfaceError, dbapi.Error)
    assert not issubclass(dbapi.InterfaceError, dbapi.DatabaseError)
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert issubclass(getattr(dbapi, f"{name}Error"), dbapi.DatabaseError)
    assert issubclass(dbapi.DatabaseError, dbapi.Error)


def test_an_error_travels_with_its_code() -> None:
    error = translated(StatementError("twice", code="23505"), "postgres")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is dbapi.IntegrityError
    assert (str(again), again.code) == ("twice", "23505")
