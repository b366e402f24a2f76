"""sqlite3: a database in a file or in memory, opened as go-sqlite3 opens its DSN."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, ClassVar, TypeVar

from trunkline.actors.database.binds import has_lists_for
from trunkline.actors.driver import FIRST_ROWS, ExecDriver, FatalError, Result
from trunkline.actors.drivers.sqlite.decimals import check_decimals
from trunkline.actors.drivers.sqlite.errors import (
    REFUSALS,
    error_name,
    hint,
    is_special,
    open_hint,
    refusal,
)
from trunkline.actors.drivers.sqlite.many import Bulk, Misfit
from trunkline.actors.drivers.sqlite.rows import OpenRows
from trunkline.actors.drivers.sqlite.steps import Binds, Step, shared_out, steps
from trunkline.actors.drivers.sqlite.types import (
    in_zone,
    register_adapters,
    register_converters,
    rounded,
)
from trunkline.actors.net.servers import time_to_tell
from trunkline.address import Address
from trunkline.address.nearest import nearest
from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DialError, StatementError
from trunkline.sqltext import Dialect

__all__ = ["SqliteDriver"]

T = TypeVar("T")

_SLICE_MS = 50
"""Milliseconds of one wait for a lock.
Between two waits the driver looks whether the statement is to stop.
"""
_LOOK_UP = 20_000
"""Steps of SQLite's virtual machine (well under a millisecond)
between two looks whether the statement is to stop.
"""
_SAVEPOINT = "trunkline_rows"
"""The savepoint of an executemany inside of a transaction."""
_BUSY_TIMEOUT = re.compile(
    r"PRAGMA\s+(?:\w+\s*\.\s*)?busy_timeout\b\s*[=(]?\s*(?P<ms>[+-]?\d{1,9})?", re.IGNORECASE
)


class SqliteDriver(ExecDriver):
    """One SQLite connection in autocommit mode.

    Stored unchanged: int (64 bits), float (nan becomes NULL), str, bytes and None. bool is stored
    as 0 or 1. Decimal, UUID, timedelta and IP addresses are stored as `str` of them. A datetime
    is stored as `2024-01-31 10:00:00+00:00`, date and time in ISO form, `Json` as its text.
    A column declared as a number turns text that looks like a number into a number. Declare TEXT
    to keep a Decimal exact. A Decimal that the column would round is refused.

    Read as SQLite has them: int, float, str, bytes, None. Columns declared `date`, `datetime` or
    `timestamp` give datetimes with a zone, or UTC if the text names no zone. They are read from
    text or from seconds since 1970 (milliseconds beyond 10**12), and moved to `_loc` if the DSN
    has one. A `date` column with only a day in it gives a date. `boolean` gives bool.
    In such columns, text that is not a date stays text (Go returns its zero time).
    So does a BLOB that is UTF-8, because Python's module hides the stored type in such columns.

    Several statements in one text run in order, each with its share of the values. Each statement
    with rows gives a result set. `affected` and `last_id` are those of the last INSERT, UPDATE,
    DELETE or REPLACE, without triggers.

    Rows of a SELECT at the end of the text are fetched while they are read, over a cursor that
    stays open beside other statements. SQLite's interrupt would end every open cursor together
    with the statement. So while a cursor is open, a statement is stopped by its progress handler.
    """

    schemes: ClassVar[tuple[str, ...]] = ("sqlite3",)
    dialect: ClassVar[str] = "sqlite"
    transient: ClassVar[tuple[type[BaseException], ...]] = (DialError,)

    _connection: sqlite3.Connection | None = None
    _interrupted = False
    """The running statement is to stop.
    Written by `interrupt` on another thread, read by the progress handler.
    """
    _busy_ms = 0
    """Milliseconds that a statement waits for a lock."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._zone: str | None = address.extra["loc"]
        self._open: set[OpenRows] = set()
        # Guards `_open`: `interrupt` is called on another thread and reads `_open`.
        self._guard = threading.Lock()

    @property
    def peer(self) -> str:
        return self.address.extra["file"] or ":memory:"

    def open(self, deadline: Deadline) -> None:
        register_converters()
        register_adapters()
        if is_special(self.address.extra["file"]):
            raise FatalError(
                f"cannot open {self.peer}: {open_hint(self.peer, '')}", code="SQLITE_CANTOPEN"
            )
        try:
            self._connection = self._connect()
            self._connection.set_progress_handler(lambda: self._interrupted, _LOOK_UP)
            self._check_format()
            self._apply_settings(deadline)
        except REFUSALS as error:
            self.close()
            self._refuse_open(error)

    def _connect(self) -> sqlite3.Connection:
        """A connection of `sqlite3` in autocommit mode.

        SQLite's own wait for locks is off until the settings are applied.
        """
        extra = self.address.extra
        return sqlite3.connect(
            extra["name"],
            uri=extra["name_is_uri"],
            timeout=0,
            isolation_level=None,
            # `interrupt` is called on another thread.
            check_same_thread=False,
            detect_types=sqlite3.PARSE_DECLTYPES,
            cached_statements=extra["stmt_cache_size"] or 128,
        )

    def _check_format(self) -> None:
        """Read the file's format now, to report a wrong file at once.

        SQLite itself reads the file only with the first statement.
        """
        try:
            self.live.execute("PRAGMA schema_version").fetchall()
        except sqlite3.OperationalError as error:
            if not error_name(error).startswith("SQLITE_BUSY"):
                raise

    def _apply_settings(self, deadline: Deadline) -> None:
        """Apply the settings of the address."""
        busy_ms = self.address.extra["busy_timeout_ms"]
        # Leave time for the report that the file is locked.
        left_ms = Deadline(deadline.left() - time_to_tell(deadline)).left_ms()
        self._pragma("busy_timeout", busy_ms if left_ms is None else min(busy_ms, left_ms))
        for name, value in self.address.extra["pragmas"]:
            self._pragma(name, value)
        self._busy_ms = busy_ms
        for sql in self.address.extra.get("own_pragmas", ()):
            self.live.execute(sql).fetchall()
            self._note_busy_timeout(sql)
            self._warn_of_unknown(sql.split()[1])
        self._pragma("busy_timeout", min(_SLICE_MS, self._busy_ms))
        for line in self.address.extra.get("ignored", ()):
            self.warn(line)

    def _warn_of_unknown(self, name: str) -> None:
        """Warn of a PRAGMA that SQLite does not know. SQLite itself ignores it silently."""
        known = [row[0] for row in self.live.execute("PRAGMA pragma_list")]
        if known and name.lower() not in known:
            near = nearest(name, known, 0.6)
            hint = f": did you mean {near!r}" if near else ""
            self.warn(
                f"_pragma={name} of the sqlite3 address is not known to SQLite, and ignored{hint}"
            )

    def _pragma(self, name: str, value: object) -> None:
        self.live.execute(f"PRAGMA {name} = {value}").fetchall()

    def _refuse_open(self, error: Exception) -> None:
        """Raise the error of an attempt to open.

        DialError for a lock, FatalError for all other reasons.
        """
        code = error_name(error)
        if code.startswith("SQLITE_BUSY"):
            raise DialError(
                f"{self.peer} is locked by another program; try again when it is done", code=code
            )
        reason = hint(code, self.peer)
        if code.startswith("SQLITE_CANTOPEN"):
            reason = open_hint(self.peer, self.address.params.get("mode", ""))
        raise FatalError(f"cannot open {self.peer}: {reason or error}", code=code or None)

    @property
    def live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        return self._connection

    def running(self) -> None:
        """Forget the interrupt of the last statement, because another statement or fetch begins."""
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        self._interrupted = False

    def refused(self, error: BaseException) -> StatementError:
        """The error for a refusal of SQLite."""
        return refusal(error, self.peer, queries=bool(self._open))

    def execute(self, sql: str, binds: Binds) -> Result:
        """Run the statements of a text in order.

        Each statement is run again while the database is locked.
        """
        self.running()
        result = Result()
        todo = list(shared_out(steps(sql), binds))
        for step, text, values in todo:
            self._check_interrupted()
            self._patiently(
                partial(self._attempt, step, text, values, result, last=step is todo[-1][0])
            )
        return result

    def _patiently(self, attempt: Callable[[], T], too_late: Callable[[], bool] = bool) -> T:
        """Call `attempt`, and repeat it while the database is locked.

        No repetition if `too_late` says that repeating is wrong.

        SQLite's own wait for a lock cannot be interrupted. So the wait is cut into slices here.
        """
        # Plain numbers, because two Deadline objects
        # would take a tenth of a short statement's time.
        began = slice_began = monotonic()
        while True:
            try:
                return attempt()
            except REFUSALS as error:
                self._check_interrupted()
                now = monotonic()
                # A refusal before the end of the slice means a deadlock, which SQLite has
                # noticed: waiting would not help.
                slice_over = (now - slice_began) * 1000 >= min(_SLICE_MS, self._busy_ms)
                waited = error_name(error) == "SQLITE_BUSY" and slice_over
                if not waited or (now - began) * 1000 >= self._busy_ms or too_late():
                    raise self.refused(error) from None
                slice_began = now

    def _attempt(self, step: Step, text: str, values: Any, result: Result, *, last: bool) -> None:
        """Run one statement and add its rows and counts to `result`.

        `last`: its rows may be fetched later.
        """
        before = rounded()
        check_decimals(self.live, text, values)
        cursor = self.live.cursor()
        try:
            cursor.execute(text, values)
            if cursor.description:
                columns = [column[0] for column in cursor.description]
                rest: OpenRows | None = None
                # A write is complete, and counted, only when its rows are fetched.
                in_parts = last and step.reads
                rows = list(
                    map(list, cursor.fetchmany(FIRST_ROWS) if in_parts else cursor.fetchall())
                )
                inexact = step.reads and rounded() != before
                more = in_parts and len(rows) == FIRST_ROWS
                if inexact or more:
                    opened = OpenRows(self, cursor, columns, text, values, self._zone)
                    rest = self._opened(opened, rows, inexact=inexact, more=more)
                elif self._zone:
                    in_zone(rows, self._zone)
                if step.verb == "PRAGMA" and self._note_busy_timeout(text):
                    rows = [[self._busy_ms]]
                result.add_set(columns, rows, rest)
            if step.writes:
                self._count(step, result)
        except BaseException:
            cursor.close()
            raise

    def _opened(
        self, opened: OpenRows, rows: list[list[Any]], *, inexact: bool, more: bool
    ) -> OpenRows | None:
        """Keep a cursor open for the rows that follow the first rows.

        Returns None if no rows follow.
        """
        with self._guard:
            self._open.add(opened)
        try:
            # SQLite may have been told to interrupt, too, and would stop the next call instead.
            self._check_interrupted()
            opened.take(rows, inexact=inexact)
        except BaseException:
            opened.close()
            raise
        if not more:
            opened.close()
        return opened if more else None

    def forget(self, rows: OpenRows) -> None:
        with self._guard:
            self._open.discard(rows)

    @classmethod
    def joins(cls, sql: str) -> bool:
        found = steps(sql)
        return len(found) == 1 and found[0].joins

    def execute_together(
        self, statements: Sequence[tuple[str, Binds]]
    ) -> list[Result | StatementError]:
        """Run INSERTs of several callers with one commit.

        A commit costs far more than an INSERT, and SQLite commits only one transaction at a time.

        A refused statement takes back only its own rows. A statement that meets a lock ends the
        group before itself, because each caller has its own time to wait for locks.
        If all rows are taken back (a trigger with ROLLBACK, a full disk, a reader that holds up
        the commit), no caller was answered yet, and each statement is run alone.
        """
        self.running()
        if self.live.execute("PRAGMA foreign_keys").fetchone()[0]:
            # A deferred foreign key is checked at the commit, and
            # could fail there because of another caller's row.
            return []
        patience, self._busy_ms = self._busy_ms, 0
        try:
            self._patiently(lambda: self.live.execute("BEGIN"))
            found: list[Result | StatementError] = []
            for sql, binds in statements:
                outcome = self._outcome(sql, binds)
                if not self.in_transaction():
                    # All rows are taken back. Another statement would now be committed alone.
                    return []
                if isinstance(outcome, StatementError) and str(outcome.code).startswith(
                    "SQLITE_BUSY"
                ):
                    break
                found.append(outcome)
            self._patiently(lambda: self.live.execute("COMMIT"))
            return found
        except StatementError:
            self._undo(["ROLLBACK"])
            return []
        finally:
            self._busy_ms = patience

    def _outcome(self, sql: str, binds: Binds) -> Result | StatementError:
        """The result of one statement of the group, or its error."""
        try:
            return self.execute(sql, binds)
        except StatementError as error:
            return error

    def executemany(self, sql: str, rows: Sequence[Binds]) -> Result:
        """Run a statement for all rows or for none, also inside of a transaction.

        Rows are lists, tuples, or dicts for `:name`.
        """
        self.running()
        if has_lists_for(sql, rows, Dialect.SQLITE):
            return super().executemany(sql, rows)
        bulk = Bulk(sql, rows)
        try:
            return Result(affected=self._all_or_none(bulk))
        except Misfit:
            bulk.convert()
        try:
            return Result(affected=self._all_or_none(bulk))
        except Misfit as error:
            raise bulk.at_row(self.refused(error.__cause__ or error)) from None

    def _all_or_none(self, bulk: Bulk) -> int:
        """Run the rows in a transaction, or behind a savepoint of the open transaction.

        Returns how many rows of the table were changed.
        """
        begin, undo, keep = self.address.extra["begin"], ["ROLLBACK"], "COMMIT"
        if self.in_transaction():
            begin, keep = f"SAVEPOINT {_SAVEPOINT}", f"RELEASE {_SAVEPOINT}"
            undo = [f"ROLLBACK TO {_SAVEPOINT}", keep]
        try:
            self._patiently(lambda: self.live.execute(begin))
            try:
                count = self._patiently(lambda: bulk.run(self.live), lambda: bulk.reached > 1)
            except StatementError as error:
                raise bulk.at_row(error) from None
            bulk.check_decimals(self.live)
            self._check_interrupted()
            self._patiently(lambda: self.live.execute(keep))
        except BaseException:
            self._undo(undo)
            raise
        return count

    def _undo(self, statements: list[str]) -> None:
        """Roll back.

        Succeeds also if SQLite has rolled back already.
        Tried three times, because a late interrupt may hit the rollback.
        """
        for _ in range(3):
            self._interrupted = False
            with suppress(sqlite3.Error):
                if self.in_transaction():
                    for sql in statements:
                        self.live.execute(sql)
                return

    def _note_busy_timeout(self, text: str) -> bool:
        """Whether a PRAGMA sets or reads `busy_timeout`.

        That value is kept here, because SQLite itself waits only for a slice.
        """
        match = _BUSY_TIMEOUT.match(text)
        if match and match["ms"]:
            self._busy_ms = max(0, int(match["ms"]))
            self._pragma("busy_timeout", min(_SLICE_MS, self._busy_ms))
        return match is not None

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise StatementError("interrupted", code="SQLITE_INTERRUPT")

    def _count(self, step: Step, result: Result) -> None:
        """Note how many rows a write has changed, and the id of its last row."""
        # SQLite is asked, because the cursor does not know the numbers for WITH ...
        # INSERT, nor with RETURNING before Python 3.12.
        row = self.live.execute("SELECT changes(), last_insert_rowid()").fetchone()
        result.affected = row[0]
        result.last_id = row[1] if row[0] and step.verb in ("INSERT", "REPLACE") else None

    def interrupt(self) -> None:
        # Called on another thread.
        # With an open cursor SQLite is not told: its interrupt would end the cursor, too.
        self._interrupted = True
        with self._guard:
            connection = self._connection if not self._open else None
            if connection is not None:
                # The driver thread may have closed the connection meanwhile.
                with suppress(sqlite3.Error):
                    connection.interrupt()

    def in_transaction(self) -> bool:
        return self._connection is not None and self._connection.in_transaction

    def begin(self) -> None:
        self.execute(self.address.extra["begin"], ())

    def begin_as(self, how: str) -> None:
        self.execute(f"BEGIN {how}", ())

    def commit(self) -> None:
        self.execute("COMMIT", ())

    def rollback(self) -> None:
        """Roll back. Succeeds also if SQLite has rolled back already, as it does on a full disk."""
        if self.in_transaction():
            self.execute("ROLLBACK", ())

    def close(self) -> None:
        for rows in list(self._open):
            rows.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
