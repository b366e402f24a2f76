"""An SQL driver that another distribution installs: its dialect, its thread, its transient errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.distributions import install
from tests.support.waiting import until
from trunkline import Connection, connect
from trunkline.errors import OutcomeUnknown, StatementError, TrunklineError

pytestmark = pytest.mark.own_broker

_MODULE = '''
import pathlib, threading
from trunkline.actors.driver import ExecDriver, Result, StreamDriver

class Passing(Exception):
    """Of this database's library."""

class Broken(Exception):
    pass

class Noting:
    """Says in a file what is called on which thread; fails to open as another file says."""

    def note(self, what):
        with open(self.address.path + ".calls", "a") as file:
            file.write(f"{what} {threading.current_thread().name}\\n")

    def fail_as_told(self):
        self.note("open")
        plan = pathlib.Path(self.address.path + ".plan")
        first, _, rest = plan.read_text().partition("\\n")
        plan.write_text(rest)
        if first:
            raise {"passing": Passing, "broken": Broken}[first]("no link")

class Sql(Noting, ExecDriver):
    """Gives back each statement as its only row."""

    schemes = ("sql-standard",)
    transient = (Passing,)
    inside = False

    def open(self, deadline):
        self.fail_as_told()

    def execute(self, sql, binds):
        self.note("execute")
        if sql == "LOSE":
            raise ConnectionError("the server is gone")
        return Result(columns=["text"], values=[[sql]])

    def query(self, sql, binds):
        self.note("query")
        return super().query(sql, binds)

    def interrupt(self):
        pass

    def alive(self):
        self.note("alive")
        return True

    def in_transaction(self):
        self.note("in_transaction")
        return self.inside

    def begin(self):
        self.note("begin")
        self.inside = True

    def commit(self):
        self.note("commit")
        self.inside = False

    rollback = commit

    def close(self):
        self.note("close")

class Mysql(Sql):
    schemes = ("sql-mysql",)
    dialect = "mysql"

class Postgres(Sql):
    schemes = ("sql-postgres",)
    dialect = "postgres"

class Stream(Noting, StreamDriver):
    schemes = ("noting",)
    transient = (Passing,)

    async def open(self, deadline):
        self.fail_as_told()

    async def send(self, data, deadline):
        self.sink.lost(None)
        return len(data)

    async def close(self):
        pass
'''
_DRIVERS = {
    "sql-standard": "others_sql:Sql",
    "sql-mysql": "others_sql:Mysql",
    "sql-postgres": "others_sql:Postgres",
    "noting": "others_sql:Stream",
}


@pytest.fixture
def place(_no_leaks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path in the addresses of these drivers."""
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    (tmp_path / "others_sql.py").write_text(_MODULE)
    install(tmp_path, "others_sql", _DRIVERS, monkeypatch)
    (tmp_path / "db.plan").write_text("")
    return tmp_path / "db"


@pytest.fixture
def dial(place: Path) -> Iterator[Callable[..., Connection]]:
    opened: list[Connection] = []

    def dial(
        scheme: str = "sql-standard", options: str = "reconnect=true&interval=1"
    ) -> Connection:
        opened.append(connect(f"{scheme}://{place}|{options}"))
        return opened[-1]

    yield dial
    for connection in opened:
        connection.close()


def calls(place: Path) -> list[tuple[str, str]]:
    """What was called, on which thread."""
    lines = Path(f"{place}.calls").read_text().splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def opens(place: Path) -> int:
    return [what for what, _ in calls(place)].count("open")


IN_MYSQL = r"SELECT 'it\'s; BEGIN; ' # ; COMMIT"
IN_POSTGRES = "SELECT $$ ; BEGIN; $$ /* /* */ ; COMMIT */"
IN_STANDARD = "SELECT 'a''; BEGIN; ' -- ; COMMIT"


@pytest.mark.parametrize(
    ("scheme", "text"),
    [("sql-standard", IN_STANDARD), ("sql-mysql", IN_MYSQL), ("sql-postgres", IN_POSTGRES)],
)
def test_a_text_is_cut_by_the_drivers_own_dialect(
    dial: Callable[..., Connection], scheme: str, text: str
) -> None:
    """On a shared connection a bare BEGIN is refused, but not the word in a string or comment."""
    db = dial(scheme)
    assert db.fd()
    assert db.exec(text) == {"columns": ["text"], "values": [[text]]}
    for other in {IN_STANDARD, IN_MYSQL, IN_POSTGRES} - {text, IN_STANDARD}:
        with pytest.raises(StatementError, match="was refused: this connection is shared"):
            db.exec(other)
    with pytest.raises(StatementError, match="BEGIN was refused"):
        db.exec("BEGIN")


def test_all_calls_come_from_one_thread_after_a_loss_too(
    dial: Callable[..., Connection], place: Path
) -> None:
    db = dial()
    with db.transaction():
        db.exec("SELECT 1")
    with pytest.raises(OutcomeUnknown):
        db.exec("LOSE")
    assert db.exec("SELECT 2")["values"] == [["SELECT 2"]]
    with pytest.raises(TrunklineError), db.transaction():
        db.exec("LOSE")
    assert list(db.query("SELECT 3") or []) == [["SELECT 3"]]
    stats = db.stats()
    assert (stats.outages, stats.reconnects) == (2, 2)
    db.close()
    until(lambda: [what for what, _ in calls(place)].count("close") == 3, "the last close")
    found = calls(place)
    assert {what for what, _ in found} == {
        *("open", "execute", "query", "alive", "in_transaction", "begin", "commit", "close"),
    }
    assert {thread for _, thread in found} == {"trunkline-driver"}


def test_an_error_of_transient_is_followed_by_another_attempt(
    dial: Callable[..., Connection], place: Path
) -> None:
    db = dial()
    Path(f"{place}.plan").write_text("passing\npassing\n")
    with pytest.raises(OutcomeUnknown):
        db.exec("LOSE")
    assert db.exec("SELECT 1")["values"] == [["SELECT 1"]]
    assert opens(place) == 4


def test_any_other_error_ends_the_statement_and_the_next_one_tries_again(
    dial: Callable[..., Connection], place: Path
) -> None:
    db = dial()
    Path(f"{place}.plan").write_text("broken\n")
    with pytest.raises(OutcomeUnknown):
        db.exec("LOSE")
    with pytest.raises(TrunklineError, match="no link"):
        db.exec("SELECT 1")
    assert db.exec("SELECT 2")["values"] == [["SELECT 2"]]
    assert opens(place) == 3


def test_a_stream_waits_longest_after_an_error_that_is_not_transient(
    dial: Callable[..., Connection], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    options = "reconnect=true&interval=1&maxInterval=600000"
    passing = dial("noting", options)
    Path(f"{place}.plan").write_text("passing\n" * 3)
    passing.write("x")
    until(lambda: passing.stats().reconnects == 1, "a link after three errors that pass")
    broken = dial("noting", options)
    Path(f"{place}.plan").write_text("broken\n")
    broken.write("x")
    until(lambda: "no link; the next attempt is in 600 s" in caplog.text, "the longest wait")
