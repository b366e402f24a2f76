"""The exceptions of PEP 249, and the exception that stands for each error of Trunkline.

The class tree is that of PEP 249. An instance has `code`, the server's code (SQLSTATE, the number
of MySQL or ClickHouse, the name of SQLite) or None. Its `__cause__` is Trunkline's error.

The class for a refused statement follows from the code alone. So the same mistake raises the same
exception on every database: a table that does not exist is a ProgrammingError on SQLite, too.
"""

from __future__ import annotations

from trunkline.errors import (
    AddressError,
    ClosedError,
    MissingLibrary,
    RemoteError,
    StatementError,
    TrunklineError,
    Unsupported,
)

__all__ = [
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "translated",
]

TRANSACTION_OVER = "TRANSACTION_OVER"
"""Code of a statement whose transaction was over before the statement came."""


class Warning(Exception):
    """Required by PEP 249. Trunkline never raises Warning."""


class Error(Exception):
    """Base of all errors of this module."""

    code: str | int | None = None
    """The server's code for the error; None without one."""


class InterfaceError(Error):
    """The program's side refused: a closed connection, an address without a meaning."""


class DatabaseError(Error):
    """Base of errors whose cause is the database or the way to the database."""


class DataError(DatabaseError):
    """A value does not fit: too long, out of range, a division by zero."""


class OperationalError(DatabaseError):
    """A right statement failed: a lost server, a deadline, a lock, a full disk."""


class IntegrityError(DatabaseError):
    """A constraint was violated: unique, foreign key, not null, check."""


class InternalError(DatabaseError):
    """The database, or its worker, is in a state that should not occur."""


class ProgrammingError(DatabaseError):
    """The statement is wrong: its syntax, a name in it, the number of its values."""


class NotSupportedError(DatabaseError):
    """The database, or its driver, does not have the feature."""


def translated(error: TrunklineError, scheme: str) -> Error:
    """The exception that stands for an error of Trunkline from a connection of this scheme."""
    found = _kind(error, scheme)(str(error))
    found.code = error.code
    return found


def _kind(error: TrunklineError, scheme: str) -> type[Error]:
    """The class for an error of Trunkline."""
    if isinstance(error, (AddressError, MissingLibrary, ClosedError)):
        return InterfaceError
    if isinstance(error, Unsupported):
        return NotSupportedError
    if isinstance(error, RemoteError):
        return InternalError
    if type(error) is StatementError and error.code != TRANSACTION_OVER:
        return _refused(error.code, scheme)
    return OperationalError


def _refused(code: str | int | None, scheme: str) -> type[Error]:
    """The class for a refused statement, by the code of the database.

    Without a code the driver refused the statement: a wrong
    number of values, or a value that the driver cannot write.
    """
    if code is None:
        return ProgrammingError
    if isinstance(code, int):
        numbers = _CLICKHOUSE if scheme == "clickhouse" else _MYSQL
        return next((kind for kind, codes in numbers.items() if code in codes), OperationalError)
    if code.startswith("SQLITE_"):
        words = code.split("_")
        return _SQLITE.get(words[1], OperationalError)
    return _EXACT_STATES.get(code) or _STATES.get(code[:2], DatabaseError)


_STATES: dict[str, type[Error]] = {
    "08": OperationalError,
    "0A": NotSupportedError,
    "20": ProgrammingError,
    "21": ProgrammingError,
    "22": DataError,
    "23": IntegrityError,
    "24": InternalError,
    "25": InternalError,
    "26": ProgrammingError,
    "27": OperationalError,
    "28": OperationalError,
    "2B": InternalError,
    "2D": InternalError,
    "2F": InternalError,
    "34": ProgrammingError,
    "38": InternalError,
    "39": InternalError,
    "3B": InternalError,
    "3D": ProgrammingError,
    "3F": ProgrammingError,
    "40": OperationalError,
    "42": ProgrammingError,
    "44": ProgrammingError,
    "53": OperationalError,
    "54": OperationalError,
    "55": OperationalError,
    "57": OperationalError,
    "58": OperationalError,
    "F0": InternalError,
    "HV": OperationalError,
    "HY": OperationalError,
    "P0": InternalError,
    "XX": InternalError,
}
"""Classes by the first two letters of the SQLSTATE."""

_EXACT_STATES: dict[str, type[Error]] = {"40002": IntegrityError}
"""Exceptions to `_STATES`, by the whole SQLSTATE."""

_SQLITE: dict[str, type[Error]] = {
    "CONSTRAINT": IntegrityError,
    "CORRUPT": DatabaseError,
    "ERROR": ProgrammingError,
    "INTERNAL": InternalError,
    "MISMATCH": IntegrityError,
    "MISUSE": ProgrammingError,
    "NOTADB": DatabaseError,
    "NOTFOUND": InternalError,
    "RANGE": ProgrammingError,
    "TOOBIG": DataError,
}
"""Classes by the first word of SQLite's name. All other names stand for conditions that may pass.
"""


def _numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split()))


_MYSQL: dict[type[Error], frozenset[int]] = {
    # Duplicate keys, NULL in a column without NULL, foreign
    # keys, CHECK (the numbers of MySQL and MariaDB).
    IntegrityError: _numbers(
        "1022 1048 1062 1169 1215 1216 1217 1364 1451 1452 1557 1586 1761 1762 3819 4025"
    ),
    # Too long, out of range, not a date, not a number, a division by zero.
    DataError: _numbers(
        "1230 1263 1264 1265 1292 1300 1365 1366 1367 1406 1411 1416 1425 1426 1439 1441 1690 3140 3141 3156"
    ),
    # Syntax, unknown names and names in use, numbers of columns and arguments, rights.
    ProgrammingError: _numbers(
        "1007 1008 1044 1046 1049 1050 1051 1052 1054 1055 1056 1058 1059 1060 1061 1063 1064 1065 1066 1068"
        " 1072 1075 1091 1101 1102 1103 1109 1110 1111 1112 1113 1136 1140 1142 1143 1146 1147 1149 1166 1171"
        " 1179 1193 1222 1227 1231 1232 1241 1242 1247 1248 1304 1305 1318 1327 1356 1370 1582 1583 1584"
    ),
    NotSupportedError: _numbers("1178 1196 1214 1235 1286 1289 1295 1845 1846"),
    InternalError: _numbers("1030 1034 1035 1194 1195 1712"),
}

_CLICKHOUSE: dict[type[Error], frozenset[int]] = {
    IntegrityError: _numbers("349 469"),
    # Values that cannot be parsed, converted or held by their type.
    DataError: _numbers(
        "6 25 26 27 32 33 38 41 53 69 70 72 117 130 131 153 190 321 376 407 441 675 676 691"
    ),
    # Syntax, names, numbers of columns and arguments, rights.
    ProgrammingError: _numbers(
        "7 8 10 15 16 20 34 35 36 42 43 44 46 47 50 51 52 57 60 62 63 78 80 81 82 115 179 182 184 207 215 352"
        " 403 456 457 497"
    ),
    NotSupportedError: _numbers("1 48 344"),
    InternalError: _numbers("49"),
}
