"""PostgreSQL behind PgBouncer, which takes no `options` at the login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import trunkline
from tests.servers.fixtures import or_skip
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.support.statements import rows
from trunkline.errors import DialError, OperationTimeout, StatementError
from trunkline.proxy.connection import Connection


@pytest.fixture(scope="module", params=["session", "transaction"])
def bouncer(
    request: pytest.FixtureRequest, server_run: Any, postgres: Postgres
) -> Iterator[PgBouncer]:
    with or_skip():
        PgBouncer.available()
    with server_run.private(PgBouncer, server=postgres.port, mode=request.param) as server:
        yield server


def dialled(bouncer: PgBouncer, parameters: str) -> Connection:
    return trunkline.connect(f"postgres://u:p@{bouncer.address}/postgres?{parameters}", linger=0.2)


def shown(connection: Connection, name: str) -> Any:
    return rows(connection, f"SHOW {name}")[0][0]


@pytest.mark.parametrize(
    ("parameters", "name", "value"),
    [
        ("timezone=Asia/Tokyo", "timezone", "Asia/Tokyo"),
        ("datestyle=ISO,+MDY", "datestyle", "ISO, MDY"),
        ("search_path=public", "search_path", "public"),
        ("statement_timeout=54321&work_mem=123kB&geqo=off", "work_mem", "123kB"),
        ("application_name=mine", "application_name", "mine"),
        ("client_encoding=UTF8", "client_encoding", "UTF8"),
    ],
)
def test_the_settings_of_the_address_are_in_force(
    bouncer: PgBouncer, parameters: str, name: str, value: str
) -> None:
    with dialled(bouncer, parameters) as db:
        assert shown(db, name) == value
        assert [row[0] for row in db.query(f"SELECT current_setting('{name}')") or []] == [value]


def test_statements_transactions_and_deadlines_go_through(bouncer: PgBouncer) -> None:
    with dialled(bouncer, "sslmode=disable") as db:
        with db.transaction():
            assert rows(db, "SELECT $1::int + 1", 41) == [[42]]
        with pytest.raises(OperationTimeout):
            db.exec("SELECT pg_sleep(60)", timeout=200)
        assert rows(db, "SELECT 1") == [[1]]
        assert len(list(db.query("SELECT * FROM generate_series(1, 5000)") or [])) == 5000


def test_a_setting_that_there_is_not_is_told_at_the_dial(bouncer: PgBouncer) -> None:
    for parameter in ("work_mem=many", "nosuch_setting=1", "timezone=Nowhere/City"):
        with pytest.raises(DialError, match="refused the settings of the address") as caught:
            dialled(bouncer, parameter)
        assert parameter.partition("=")[0].lower() in str(caught.value).lower()


def test_an_address_s_settings_survive_a_reset(postgres: Postgres) -> None:
    address = f"postgres://u:p@{postgres.address}/postgres?work_mem=123kB&timezone=Asia/Tokyo"
    with trunkline.connect(address, linger=0.2) as db:
        for reset, expected in (
            ("RESET ALL", ("123kB", "Asia/Tokyo", "0")),
            ("DISCARD ALL", ("123kB", "Asia/Tokyo", "0")),
            ("RESET work_mem", ("123kB", "UTC", "54321ms")),
            ("SET work_mem TO DEFAULT", ("123kB", "UTC", "54321ms")),
            ("SET SESSION work_mem = DEFAULT", ("123kB", "UTC", "54321ms")),
            ("RESET TIME ZONE", ("99kB", "Asia/Tokyo", "54321ms")),
            ("SET TIME ZONE DEFAULT", ("99kB", "Asia/Tokyo", "54321ms")),
            ("SET work_mem = '77kB'", ("77kB", "UTC", "54321ms")),
        ):
            db.exec("SET work_mem = '99kB'")
            db.exec("SET timezone = 'UTC'")
            db.exec("SET statement_timeout = 54321")
            db.exec(reset)
            found = tuple(shown(db, name) for name in ("work_mem", "timezone", "statement_timeout"))
            assert found == expected, reset
        with pytest.raises(StatementError):
            db.exec("RESET nosuch_setting")
        assert rows(db, "SELECT 1") == [[1]]
