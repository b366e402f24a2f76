"""What goes wrong with SQLite: one clear line, the right exception and code, and a connection that everybody
who shares it can use afterwards."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trunkline
from tests.support.disks import may_only_be_read, small_disk
from tests.support.statements import rows
from trunkline.errors import DialError, StatementError
from trunkline.proxy.connection import Connection

PIECE = b"x" * 4000
PAGE = 4096


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def shared(address: str) -> Iterator[tuple[Connection, Connection]]:
    """A connection, and another holder of it."""
    with trunkline.connect(address, linger=0.2) as first:
        handle = first.fd()
        assert handle
        with trunkline.connect(handle, linger=0.2) as second:
            yield first, second


def refused(code: str | None, says: str, conn: Connection, sql: str, *binds: Any) -> None:
    """The statement is refused with this code and one line."""
    with pytest.raises(StatementError, match=says) as caught:
        conn.exec(sql, *binds)
    assert "\n" not in str(caught.value)
    assert caught.value.code == code


def usable(*holders: Connection) -> None:
    for conn in holders:
        assert rows(conn, "SELECT 1") == [[1]]
        conn.exec("CREATE TABLE IF NOT EXISTS still (a)")
        conn.exec("INSERT INTO still VALUES (1)")
        with conn.transaction():
            conn.exec("DELETE FROM still")


def damage(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def fill_large(conn: Connection) -> None:
    """A table that no first part of a query holds whole."""
    conn.exec("CREATE TABLE t (a, b)")
    conn.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(5000)])


def filled(path: Path) -> Path:
    """A database of about 30 pages, whose table `t` has 200 rows."""
    plain = sqlite3.connect(path, isolation_level=None)
    plain.execute("CREATE TABLE t (a, b)")
    plain.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(200)])
    plain.close()
    return path


# statements

STRICT = "CREATE TABLE t (i INTEGER PRIMARY KEY, n INTEGER NOT NULL, p REAL CHECK (p > 0)) STRICT"


@pytest.mark.parametrize(
    ("sql", "binds", "says", "code"),
    [
        ("SELCT 1", (), 'near "SELCT": syntax error', "SQLITE_ERROR"),
        ("SELECT * FROM missing", (), "^no such table: missing$", "SQLITE_ERROR"),
        ("SELECT missing FROM t", (), "^no such column: missing$", "SQLITE_ERROR"),
        ("SELECT missing(1)", (), "^no such function: missing$", "SQLITE_ERROR"),
        (
            "INSERT INTO t VALUES (1, 2)",
            (),
            "has 3 columns but 2 values were supplied",
            "SQLITE_ERROR",
        ),
        ("INSERT INTO t VALUES (?, ?, ?)", (1, 2), "3 placeholders and 2 values were given", None),
        ("INSERT INTO t VALUES (1, 2, 3)", (1,), "no placeholders and 1 value was given", None),
        (
            "INSERT INTO t VALUES (:i, :n, 1)",
            ({"i": 1},),
            "placeholder :n and no value of that name",
            None,
        ),
        (
            "INSERT INTO t VALUES (?, ?, ?)",
            (1, None, 1),
            r"NOT NULL .*: t\.n",
            "SQLITE_CONSTRAINT_NOTNULL",
        ),
        (
            "INSERT INTO t VALUES (?, ?, ?)",
            (1, 1, -1.0),
            "CHECK constraint failed",
            "SQLITE_CONSTRAINT_CHECK",
        ),
        (
            "INSERT INTO t VALUES (?, ?, ?)",
            (9, 1, 1),
            r"UNIQUE .*: t\.i",
            "SQLITE_CONSTRAINT_PRIMARYKEY",
        ),
        ("INSERT INTO t VALUES (?, ?, ?)", ("x", 1, 1), "^datatype mismatch$", "SQLITE_MISMATCH"),
        ("INSERT INTO t VALUES (?, ?, ?)", (1, 1 << 63, 1), "more than 64 bits", None),
        ("INSERT INTO t VALUES (?, ?, ?)", (1, "\ud800", 1), "half a surrogate pair", None),
        ("SELECT abs(?)", (-(1 << 63),), "^integer overflow$", "SQLITE_ERROR"),
        ("SELECT zeroblob(2000000000)", (), "string or blob too big", "SQLITE_TOOBIG"),
        (
            "ATTACH '/nowhere/x.db' AS o",
            (),
            "nowhere/x.db: check that its folder",
            "SQLITE_CANTOPEN",
        ),
        ("SELECT load_extension('x')", (), "^not authorized$", "SQLITE_ERROR"),
        ("COMMIT TRANSACTION now", (), "shared", None),
        ("SELECT '\0'", (), "null character", None),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_a_refused_statement_is_one_line_and_disturbs_nobody(
    sql: str, binds: tuple[Any, ...], says: str, code: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with shared("sqlite3://test.db") as (conn, other):
        conn.exec(STRICT)
        conn.exec("INSERT INTO t VALUES (9, 9, 9)")
        refused(code, says, conn, sql, *binds)
        usable(conn, other)
        handle = conn.fd()
        quiet = trunkline.Dial(handle)
        assert quiet is not None
        with caplog.at_level(logging.WARNING, "trunkline"), quiet:
            assert quiet.exec(sql, *binds) is None
        (line,) = [record.getMessage() for record in caplog.records]
        assert "\n" not in line
        assert line.endswith(trunkline.last_error() or "none")
        assert rows(other, "SELECT * FROM t") == [[9, 9, 9.0]]


def test_a_value_of_the_wrong_type_in_a_strict_table() -> None:
    with shared("sqlite3://test.db") as (conn, other):
        conn.exec(STRICT)
        with pytest.raises(
            StatementError, match=r"cannot store TEXT value in INTEGER column t\.n"
        ) as caught:
            conn.exec("INSERT INTO t VALUES (?, ?, ?)", 1, "x", 1)
        assert str(caught.value.code).startswith(
            "SQLITE_CONSTRAINT"
        )  # Python 3.11 knows no more of it
        usable(conn, other)


def test_a_table_that_another_program_dropped(tmp_path: Path) -> None:
    with shared(f"sqlite3://{filled(tmp_path / 'test.db')}") as (conn, other):
        assert rows(conn, "SELECT count(*) FROM t") == [[200]]
        plain = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
        plain.execute("DROP TABLE t")
        plain.close()
        for sql in ("SELECT count(*) FROM t", "INSERT INTO t VALUES (1, 2)"):
            refused("SQLITE_ERROR", "^no such table: t$", conn, sql)
        with pytest.raises(StatementError, match=r"^no such table: t$"):
            conn.executemany("INSERT INTO t VALUES (?, ?)", [(1, 2)])
        with pytest.raises(StatementError, match=r"^no such table: t$"):
            conn.query("SELECT * FROM t")
        usable(conn, other)


def test_a_table_that_a_query_reads_cannot_be_dropped_by_any_holder(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    with shared(f"sqlite3://{path}") as (conn, other):
        fill_large(conn)
        with conn.query("SELECT * FROM t") or [] as found:
            next(found)
            refused(
                "SQLITE_LOCKED",
                "not all read; read it to the end or close it",
                other,
                "DROP TABLE t",
            )
            refused("SQLITE_ERROR", "not all read; read it to the end or close it", other, "VACUUM")
            assert sum(1 for _ in found) == 4999
        other.exec("DROP TABLE t")
        usable(conn, other)


def test_a_query_keeps_other_programs_from_writing_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    with shared(f"sqlite3://{path}") as (conn, other):
        fill_large(conn)
        plain = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            with conn.query("SELECT * FROM t") or [] as found:
                next(found)
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    plain.execute("INSERT INTO t VALUES (1, 2)")
                other.exec("INSERT INTO t VALUES (1, 2)")
            plain.execute("INSERT INTO t VALUES (3, 4)")
        finally:
            plain.close()
        usable(conn, other)


def test_with_wal_a_query_lets_others_write_and_its_own_connection_sees_the_old_state(
    tmp_path: Path,
) -> None:
    path = tmp_path / "test.db"
    with shared(f"sqlite3://{path}?_journal=WAL") as (conn, other):
        fill_large(conn)
        plain = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            with conn.query("SELECT * FROM t") or [] as found:
                next(found)
                plain.execute("INSERT INTO t VALUES (1, 2)")
                assert rows(other, "SELECT count(*) FROM t") == [[5000]]
                refused(
                    "SQLITE_BUSY_SNAPSHOT",
                    "end that and try again",
                    other,
                    "INSERT INTO t VALUES (3, 4)",
                )
            assert rows(other, "SELECT count(*) FROM t") == [[5001]]
        finally:
            plain.close()
        usable(conn, other)


# disks


def test_a_full_disk_is_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk") as disk,
        shared(f"sqlite3://{disk.folder}/test.db") as (conn, other),
    ):
        conn.exec("CREATE TABLE t (a, b)")
        conn.exec("INSERT INTO t VALUES (0, ?)", PIECE)
        disk.fill(conn)
        says = rf"full: there is no space left for {disk.folder}/test\.db"
        refused("SQLITE_FULL", says, conn, "INSERT INTO t VALUES (1, zeroblob(2000000))")
        with pytest.raises(StatementError, match=says) as caught:
            conn.executemany("INSERT INTO t VALUES (?, ?)", [(n, PIECE) for n in range(500)])
        assert caught.value.code == "SQLITE_FULL"
        with pytest.raises(StatementError, match="full"), conn.transaction():  # noqa: PT012 (the block is what is tested)
            conn.exec("UPDATE t SET a = 5")
            conn.exec("INSERT INTO t VALUES (1, zeroblob(2000000))")
        for holder in (conn, other):
            assert rows(holder, "SELECT a FROM t") == [[0]]
        disk.free(conn)
        assert conn.executemany("INSERT INTO t VALUES (?, ?)", [(n, PIECE) for n in range(10)])
        assert rows(other, "SELECT count(*) FROM t") == [[11]]
        usable(conn, other)


def test_a_full_disk_with_a_write_ahead_log(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        address = f"sqlite3://{disk.folder}/test.db?_journal=WAL"
        with shared(address) as (conn, other):
            conn.exec("CREATE TABLE t (a)")
            disk.fill(conn)
            refused(
                "SQLITE_FULL", "no space left", conn, "INSERT INTO t VALUES (zeroblob(2000000))"
            )
            assert rows(other, "SELECT * FROM t") == []
            disk.free(conn)
            usable(conn, other)


def test_a_file_and_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = filled(folder / "test.db")
    with may_only_be_read(folder):
        with shared(f"sqlite3://{path}") as (conn, other):
            says = "readonly database: .* cannot be written; check its permissions"
            refused("SQLITE_READONLY", says, conn, "INSERT INTO t VALUES (1, 2)")
            with pytest.raises(StatementError, match=says):
                conn.executemany("INSERT INTO t VALUES (?, ?)", [(1, 2)])
            for holder in (conn, other):
                assert rows(holder, "SELECT count(*) FROM t") == [[200]]
        with pytest.raises(DialError, match=r"no file can be made in .*; check its permissions"):
            trunkline.connect(f"sqlite3://{folder}/new.db")


# files


def special(folder: Path, kind: str) -> Path:
    path = folder / "test.db"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("test.db")  # relative, for its path must be short
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "text":
        path.write_text("no database, " * 1000)
    elif kind == "compressed":
        path.write_bytes(gzip.compress(os.urandom(5000)))
    elif kind == "damaged header":
        damage(filled(path), 0, b"\xa5" * 100)
    elif kind == "damaged schema":
        damage(filled(path), 100, b"\xa5" * 3000)
    elif kind == "cut off":
        os.truncate(filled(path), 2 * PAGE)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("folder", "it is a folder; name a file in it"),
        ("pipe", "it is a device, a pipe or a socket; name a file"),
        ("socket", "it is a device, a pipe or a socket; name a file"),
        ("device", "it is a device, a pipe or a socket; name a file"),
        ("text", "not an SQLite database, or an encrypted one; check the name"),
        ("compressed", "not an SQLite database, or an encrypted one; check the name"),
        ("damaged header", "not an SQLite database, or an encrypted one; check the name"),
        ("damaged schema", "is damaged; restore a copy, or try the .recover command of sqlite3"),
        ("cut off", "is damaged; restore a copy, or try the .recover command of sqlite3"),
    ],
)
def test_what_is_no_database_is_refused_when_it_is_dialled(
    tmp_path: Path, kind: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = special(tmp_path, kind)
    with trunkline.connect("sqlite3://:memory:") as undisturbed:
        with caplog.at_level(logging.WARNING, "trunkline"):
            assert trunkline.Dial(f"sqlite3://{path}") is None
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == trunkline.last_error()
        assert f"cannot open {path}: " in line
        assert says in line
        assert "\n" not in line
        assert rows(undisturbed, "SELECT 1") == [[1]]


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "test.db").touch()
    with shared("sqlite3://test.db") as holders:
        usable(*holders)


def test_a_page_that_is_damaged_hides_no_other_table(tmp_path: Path) -> None:
    path = filled(tmp_path / "test.db")
    plain = sqlite3.connect(path, isolation_level=None)
    plain.execute("CREATE TABLE whole (a)")
    plain.close()
    damage(path, 10 * PAGE, b"\xa5" * PAGE)
    with shared(f"sqlite3://{path}") as (conn, other):
        refused(
            "SQLITE_CORRUPT",
            "malformed: .*test.db is damaged; restore a copy",
            conn,
            "SELECT sum(a) FROM t",
        )
        with pytest.raises(StatementError, match="is damaged"):
            list(conn.query("SELECT a FROM t") or [])
        assert conn.stats().queries == 0
        conn.executemany("INSERT INTO whole VALUES (?)", [(1,), (2,)])
        assert rows(other, "SELECT sum(a) FROM whole") == [[3]]
        usable(conn, other)


def test_a_file_that_is_damaged_while_it_is_open(tmp_path: Path) -> None:
    path = filled(tmp_path / "test.db")
    header = path.read_bytes()[:100]
    with shared(f"sqlite3://{path}") as (conn, other):
        assert rows(conn, "SELECT count(*) FROM t") == [[200]]
        damage(path, 0, b"\xa5" * 100)
        for holder in (conn, other):
            refused("SQLITE_NOTADB", "is not an SQLite database", holder, "SELECT count(*) FROM t")
        damage(path, 0, header)
        assert rows(other, "SELECT count(*) FROM t") == [[200]]
        usable(conn, other)


def test_a_file_that_was_moved_away_while_it_was_open(tmp_path: Path) -> None:
    path = filled(tmp_path / "test.db")
    with shared(f"sqlite3://{path}") as (conn, other):
        assert rows(conn, "SELECT count(*) FROM t") == [[200]]
        path.rename(tmp_path / "moved.db")
        says = "was moved or deleted while it was open; dial it again"
        refused("SQLITE_READONLY_DBMOVED", says, conn, "INSERT INTO t VALUES (1, 2)")
        (tmp_path / "moved.db").rename(path)
        usable(conn, other)
