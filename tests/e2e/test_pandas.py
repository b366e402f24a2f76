"""pandas on Trunkline's databases: through an engine, and on a connection of `trunkline.dbapi` itself."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from pandas.testing import assert_frame_equal

import trunkline
from tests.servers.mariadb import MariaDb
from tests.servers.postgres import Postgres
from trunkline import dbapi

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 60.0
EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_TESTED = "ignore:pandas only supports SQLAlchemy:UserWarning"


def ticks(symbol: str, rows: int) -> pd.DataFrame:
    start = pd.Timestamp("2024-02-29 12:00:00")
    return pd.DataFrame(
        {
            "symbol": [symbol] * rows,
            "price": [n / 4 for n in range(rows)],
            "size": range(rows),
            "at": [start + pd.Timedelta(seconds=n) for n in range(rows)],
        }
    )


class Frames:
    """`address` is a fixture of the subclass."""

    backend: str

    @pytest.fixture
    def base(self, address: str) -> Iterator[trunkline.Connection]:
        with trunkline.connect(address, linger=0.2) as base:
            yield base

    @pytest.fixture
    def engine(self, base: trunkline.Connection) -> Iterator[sa.Engine]:
        engine = _engine(self.backend, handle(base))
        yield engine
        engine.dispose()

    @pytest.fixture
    def table(self) -> str:
        return f"p{uuid.uuid4().hex[:12]}"

    def test_a_frame_goes_there_and_back(self, engine: sa.Engine, table: str) -> None:
        frame = ticks("eur", 500)
        assert frame.to_sql(table, engine, index=False) == 500
        back = pd.read_sql_table(table, engine)
        assert_frame_equal(back, frame, check_dtype=False)
        assert list(map(str, back.dtypes))[1:3] == ["float64", "int64"]
        assert str(back["at"].dtype).startswith("datetime64")

    def test_missing_values_are_null(self, engine: sa.Engine, table: str) -> None:
        frame = pd.DataFrame(
            {"n": [1.5, None], "s": ["a", None], "at": [pd.Timestamp("2024-01-01"), pd.NaT]}
        )
        frame.to_sql(table, engine, index=False)
        with engine.connect() as conn:
            (row,) = conn.execute(sa.text(f"SELECT n, s, at FROM {table} WHERE n IS NULL")).all()
        assert tuple(row) == (None, None, None)
        assert pd.read_sql_table(table, engine).isna().sum().tolist() == [1, 1, 1]

    def test_a_query_takes_values_and_comes_in_chunks(self, engine: sa.Engine, table: str) -> None:
        ticks("eur", 2500).to_sql(table, engine, index=False, chunksize=1000)
        query = sa.text(f"SELECT * FROM {table} WHERE size >= :size ORDER BY size")
        parts = list(pd.read_sql(query, engine, params={"size": 500}, chunksize=800))
        assert [len(part) for part in parts] == [800, 800, 400]
        assert pd.concat(parts)["size"].tolist() == list(range(500, 2500))

    def test_a_list_for_one_name_is_an_error_as_with_the_usual_libraries(
        self, engine: sa.Engine, table: str
    ) -> None:
        ticks("A", 10).to_sql(table, engine, index=False)
        sql = f"SELECT * FROM {table} WHERE symbol IN (:s)"
        with pytest.raises((sa.exc.DBAPIError, pd.errors.DatabaseError)):
            pd.read_sql(sa.text(sql), engine, params={"s": ["A", "B"]})
        with pytest.raises((sa.exc.DBAPIError, pd.errors.DatabaseError)):
            pd.read_sql(sa.text(sql.replace("IN (:s)", "<> :s")), engine, params={"s": ["A"]})
        written_out = sa.text(sql.replace("(:s)", ":s")).bindparams(
            sa.bindparam("s", None, sa.String, expanding=True)
        )
        assert len(pd.read_sql(written_out, engine, params={"s": ["A", "B"]})) == 10
        assert pd.read_sql(written_out, engine, params={"s": []}).empty

    def test_a_table_is_replaced_and_appended_to(self, engine: sa.Engine, table: str) -> None:
        ticks("eur", 10).to_sql(table, engine, index=False)
        ticks("usd", 20).to_sql(table, engine, index=False, if_exists="replace")
        ticks("chf", 5).to_sql(table, engine, index=False, if_exists="append", method="multi")
        counts = pd.read_sql(
            f"SELECT symbol, count(*) AS n FROM {table} GROUP BY symbol ORDER BY 1", engine
        )
        assert counts.to_numpy().tolist() == [["chf", 5], ["usd", 20]]
        with pytest.raises(ValueError, match="already exists"):
            ticks("eur", 1).to_sql(table, engine, index=False)

    @pytest.mark.filterwarnings(NOT_TESTED)
    def test_a_plain_connection_is_read_from(
        self, engine: sa.Engine, base: trunkline.Connection, table: str
    ) -> None:
        ticks("eur", 100).to_sql(table, engine, index=False)
        with closing(dbapi.connect(base)) as conn:
            query = f"SELECT symbol, price, size FROM {table} WHERE size < ? ORDER BY size"
            frame = pd.read_sql(query, conn, params=(50,))
            assert_frame_equal(
                frame, ticks("eur", 50)[["symbol", "price", "size"]], check_dtype=False
            )
            parts = pd.read_sql(query, conn, params=(50,), chunksize=20)
            assert [len(part) for part in parts] == [20, 20, 10]
            with pytest.raises(dbapi.ProgrammingError, match="nowhere"):
                pd.read_sql("SELECT * FROM nowhere_to_be_found", conn)
            assert pd.read_sql("SELECT 1 AS one", conn)["one"].tolist() == [1]

    def test_two_processes_write_and_read_through_one_handle(
        self, base: trunkline.Connection, engine: sa.Engine, table: str
    ) -> None:
        ticks("main", 100).to_sql(table, engine, index=False)
        with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
            jobs = [
                pool.submit(append, self.backend, handle(base), table, name)
                for name in ("one", "two")
            ]
            assert [job.result(WAIT_S) for job in jobs] == [500, 500]
        counts = pd.read_sql(
            f"SELECT symbol, count(*) AS n FROM {table} GROUP BY symbol ORDER BY 1", engine
        )
        assert counts.to_numpy().tolist() == [["main", 100], ["one", 500], ["two", 500]]


def append(backend: str, number: int, table: str, symbol: str) -> int:
    """In another process: write in five transactions, and read what one has written."""
    engine = _engine(backend, number)
    for _ in range(5):
        ticks(symbol, 100).to_sql(table, engine, index=False, if_exists="append")
    query = sa.text(f"SELECT * FROM {table} WHERE symbol = :symbol")
    found = len(pd.read_sql(query, engine, params={"symbol": symbol}))
    engine.dispose()
    return found


class TestSqlite(Frames):
    backend = "sqlite"

    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite3://{tmp_path}/test.db"

    @pytest.mark.filterwarnings(NOT_TESTED)
    def test_a_plain_connection_is_written_to(self, base: trunkline.Connection, table: str) -> None:
        frame = ticks("eur", 100)[["symbol", "price", "size"]]
        with closing(dbapi.connect(base)) as conn:
            frame.to_sql(table, conn, index=False)
            conn.commit()
            assert_frame_equal(pd.read_sql(f"SELECT * FROM {table}", conn), frame)


class TestPostgres(Frames):
    backend = "postgresql"

    @pytest.fixture
    def address(self, postgres: Postgres) -> str:
        return f"postgres://u:p@127.0.0.1:{postgres.port}/postgres?sslmode=disable"


class TestMysql(Frames):
    backend = "mysql"

    @pytest.fixture
    def address(self, mariadb: MariaDb) -> str:
        return f"mysql://u:p@tcp(127.0.0.1:{mariadb.port})/t"


def _engine(backend: str, number: int) -> sa.Engine:
    return sa.create_engine(f"{backend}+trunkline://", creator=lambda: dbapi.connect(number))


def handle(connection: trunkline.Connection) -> int:
    number = connection.fd()
    assert number
    return number


@pytest.mark.own_broker
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "pandas_shared.py")]
    env = {name: value for name, value in os.environ.items() if name != "TRUNKLINE_BROKER"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "EURUSD   5000" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("a part")] == [
        "a part of 2000 rows",
        "a part of 2000 rows",
        "a part of 1000 rows",
    ]
