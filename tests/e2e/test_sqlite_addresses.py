"""What a sqlite3 address asks for is really in force: a sample per parameter, asked from SQLite itself.

That each address of `dsn_cases.json` is understood as go-sqlite3 does stands in tests/unit.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import trunkline
from tests.e2e.test_sqlite import kill_worker
from tests.support.statements import rows
from tests.support.waiting import Background, until
from trunkline.errors import AddressError, DialError, StatementError
from trunkline.proxy.connection import Connection

CASES = [
    case
    for case in json.loads((Path(__file__).parent.parent / "data" / "dsn_cases.json").read_text())
    if case["scheme"] == "sqlite3" and case["dial"] and not case["valid"]
]
DEFAULTS = {
    "auto_vacuum": 0, "busy_timeout": 5000, "cache_size": -2000, "foreign_keys": 0,
    "ignore_check_constraints": 0, "journal_mode": "delete", "locking_mode": "normal", "query_only": 0,
    "recursive_triggers": 0, "synchronous": 1, "writable_schema": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def existing(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's own connection to `test.db`, which has a table `t` with one row."""
    plain = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    plain.execute("CREATE TABLE t (a)")
    plain.execute("INSERT INTO t VALUES (1)")
    yield plain
    plain.close()


def one(conn: Connection, sql: str, *binds: Any) -> Any:
    return rows(conn, sql, *binds)[0][0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["dsn"])
def test_an_address_that_go_refuses_is_refused(case: Any) -> None:
    with pytest.raises((AddressError, DialError)) as caught:
        trunkline.connect(case["dial"])
    assert "\n" not in str(caught.value)


def test_pragmas_in_the_words_of_the_other_driver_and_unknown_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pragmas = "_pragma=foreign_keys(1)&_pragma=busy_timeout%3D77&_pragma=journal_mode(WAL)&_foriegn_keys=0"
    with trunkline.connect(f"sqlite3://test.db?{pragmas}") as conn:
        assert [
            one(conn, f"PRAGMA {name}") for name in ("foreign_keys", "busy_timeout", "journal_mode")
        ] == [
            1,
            77,
            "wal",
        ]
        until(lambda: "did you mean '_foreign_keys'" in caplog.text, "the line in the log")
    assert caplog.text.count("is not known, and ignored") == 1
    with trunkline.connect("sqlite3://test.db?_pragma=jurnal_mode(DELETE)") as conn:
        assert one(conn, "PRAGMA journal_mode") == "wal"
        until(lambda: "_pragma=jurnal_mode" in caplog.text, "the line in the log")
    assert "did you mean 'journal_mode'" in caplog.text


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_holds_without_parameters(name: str) -> None:
    with trunkline.connect("sqlite3://test.db") as conn:
        assert one(conn, f"PRAGMA {name}") == DEFAULTS[name]


@pytest.mark.parametrize(
    ("parameter", "pragma", "found"),
    [
        ("_auto_vacuum=incremental", "auto_vacuum", 2),
        ("_vacuum=full", "auto_vacuum", 1),
        ("_busy_timeout=1234", "busy_timeout", 1234),
        ("_timeout=0", "busy_timeout", 0),
        ("_foreign_keys=on", "foreign_keys", 1),
        ("_fk=1", "foreign_keys", 1),
        ("_ignore_check_constraints=1", "ignore_check_constraints", 1),
        ("_journal_mode=WAL", "journal_mode", "wal"),
        ("_journal=TRUNCATE", "journal_mode", "truncate"),
        ("_locking_mode=EXCLUSIVE", "locking_mode", "exclusive"),
        ("_locking=exclusive", "locking_mode", "exclusive"),
        ("_query_only=true", "query_only", 1),
        ("_recursive_triggers=yes", "recursive_triggers", 1),
        ("_rt=1", "recursive_triggers", 1),
        ("_secure_delete=FAST", "secure_delete", 2),
        ("_secure_delete=0", "secure_delete", 0),
        ("_synchronous=EXTRA", "synchronous", 3),
        ("_sync=off", "synchronous", 0),
        ("_writable_schema=1", "writable_schema", 1),
        ("_cache_size=-777", "cache_size", -777),
        ("_sync=2&_synchronous=0&_mutex=no&_auth_user=u&unknown=1", "synchronous", 2),
    ],
)
def test_a_pragma_of_the_address_is_in_force(parameter: str, pragma: str, found: Any) -> None:
    with trunkline.connect(f"sqlite3://test.db?{parameter}") as conn:
        assert one(conn, f"PRAGMA {pragma}") == found


@pytest.mark.parametrize("name", ["_case_sensitive_like", "_cslike"])
def test_like_minds_the_case_where_asked(name: str) -> None:
    for value, found in (("1", 0), ("0", 1)):
        with trunkline.connect(f"sqlite3://:memory:?{name}={value}") as conn:
            assert one(conn, "SELECT 'A' LIKE 'a'") == found


def test_foreign_keys_refuse_what_has_no_parent() -> None:
    with trunkline.connect("sqlite3://test.db?_fk=1") as conn:
        conn.exec("CREATE TABLE p (a INTEGER PRIMARY KEY); CREATE TABLE c (a REFERENCES p)")
        with pytest.raises(StatementError, match="FOREIGN KEY constraint failed"):
            conn.exec("INSERT INTO c VALUES (1)")


def test_defer_foreign_keys_is_accepted_and_over_at_the_first_commit() -> None:
    """SQLite resets it at each commit, and so it is in Go too."""
    with trunkline.connect("sqlite3://test.db?_defer_fk=1&_fk=1") as conn:
        assert one(conn, "PRAGMA defer_foreign_keys") == 0


@pytest.mark.parametrize(
    ("lock", "reads", "writes"),
    [("deferred", True, True), ("immediate", True, False), ("exclusive", False, False)],
)
def test_txlock_says_what_a_transaction_locks(
    existing: sqlite3.Connection, lock: str, reads: bool, writes: bool
) -> None:
    existing.execute("PRAGMA busy_timeout = 0")
    with trunkline.connect(f"sqlite3://test.db?_txlock={lock}") as conn, conn.transaction():
        for sql, allowed in (("SELECT * FROM t", reads), ("INSERT INTO t VALUES (2)", writes)):
            try:
                existing.execute(sql).fetchall()
                done = True
            except sqlite3.OperationalError:
                done = False
            assert done == allowed, sql


def test_the_busy_timeout_is_how_long_a_lock_is_waited_for(existing: sqlite3.Connection) -> None:
    existing.execute("BEGIN IMMEDIATE")
    with (
        trunkline.connect("sqlite3://test.db?_busy_timeout=60000") as patient,
        trunkline.connect("sqlite3://test.db?_busy_timeout=100") as hasty,
    ):
        waiting = Background(lambda: patient.exec("INSERT INTO t VALUES (2)"))
        with pytest.raises(
            StatementError, match="database is locked: another program holds it"
        ) as caught:
            hasty.exec("INSERT INTO t VALUES (3)")
        assert caught.value.code == "SQLITE_BUSY"
        assert waiting.running()
        existing.execute("COMMIT")
        assert waiting.result()
    assert existing.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]


def test_exclusive_locking_keeps_other_programs_out(existing: sqlite3.Connection) -> None:
    existing.execute("PRAGMA busy_timeout = 0")
    with trunkline.connect("sqlite3://test.db?_locking=EXCLUSIVE") as conn:
        conn.exec("INSERT INTO t VALUES (2)")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            existing.execute("SELECT * FROM t")


@pytest.mark.parametrize(
    ("loc", "zone"),
    [("UTC", UTC), ("US%2FCentral", ZoneInfo("US/Central")), ("auto", None), ("Local", None)],
)
def test_loc_is_the_zone_of_what_is_read(loc: str, zone: Any) -> None:
    moment = datetime(2024, 7, 31, 10, tzinfo=UTC)
    with trunkline.connect(f"sqlite3://test.db?_loc={loc}") as conn:
        conn.exec("CREATE TABLE z (a TIMESTAMP)")
        conn.executemany("INSERT INTO z VALUES (?)", [(moment,)] * 200)
        found = [row[0] for row in conn.query("SELECT a FROM z") or []]
    assert len(found) == 200
    assert {(value, value.utcoffset()) for value in found} == {
        (moment, moment.astimezone(zone).utcoffset())
    }


@pytest.mark.parametrize("size", [0, 1, 500])
def test_a_cache_of_statements_of_any_size_works(size: int) -> None:
    with trunkline.connect(f"sqlite3://:memory:?_stmt_cache_size={size}") as conn:
        assert [one(conn, f"SELECT {n % 7} + ?", n) for n in range(20)] == [
            n % 7 + n for n in range(20)
        ]


# what only SQLite itself reads, after `file:`


def test_a_file_that_may_only_be_read(existing: sqlite3.Connection) -> None:
    for query in ("mode=ro", "immutable=1"):
        with trunkline.connect(f"sqlite3://file:test.db?{query}") as conn:
            assert rows(conn, "SELECT a FROM t") == [[1]]
            with pytest.raises(
                StatementError, match=r"readonly database: .* cannot be written"
            ) as caught:
                conn.exec("INSERT INTO t VALUES (2)")
            assert str(caught.value.code).startswith("SQLITE_READONLY")


def test_mode_rw_makes_no_file_and_rwc_does(tmp_path: Path) -> None:
    with pytest.raises(
        DialError, match="there is no such file, and mode=rw makes none; mode=rwc does"
    ):
        trunkline.connect("sqlite3://file:new.db?mode=rw")
    with trunkline.connect("sqlite3://file:new.db?mode=rwc") as conn:
        conn.exec("CREATE TABLE t (a)")
    assert (tmp_path / "new.db").stat().st_size > 0


def test_without_file_the_query_is_not_for_sqlite(tmp_path: Path) -> None:
    """As in Go: everything from the `?` on is cut off, and `mode=memory` makes a file all the same."""
    with trunkline.connect("sqlite3://plain.db?mode=memory&cache=shared") as conn:
        conn.exec("CREATE TABLE t (a)")
    assert (tmp_path / "plain.db").exists()


def test_a_name_with_signs_that_mean_something_in_an_address(tmp_path: Path) -> None:
    for address, name in (
        ("sqlite3://file:a%20b%3Fc.db", "a b?c.db"),
        ("sqlite3://ü 100%.db", "ü 100%.db"),
        ("sqlite3://?_fk=1", "?_fk=1"),
    ):
        with trunkline.connect(address) as conn:
            conn.exec("CREATE TABLE t (a)")
        assert (tmp_path / name).exists(), os.listdir(tmp_path)


def test_memory_without_a_name_is_shared_by_its_handle() -> None:
    """Two connections are two processes; see test_sqlite_memory.py for those with a name."""
    address = "sqlite3://file:named?mode=memory"
    with trunkline.connect(address, linger=0.2) as first, trunkline.connect(address) as apart:
        first.exec("CREATE TABLE t (a)")
        with pytest.raises(StatementError, match="no such table"):
            apart.exec("SELECT * FROM t")
        handle = first.fd()
        assert handle
        with trunkline.connect(handle) as second:
            assert rows(second, "SELECT count(*) FROM t") == [[0]]


def test_another_vfs(tmp_path: Path) -> None:
    for address in ("sqlite3://file:vfs.db?vfs=unix-none", "sqlite3://vfs.db?vfs=unix-none"):
        with trunkline.connect(address) as conn:
            conn.exec("CREATE TABLE IF NOT EXISTS t (a)")
    assert (tmp_path / "vfs.db").exists()
    with trunkline.connect("sqlite3://file:/named?vfs=memdb") as conn:
        conn.exec("CREATE TABLE t (a)")
    assert not (tmp_path / "named").exists()


def test_settings_are_applied_again_where_a_worker_was_replaced(tmp_path: Path) -> None:
    address = "sqlite3://test.db?_fk=1&_cache_size=-777&_timeout=1234&_query_only=1"
    with trunkline.connect(address) as conn:
        before = kill_worker(conn)
        assert [one(conn, f"PRAGMA {name}") for name in ("foreign_keys", "cache_size", "busy_timeout")] == [
            1, -777, 1234,
        ]  # fmt: skip
        assert conn.stats().pid != before
        with pytest.raises(StatementError, match="_query_only"):
            conn.exec("CREATE TABLE t (a)")
