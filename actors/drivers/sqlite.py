"""sqlite3: a database file or memory, opened as go-sqlite3 opens its DSN."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from trunkline.actors.driver import ExecDriver, FatalError, Result
from trunkline.actors.drivers.sqlite_errors import error_name, hint, open_hint, refusal
from trunkline.actors.drivers.sqlite_types import exact, in_zone, register_converters, rounded, to_sqlite
from trunkline.actors.sql import Dialect, Style, bind, check_count, placeholders, wanted
from trunkline.actors.statements import split
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError

__all__ = ["SqliteDriver"]

_LONGEST_KEPT = 10_000
_SLICE_MS = 50
_BUSY_TIMEOUT = re.compile(
    r"PRAGMA\s+(?:\w+\s*\.\s*)?busy_timeout\b\s*[=(]?\s*(?P<ms>[+-]?\d{1,9})?", re.IGNORECASE
)
_REFUSALS = (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)


class SqliteDriver(ExecDriver):
    """One SQLite connection in autocommit mode.

    What is stored: int (64 bits), float (nan becomes NULL), str, bytes and None as they are; bool as 0 or 1;
    Decimal, UUID, timedelta and IP addresses as `str` of them; datetime as `2024-01-31 10:00:00+00:00`, date
    and time in ISO form; list, tuple and dict as JSON text. A column declared as a number turns text that
    looks like one into a number: declare TEXT to keep a Decimal exact.

    What comes back: int, float, str, bytes, None as SQLite has them. Columns declared `date`, `datetime` or
    `timestamp` give datetimes with a zone, UTC where the text names none, from text or from seconds
    (milliseconds beyond 10**12) since 1970, moved to `_loc` where the DSN has it; a `date` column with just a
    day in it gives a date. `boolean` gives bool. Text there that is no date comes as it is (Go: its zero
    time), and so does a BLOB that is UTF-8: Python's module hides the stored type in such columns.

    Several statements in one text run in order, each taking its share of the values; columns and values are
    those of the last that has rows, `affected` and `last_id` those of the last INSERT, UPDATE, DELETE or
    REPLACE, triggers not counted.
    """

    schemes: ClassVar[tuple[str, ...]] = ("sqlite3",)
    transient: ClassVar[tuple[type[BaseException], ...]] = (DialError,)

    _connection: sqlite3.Connection | None = None
    _interrupted = False
    _busy_ms = 0

    @property
    def peer(self) -> str:
        return self.address.extra["file"] or ":memory:"

    def open(self, deadline: Deadline) -> None:
        register_converters()
        try:
            self._connection = self._connect()
            self._check_format()
            self._apply_settings(deadline)
        except _REFUSALS as error:
            self.close()
            self._refuse_open(error)

    def _connect(self) -> sqlite3.Connection:
        extra = self.address.extra
        return sqlite3.connect(
            extra["name"],
            uri=extra["name_is_uri"],
            timeout=0,
            isolation_level=None,
            check_same_thread=False,  # `interrupt` comes from another thread
            detect_types=sqlite3.PARSE_DECLTYPES,
            cached_statements=extra["stmt_cache_size"] or 128,
        )

    def _check_format(self) -> None:
        """SQLite looks into the file with the first statement only; a wrong file should be told at once."""
        try:
            self._live.execute("PRAGMA schema_version").fetchall()
        except sqlite3.OperationalError as error:
            if not error_name(error).startswith("SQLITE_BUSY"):
                raise

    def _apply_settings(self, deadline: Deadline) -> None:
        busy_ms = self.address.extra["busy_timeout_ms"]
        left_ms = deadline.left_ms()
        self._pragma("busy_timeout", busy_ms if left_ms is None else min(busy_ms, left_ms))
        for name, value in self.address.extra["pragmas"]:
            self._pragma(name, value)
        self._busy_ms = busy_ms
        self._pragma("busy_timeout", min(_SLICE_MS, busy_ms))

    def _pragma(self, name: str, value: object) -> None:
        self._live.execute(f"PRAGMA {name} = {value}").fetchall()

    def _refuse_open(self, error: Exception) -> None:
        code = error_name(error)
        if code.startswith("SQLITE_BUSY"):
            raise DialError(f"{self.peer} is locked by another program; try again when it is done", code=code)
        reason = hint(code, self.peer)
        if code.startswith("SQLITE_CANTOPEN"):
            reason = open_hint(self.peer, self.address.params.get("mode", ""))
        raise FatalError(f"cannot open {self.peer}: {reason or error}", code=code or None)

    @property
    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        return self._connection

    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        self._interrupted = False
        result = Result()
        steps = _steps(sql) if len(sql) <= _LONGEST_KEPT else _steps.__wrapped__(sql)
        for step, text, values in list(_shared_out(steps, binds)):
            self._check_interrupted()
            self._run(step, text, values, result)
        return result

    def _run(self, step: _Step, text: str, values: Any, result: Result) -> None:
        """One statement. SQLite's own wait for a lock cannot be interrupted, so it waits in slices, here."""
        deadline = Deadline.after_ms(self._busy_ms)
        while True:
            slice_ends = Deadline.after_ms(min(_SLICE_MS, self._busy_ms))
            try:
                return self._attempt(step, text, values, result)
            except _REFUSALS as error:
                self._check_interrupted()
                # refused before the slice was over: waiting would be a deadlock, and SQLite knows
                waited = error_name(error) == "SQLITE_BUSY" and slice_ends.expired()
                if not waited or deadline.expired():
                    raise refusal(error, self.peer) from None

    def _attempt(self, step: _Step, text: str, values: Any, result: Result) -> None:
        before = rounded()
        with closing(self._live.cursor()) as cursor:
            cursor.execute(text, values)
            if cursor.description:
                result.columns = [column[0] for column in cursor.description]
                result.values = [list(row) for row in cursor.fetchall()]
            if step.verb in ("INSERT", "UPDATE", "DELETE", "REPLACE"):
                self._count(step, result)
            elif step.verb == "PRAGMA":
                self._pragma_of_user(text, result)
            if rounded() != before and step.verb in ("SELECT", "VALUES"):
                exact(
                    result.values, cursor.execute(_undeclared(text, len(result.columns)), values).fetchall()
                )
        if self.address.extra["loc"]:
            in_zone(result.values, self.address.extra["loc"])

    def _pragma_of_user(self, text: str, result: Result) -> None:
        match = _BUSY_TIMEOUT.match(text)
        if match:
            if match["ms"]:
                self._busy_ms = max(0, int(match["ms"]))
                self._pragma("busy_timeout", min(_SLICE_MS, self._busy_ms))
            result.values = [[self._busy_ms]]

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise StatementError("interrupted", code="SQLITE_INTERRUPT")

    def _count(self, step: _Step, result: Result) -> None:
        # asked from SQLite: the cursor knows neither for WITH ... INSERT, nor before 3.12 with RETURNING
        row = self._live.execute("SELECT changes(), last_insert_rowid()").fetchone()
        result.affected = row[0]
        result.last_id = row[1] if row[0] and step.verb in ("INSERT", "REPLACE") else None

    def interrupt(self) -> None:
        self._interrupted = True
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.Error):  # closed meanwhile
                connection.interrupt()

    def in_transaction(self) -> bool:
        return self._connection is not None and self._connection.in_transaction

    def begin(self) -> None:
        self.execute(self.address.extra["begin"], ())

    def commit(self) -> None:
        self.execute("COMMIT", ())

    def rollback(self) -> None:
        """Also when SQLite has rolled back by itself, as it does on a full disk."""
        if self.in_transaction():
            self.execute("ROLLBACK", ())

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@dataclass(frozen=True, slots=True)
class _Step:
    """One statement of a text, read once."""

    text: str
    verb: str
    wanted: int
    positional: str
    """The text with `?` alone, and which of its values each takes: `?1` and `:name` may repeat."""
    order: tuple[int, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=256)
def _steps(sql: str) -> tuple[_Step, ...]:
    return tuple(_step(statement.text, statement.verb) for statement in split(sql, Dialect.SQLITE))


def _step(text: str, verb: str) -> _Step:
    count = wanted(text, Dialect.SQLITE)
    positional, order = bind(text, range(count), Dialect.SQLITE, Style.QMARK)
    names = tuple(placeholders(text, Dialect.SQLITE))
    return _Step(text, verb, count, positional, tuple(order) if isinstance(order, list) else (), names)


def _undeclared(text: str, columns: int) -> str:
    """The statement with results that have no declared type any more."""
    names = [f"c{index}" for index in range(columns)]
    # the line end is for a comment at the end of the text
    return f"WITH plain({', '.join(names)}) AS ({text}\n) SELECT +{', +'.join(names)} FROM plain"


def _shared_out(
    steps: tuple[_Step, ...], binds: Sequence[Any] | Mapping[str, Any]
) -> Iterator[tuple[_Step, str, Any]]:
    """Each statement with its share of the values. All are checked before the first is run."""
    if isinstance(binds, Mapping):
        for step in steps:
            yield step, step.text, {name[1:]: _named(name, binds) for name in step.names}
        return
    check_count(sum(step.wanted for step in steps), len(binds))
    values = [to_sqlite(value) for value in binds]
    for step in steps:
        share, values = values[: step.wanted], values[step.wanted :]
        yield step, step.positional, [share[index] for index in step.order]


def _named(place: str, binds: Mapping[str, Any]) -> Any:
    if place.startswith("?"):
        raise StatementError(f"the placeholder {place} takes values in order; write :name for values by name")
    if place[1:] not in binds:
        raise StatementError(f"the statement has the placeholder {place} and no value of that name was given")
    return to_sqlite(binds[place[1:]])
