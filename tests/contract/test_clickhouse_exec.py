"""clickhouse passes the contract of databases but for transactions: plain, over TLS, and compressed."""

from __future__ import annotations

import pytest

import trunkline
from tests.servers.clickhouse import ClickHouse
from trunkline.errors import StatementError
from trunkline.proxy.connection import Connection
from trunkline.testing.contracts import StatementContract, rows


class TestClickhouse(StatementContract):
    slow = "SELECT count() FROM system.numbers"
    series = "SELECT number + 1, 'row' FROM system.numbers LIMIT {count}"
    create = "CREATE TABLE {table} (id Int64, name Nullable(String)) ENGINE = MergeTree ORDER BY id"
    delete = "ALTER TABLE {table} DELETE WHERE id > 1"
    error_code = 62

    @pytest.fixture
    def address(self, clickhouse: ClickHouse) -> str:
        return f"clickhouse://u:p@{clickhouse.address}/default"

    def test_there_are_no_transactions(self, conn: Connection) -> None:
        with pytest.raises(StatementError, match="no transactions"), conn.transaction():
            raise AssertionError
        assert rows(conn, "SELECT 1") == [[1]]

    def test_a_list_of_rows_is_inserted_as_a_block(
        self, conn: Connection, table: str, address: str
    ) -> None:
        given = [(1, "a"), (2, None)]
        for sql in (f"INSERT INTO {table} VALUES", f"INSERT INTO {table} (id, name)"):
            assert conn.exec(sql, given) == {"columns": [], "values": [], "affected": 2}
        with trunkline.connect(address) as other:
            found = rows(other, f"SELECT id, name FROM {table} ORDER BY id")
        assert found == [[1, "a"], [1, "a"], [2, None], [2, None]]


class TestClickhouseOverTls(TestClickhouse):
    @pytest.fixture
    def address(self, clickhouse: ClickHouse) -> str:
        place = f"127.0.0.1:{clickhouse.ports['tls']}"
        return f"clickhouse://u:p@{place}/default?secure=true&skip_verify=true"


class TestClickhouseCompressed(TestClickhouse):
    """The seed's form of the address."""

    @pytest.fixture
    def address(self, clickhouse: ClickHouse) -> str:
        return f"clickhouse://tcp://{clickhouse.address}?username=u&password=p&database=default&compress=lz4"
