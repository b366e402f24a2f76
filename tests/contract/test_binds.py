"""What a list, tuple, set or dict means among the values of a statement: the same on all four databases.

Each line of a table is tried through `exec`, `query` and `dbapi`, on one connection for each database.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import time
from enum import Enum
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from tests.support.postgres_side import own_schema
from trunkline import Json, dbapi
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection

DATABASES = ("sqlite3", "mysql", "postgres", "clickhouse")


class Number(Enum):
    TWO = 2


class Case:
    """One database with the table `pos` of three rows."""

    def __init__(self, name: str, conn: Connection) -> None:
        self.name = name
        self.conn = conn
        create = "CREATE TABLE {} (sym VARCHAR(20), n INTEGER)"
        if name == "clickhouse":
            create = "CREATE TABLE {} (sym Nullable(String), n Nullable(Int32)) ENGINE = Memory"
        self.table = (
            f"binds_{uuid.uuid4().hex[:12]}"  # not dropped: connections end before fixtures do
        )
        conn.exec(create.format(self.table))
        conn.executemany(
            f"INSERT INTO {self.table} VALUES (?, ?)", [("BTC", 1), ("ETH", 2), ("XRP", 3)]
        )

    def statement(self, condition: str) -> str:
        return f"SELECT n FROM {self.table} WHERE {condition} ORDER BY n"


@pytest.fixture(params=DATABASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with _address(request) as address, trunkline.connect(address, linger=0.2) as conn:
        yield Case(request.param, conn)


class _address:
    """An empty database of the kind that is asked for."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request
        self.schema: Any = None

    def __enter__(self) -> str:
        name = self.request.param
        if name == "sqlite3":
            return "sqlite3://:memory:"
        if name == "mysql":
            mariadb: MariaDb = self.request.getfixturevalue("mariadb")
            return f"mysql://u:p@tcp({mariadb.address})/t"
        if name == "postgres":
            postgres: Postgres = self.request.getfixturevalue("postgres")
            self.schema = own_schema(postgres)
            return (
                f"postgres://u:p@{postgres.address}/postgres?search_path={self.schema.__enter__()}"
            )
        clickhouse: ClickHouse = self.request.getfixturevalue("clickhouse")
        return f"clickhouse://u:p@{clickhouse.address}/default"

    def __exit__(self, *problem: object) -> None:
        if self.schema is not None:
            self.schema.__exit__(*problem)


FOUND: list[tuple[str, tuple[Any, ...], list[int]]] = [
    # a tuple, or a list of the right length, is the list of values
    ("n = ?", ((1,),), [1]),
    ("n <> ?", ((1,),), [2, 3]),
    ("n = ? OR n = ?", ([1, 2],), [1, 2]),
    ("n = ? OR n = ?", ((1, 2),), [1, 2]),
    ("n = ? OR n = ?", (np.array([1, 2]),), [1, 2]),
    ("n = ? OR n = ?", (pd.Series([1, 2]),), [1, 2]),
    ("n = ? OR n = ?", (range(1, 3),), [1, 2]),
    ("sym = ? AND n IN (?)", (["BTC", [1, 2]],), [1]),
    # a list alone in IN is written out
    ("sym IN (?)", (["BTC", "ETH"],), [1, 2]),
    ("sym NOT IN (?)", (["BTC", "ETH"],), [3]),
    ("sym NOT IN (?)", ({"BTC", "ETH"},), [3]),
    ("sym not /* ? */ in ( ? )", (frozenset(("BTC", "ETH")),), [3]),
    ("sym NOT IN (?) AND n < ?", (["BTC"], 3), [2]),
    ("n IN (?)", ((1, 2),), [1, 2]),
    ("n IN (?)", (((1, 2),),), [1, 2]),
    ("n IN (?)", (([1, 2],),), [1, 2]),
    ("n IN (?)", (range(1, 3),), [1, 2]),
    ("n IN (?)", (np.array([1, 2]),), [1, 2]),
    ("n IN (?)", (pd.Series([1, 2]),), [1, 2]),
    ("n IN (?)", (pd.Index([1, 2]),), [1, 2]),
    ("n IN (?)", ([np.int64(1), Number.TWO],), [1, 2]),
    ("n IN (?)", (1,), [1]),
    ("n IN (?)", ([],), []),
    ("n NOT IN (?)", ([],), [1, 2, 3]),
    ("n NOT IN (?)", (set(),), [1, 2, 3]),
    ("n = 1 AND sym NOT IN (?)", ([],), [1]),
    ("n IN ?", ((1, 2),), [1, 2]),
    ("n IN ?", ((1,),), [1]),
    ("n NOT IN ?", ((1, 2),), [3]),
    ("n IN ? AND sym = ?", ((1, 2), "ETH"), [2]),
    ("n IN ? AND sym = ?", ((), "ETH"), []),
    ("(n, sym) IN (?)", ([(1, "BTC"), (2, "x")],), [1]),
    ("sym = '?' OR n IN (?) -- IN (?)", ([2, 3],), [2, 3]),
    # values of numpy and pandas
    ("n = ?", (np.int64(2),), [2]),
    ("n = ?", (np.int8(2),), [2]),
    ("n = ?", (np.array(2),), [2]),
    ("n < ?", (np.float32(1.5),), [1]),
    ("n = 1 AND ? IS NOT NULL", (np.bool_(True),), [1]),
    ("sym = ?", (np.str_("ETH"),), [2]),
    ("n = ?", (Number.TWO,), [2]),
    ("n = ?", (pd.NaT,), []),
    ("n = ?", (pd.NA,), []),
    ("n = ?", (np.datetime64("NaT"),), []),
    ("n = ?", (np.ma.masked,), []),
    ("n = ?", (np.ma.array(2, mask=False),), [2]),
    ("n = ?", (np.ma.array(2, mask=True),), []),
    ("n IN (?)", (np.ma.array([1, 2], mask=[False, True]),), [1]),
    ("sym = ?", (Json(["BTC"]),), []),
]

REFUSED: list[tuple[str, tuple[Any, ...]]] = [
    ("n = ?", ([1],)),
    ("n <> ?", ([1, 2],)),
    ("n <> ?", ((1, 2),)),
    ("n <> ?", ({1, 2},)),
    ("n <> ?", (frozenset((1,)),)),
    ("n <> ?", ([],)),
    ("n <> ?", (np.array([1]),)),
    ("n <> ?", (pd.Series([1]),)),
    ("n <> ?", (([1],),)),
    ("sym <> ?", ({"a": 1},)),
    ("sym <> ? AND n <> ?", ({"a": 1}, 1)),
    ("sym <> ? AND n <> ?", (["BTC"], 1)),
    ("sym <> ?", (["BTC"],)),
    ("sym NOT LIKE ?", (["B%"],)),
    ("n NOT IN ?", ([1, 2],)),
    ("n NOT IN (?)", ([[1, 2], [3]],)),
    ("n NOT IN (?)", ([1, [2]],)),
    ("n NOT IN (?)", ({"a": 1},)),
    ("n = ? OR n = ?", ([1, 2, 3],)),
    ("n = ? OR n = ?", ((1,),)),
]

NEVER = [
    (Fraction(1, 3), "Fraction"),
    (1j, "complex"),
    (np.complex128(1j), "complex128"),
    ((n for n in (1, 2)), "generator"),
    ({"a": 1}.keys(), "dict_keys"),
    (pd.DataFrame({"a": [1]}), "DataFrame"),
    (pd.Timestamp("2024-01-31 10:00:00.000000001"), "nanoseconds"),
    (np.datetime64("2024-01-31T10:00:00.000000001"), "nanoseconds"),
    (pd.Timedelta(1, "ns"), "nanoseconds"),
]


def _ways(case: Case, cursor: Any) -> list[Callable[..., Any]]:
    def run(sql: str, *binds: Any) -> Any:
        return (case.conn.exec(sql, *binds) or {})["values"]

    def stream(sql: str, *binds: Any) -> Any:
        return list(case.conn.query(sql, *binds) or [])

    def python(sql: str, *binds: Any) -> Any:
        alone = len(binds) == 1 and isinstance(binds[0], dict)
        return [list(row) for row in cursor.execute(sql, binds[0] if alone else binds).fetchall()]

    return [run, stream, python]


def test_a_list_among_the_values_has_one_meaning(case: Case) -> None:
    with closing(dbapi.connect(case.conn)) as base:
        for condition, binds, expected in FOUND:
            for way in _ways(case, base.cursor()):
                found = way(case.statement(condition), *binds)
                assert found == [[n] for n in expected], (condition, binds, way)
    if case.name in ("postgres", "clickhouse"):
        sql = case.statement("n IN ($2) AND n <> $1")
        assert (case.conn.exec(sql, 2, [1, 2, 3]) or {})["values"] == [[1], [3]]
    if case.name == "sqlite3":
        sql = case.statement("n IN (:them) AND sym <> :not")
        assert (case.conn.exec(sql, {"them": [1, 2], "not": "BTC"}) or {})["values"] == [[2]]
        with pytest.raises(StatementError, match="a list stands where one value does"):
            case.conn.exec(case.statement("n <> :them"), {"them": [1, 2]})


def test_a_list_where_one_value_stands_is_refused(case: Case) -> None:
    with closing(dbapi.connect(case.conn)) as base:
        for condition, binds in REFUSED:
            run, stream, python = _ways(case, base.cursor())
            for way, error in (
                (run, StatementError),
                (stream, StatementError),
                (python, dbapi.Error),
            ):
                with pytest.raises(error) as caught:
                    way(case.statement(condition), *binds)
                said = getattr(caught.value, "code", None) is not None  # by the server
                assert (
                    said
                    or "stands where one value does" in str(caught.value)
                    or "given" in str(caught.value)
                ), (condition, binds, str(caught.value))
    assert len((case.conn.exec(case.statement("n > 0")) or {})["values"]) == 3


JOINED = [
    ("n = ?1 OR n = 1?", (2, 2)),
    ("n = 1?", (0,)),
    ("n = 1.?", (0,)),
    ("sym <> 'B'?", ("TC",)),
    ("sym <> 'B' ?", ("TC",)),
    ("sym <> 'B'\n?", ("TC",)),
    ("sym <> ??", ("B", "TC")),
    ("sym <> ? ?", ("B", "TC")),
    ("sym <> E?", ("\\' OR 1 = 1 -- ",)),
]
"""A value beside something that it is no part of."""


def test_a_value_never_grows_together_with_its_neighbour(case: Case) -> None:
    for condition, binds in JOINED:
        for way in (case.conn.exec, lambda *given: list(case.conn.query(*given) or [])):
            with pytest.raises(StatementError):
                way(case.statement(condition), *binds)
    assert (case.conn.exec(f"SELECT n FROM {case.table} ORDER BY n LIMIT?", 2) or {})["values"] == [
        [1],
        [2],
    ]
    case.conn.executemany(
        f"INSERT INTO {case.table} (sym, n) VALUES (?, ?)", [("SOL", 4), ("ADA", 5)]
    )
    assert (case.conn.exec(case.statement("n =?OR n=?"), 4, 5) or {})["values"] == [[4], [5]]
    with pytest.raises(StatementError):
        case.conn.executemany(
            f"INSERT INTO {case.table} (sym, n) VALUES (?, 1?)", [("SOL", 4), ("ADA", 5)]
        )


def test_a_cast_is_of_the_whole_number(postgres: Postgres) -> None:
    with trunkline.connect(f"postgres://u:p@{postgres.address}/postgres") as conn:
        found = conn.exec("SELECT ?::text, $2::bigint, ? ::int2".replace("?", "$1"), -5, -(2**63))
        assert (found or {})["values"] == [["-5", -(2**63), -5]]
        assert (conn.exec("SELECT ?::smallint", -32768) or {})["values"] == [[-32768]]


def test_a_time_of_day_without_an_offset_is_refused(case: Case) -> None:
    with pytest.raises(StatementError, match="time of day"):
        case.conn.exec("SELECT ?", time(1, 2, tzinfo=ZoneInfo("America/New_York")))
    with pytest.raises(StatementError, match=r"surrogate|U\+D800"):
        case.conn.exec("SELECT '\ud800'")


def test_a_value_without_a_meaning_in_sql_is_refused_in_words(case: Case) -> None:
    sql = case.statement("n <> ?")
    with closing(dbapi.connect(case.conn)) as base:
        for value, word in NEVER:
            with pytest.raises((TypeError, ValueError), match=word):
                case.conn.exec(sql, value)
            with pytest.raises(dbapi.ProgrammingError, match=word):
                base.cursor().execute(sql, (value,))


def test_many_rows_keep_the_rule(case: Case) -> None:
    insert = f"INSERT INTO {case.table} VALUES (?, ?)"
    for wrong in (["a"], {"a": 1}, {"a"}, ("a",)):
        with pytest.raises(StatementError, match=r"stands where one value does|are wanted, not"):
            case.conn.executemany(insert, [("x", 8), (wrong, 9)])
    case.conn.executemany(insert, [(pd.NA, np.int64(4)), (np.str_("y"), 5)])
    assert (case.conn.exec(case.statement("n > 3")) or {})["values"] == [[4], [5]]
    records = pd.DataFrame({"sym": ["v", "w"], "n": [6, 7]}).to_records(index=False)
    case.conn.executemany(insert, records)
    assert (case.conn.exec(case.statement("n > 5")) or {})["values"] == [[6], [7]]
    with closing(dbapi.connect(case.conn)) as base:
        records["n"] = [8, 9]
        base.cursor().executemany(insert, records)
        base.cursor().execute(insert, records[0])
        base.commit()
    assert (case.conn.exec(case.statement("n > 7")) or {})["values"] == [[8], [8], [9]]
    if case.name != "clickhouse":
        case.conn.executemany(
            f"DELETE FROM {case.table} WHERE n IN (?)", [([1, 2],), ((3,),), ([],)]
        )
        assert (case.conn.exec(case.statement("n > 0 AND n < 6")) or {})["values"] == [[4], [5]]


def test_pandas_with_a_plain_connection_has_the_same_rule(case: Case) -> None:
    with closing(dbapi.connect(case.conn)) as base, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = pd.read_sql(case.statement("n IN (?)"), base, params=[[1, 2]])
        assert list(frame.iloc[:, 0]) == [1, 2]
