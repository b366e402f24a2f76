"""mysql passes the contract of databases, against MariaDB: plain, over TLS, and compressed."""

from __future__ import annotations

import pytest

from tests.servers.mariadb import MariaDb
from trunkline.testing.contracts import ExecContract


class TestMysql(ExecContract):
    slow = "SELECT SLEEP(600)"
    series = "SELECT seq, 'row' FROM seq_1_to_{count}"
    error_code = 1064

    @pytest.fixture
    def address(self, mariadb: MariaDb) -> str:
        return f"mysql://u:p@tcp({mariadb.address})/t"


class TestMysqlOverTls(TestMysql):
    @pytest.fixture
    def address(self, mariadb: MariaDb) -> str:
        return f"mysql://tls:p@tcp({mariadb.address})/t?tls=true|cafile={mariadb.certs.ca}"
