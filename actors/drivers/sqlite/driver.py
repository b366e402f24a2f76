"""sqlite3: a database file or memory, opened as go-sqlite3 opens its DSN."""

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
_LOOK_UP = 20_000
"""How many steps of SQLite's machine (well under a millisecond) a statement does before it looks whether it
is to stop."""
_SAVEPOINT = "trunkline_rows"
_BUSY_TIMEOUT = re.compile(
    r"PRAGMA\s+(?:\w+\s*\.\s*)?busy_timeout\b\s*[=(]?\s*(?P<ms>[+-]?\d{1,9})?", re.IGNORECASE
)


class SqliteDriver(ExecDriver):
    """One SQLite connection in autocommit mode.

    What is stored: int (64 bits), float (nan becomes NULL), str, bytes and None as they are; bool as 0 or 1;
    Decimal, UUID, timedelta and IP addresses as `str` of them; datetime as `2024-01-31 10:00:00+00:00`, date
    and time in ISO form; `Json` as its text. A column declared as a number turns text that looks like one
    into a number: declare TEXT to keep a Decimal exact; one that the column would round is refused.

    What comes back: int, float, str, bytes, None as SQLite has them. Columns declared `date`, `datetime` or
    `timestamp` give datetimes with a zone, UTC where the text names none, from text or from seconds
    (milliseconds beyond 10**12) since 1970, moved to `_loc` where the DSN has it; a `date` column with just a
    day in it gives a date. `boolean` gives bool. Text there that is no date comes as it is (Go: its zero
    time), and so does a BLOB that is UTF-8: Python's module hides the stored type in such columns.

    Several statements in one text run in order, each taking its share of the values; all that have rows
    give a result set, `affected` and `last_id` those of the last INSERT, UPDATE, DELETE or
    REPLACE, triggers not counted.

    Rows of a SELECT at the end of the text are fetched when they are wanted, over a cursor that stays open
    beside other statements. SQLite's own interrupt would end every open cursor with the statement it is meant
    for, so while there is one, a statement is stopped from within, by its progress handler.
    """

    schemes: ClassVar[tuple[str, ...]] = ("sqlite3",)
    dialect: ClassVar[str] = "sqlite"
    transient: ClassVar[tuple[type[BaseException], ...]] = (DialError,)

    _connection: sqlite3.Connection | None = None
    _interrupted = False
    _busy_ms = 0

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._zone: str | None = address.extra["loc"]
        self._open: set[OpenRows] = set()
        self._guard = (
            threading.Lock()
        )  # `interrupt` comes from another thread, and looks who is open

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
            self.live.execute("PRAGMA schema_version").fetchall()
        except sqlite3.OperationalError as error:
            if not error_name(error).startswith("SQLITE_BUSY"):
                raise

    def _apply_settings(self, deadline: Deadline) -> None:
        busy_ms = self.address.extra["busy_timeout_ms"]
        # time is left for saying that the file is locked
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
        """SQLite passes over a PRAGMA that it does not know, without a word."""
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
        if self._connection is None:
            raise ClosedError(f"the connection to {self.peer} is closed")
        self._interrupted = False

    def refused(self, error: BaseException) -> StatementError:
        return refusal(error, self.peer, queries=bool(self._open))

    def execute(self, sql: str, binds: Binds) -> Result:
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
        """Run something, and while the database is locked, from its beginning again, unless it is `too_late`
        for that. SQLite's own wait for a lock cannot be interrupted, so it waits in slices, here."""
        began = slice_began = (
            monotonic()
        )  # two deadlines would be a tenth of a short statement's time
        while True:
            try:
                return attempt()
            except REFUSALS as error:
                self._check_interrupted()
                now = monotonic()
                # refused before the slice was over: waiting would be a deadlock, and SQLite knows
                slice_over = (now - slice_began) * 1000 >= min(_SLICE_MS, self._busy_ms)
                waited = error_name(error) == "SQLITE_BUSY" and slice_over
                if not waited or (now - began) * 1000 >= self._busy_ms or too_late():
                    raise self.refused(error) from None
                slice_began = now

    def _attempt(self, step: Step, text: str, values: Any, result: Result, *, last: bool) -> None:
        before = rounded()
        check_decimals(self.live, text, values)
        cursor = self.live.cursor()
        try:
            cursor.execute(text, values)
            if cursor.description:
                columns = [column[0] for column in cursor.description]
                rest: OpenRows | None = None
                # a write is done, and counted, only when its rows were fetched
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
        """What is to come after these first rows."""
        with self._guard:
            self._open.add(opened)
        try:
            self._check_interrupted()  # SQLite may have been told too, and would stop whatever comes next
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
        """A commit costs far more than an INSERT, and SQLite does one at a time for everybody.

        A statement that is refused takes back only its own rows. One that meets a lock ends the group before
        it: to wait for locks is for each alone. Where all is taken back (a trigger that says ROLLBACK, a full
        disk, a reader that holds up the commit), nobody was told of anything yet, and each is run alone.
        """
        self.running()
        if self.live.execute("PRAGMA foreign_keys").fetchone()[0]:
            # a deferred one is checked with the commit, and could be met there by somebody else's row
            return []
        patience, self._busy_ms = self._busy_ms, 0
        try:
            self._patiently(lambda: self.live.execute("BEGIN"))
            found: list[Result | StatementError] = []
            for sql, binds in statements:
                outcome = self._outcome(sql, binds)
                if not self.in_transaction():
                    return []  # all is taken back; the next one would be committed by itself
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
        try:
            return self.execute(sql, binds)
        except StatementError as error:
            return error

    def executemany(self, sql: str, rows: Sequence[Binds]) -> Result:
        """All or none, also inside of a transaction. Rows are lists, tuples, or dicts for `:name`."""
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
        """Also when SQLite has rolled back by itself. An interrupt may come late, and meet this."""
        for _ in range(3):
            self._interrupted = False
            with suppress(sqlite3.Error):
                if self.in_transaction():
                    for sql in statements:
                        self.live.execute(sql)
                return

    def _note_busy_timeout(self, text: str) -> bool:
        """Whether a PRAGMA is about `busy_timeout`, which is kept here: SQLite itself waits in slices."""
        match = _BUSY_TIMEOUT.match(text)
        if match and match["ms"]:
            self._busy_ms = max(0, int(match["ms"]))
            self._pragma("busy_timeout", min(_SLICE_MS, self._busy_ms))
        return match is not None

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise StatementError("interrupted", code="SQLITE_INTERRUPT")

    def _count(self, step: Step, result: Result) -> None:
        # asked from SQLite: the cursor knows neither for WITH ... INSERT, nor before 3.12 with RETURNING
        row = self.live.execute("SELECT changes(), last_insert_rowid()").fetchone()
        result.affected = row[0]
        result.last_id = row[1] if row[0] and step.verb in ("INSERT", "REPLACE") else None

    def interrupt(self) -> None:
        self._interrupted = True
        with self._guard:
            connection = self._connection if not self._open else None
            if connection is not None:
                with suppress(sqlite3.Error):  # closed meanwhile
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
        """Also when SQLite has rolled back by itself, as it does on a full disk."""
        if self.in_transaction():
            self.execute("ROLLBACK", ())

    def close(self) -> None:
        for rows in list(self._open):
            rows.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
