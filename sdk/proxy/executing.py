"""Statements on a database connection: exec, query, executemany, and the way each takes to the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from trunkline.deadline import Deadline
from trunkline.errors import (
    ClosedError,
    DeadHandle,
    OperationTimeout,
    StatementError,
    TrunklineError,
)
from trunkline.proxy.holder import ATTACH_S
from trunkline.proxy.process import Client
from trunkline.proxy.reading import Reader
from trunkline.proxy.result import ExecResult
from trunkline.proxy.rows import Rows
from trunkline.proxy.transaction import BARE, GRACE_S, OVER, Transaction
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.foreign import record_values
from trunkline.wire.table import pack_rows, unpack_rows

__all__ = ["Executing"]

REPLACE_S = 10.0
"""How long a statement waits for the worker that replaces a crashed one."""
REPLACE_LOOK_S = 0.01
JOIN_LOOK_S = 0.002
_FOR_ITSELF = (
    "this thread has a transaction open on the same database connection, by another object, and would wait"
    " for itself; end that one first"
)
BULK_BYTES = 1 << 30
"""One message may be so large, see trunkline.wire.framing."""

CHUNK_ROWS = 1000
"""Rows of an `executemany` that are packed, and unpacked, together."""
_ROWS = frozenset((list, tuple, dict))

Part = Callable[[bytes], None]


class Executing(Reader):
    """What of a `Connection` is for databases."""

    def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> ExecResult | None:
        """Run a statement on a database connection.

        `binds` are its values in order, or one list or tuple of them, or one mapping of names. A list for the
        placeholder of `IN (?)` is written out; anywhere else one value takes a list only where its column
        does, or as `Json(...)`. `timeout` in milliseconds. Returns
        `{"columns": [...], "values": [[...], ...]}`, with `affected` and `last_id` where the driver knows
        them, `matched` (rows that an UPDATE found) on MySQL, and `more`, a list of result sets, where there
        is more than one (a procedure, several statements); None on failure, with the reason in the log and in
        `last_error()`. An object of `connect` raises StatementError, OperationTimeout, OutcomeUnknown.
        """
        try:
            return self._execute(sql, _given(binds), timeout, self._token())
        except TrunklineError as error:
            return self._failed(error, None)  # type: ignore[no-any-return]

    def executemany(self, sql: str, rows: Iterable[Any], timeout: float | None = None) -> ExecResult | None:
        """Run a statement once for each row of values, in one message and at the database's best speed.

        `rows` are lists or tuples, one value for each placeholder (mappings where the database has named
        placeholders); `timeout` in milliseconds is for all of them together. All rows are written or none,
        where the database has transactions. Returns `{"columns": [], "values": [], "affected": rows}`,
        without `affected` where the driver cannot know it; fails as `exec` does.
        """
        try:
            return self._executemany(sql, rows, timeout, self._token())
        except TrunklineError as error:
            return self._failed(error, None)  # type: ignore[no-any-return]

    def query(self, sql: str, *binds: Any, timeout: float | None = None) -> Rows | None:
        """Run a statement and iterate over its rows in bounded memory, whatever their number.

        As `exec`; `timeout` in milliseconds is for the first rows and then for each further batch. Returns
        `Rows`, an iterator with `.columns` and `.close()`; None on failure (an object of `connect` raises).
        Outside of a transaction some databases (see their pages in docs/) run it on a link of its own.
        """
        try:
            return self._query(sql, _given(binds), timeout, self._token())
        except TrunklineError as error:
            return self._failed(error, None)  # type: ignore[no-any-return]

    def transaction(self, timeout_ms: float = 30_000) -> Transaction:
        """`with conn.transaction():` holds a shared database connection exclusively.

        Commits at the end, rolls back when the block raises, when its process dies and when the server is
        lost: then its statements fail with code "TRANSACTION_OVER", and the block's end raises. Others wait.
        `timeout_ms`: how long to wait for one's turn; then OperationTimeout. The end may take 2 s in any
        case, and however the block is left (Ctrl-C, too), it locks nobody out. Raises for objects of `Dial`
        too, for a block cannot be passed over: StatementError when the commit is refused (it is rolled back
        then), OutcomeUnknown when its answer never came. Belongs to the thread that entered it.
        """
        return Transaction(self, timeout_ms)

    # the same with the transaction named, always raising

    def _token(self) -> bytes | None:
        """The transaction that this thread is in."""
        block = Transaction.of_thread(self)
        if block is not None:
            return block.token
        return BARE if self._bare else None

    def _execute(self, sql: str, binds: Any, timeout: float | None, token: bytes | None) -> ExecResult:
        rows: list[Any] = []

        def part(body: bytes) -> None:
            rows.extend(unpack_rows(body))

        result = self._result(self._run(Kind.EXEC, "exec", sql, (binds,), timeout, token, part))
        if rows:
            rows.extend(result["values"])
            result["values"] = rows
        return result

    def _executemany(
        self, sql: str, rows: Iterable[Any], timeout: float | None, token: bytes | None
    ) -> ExecResult:
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise TypeError(f"executemany takes rows, not {type(rows).__name__}")
        count, chunks = 0, []
        by_name: bool | None = None
        for chunk in _chunks(rows):
            kinds = set(map(type, chunk))
            if by_name is None:
                by_name = kinds == {dict}
            if (dict in kinds) != by_name or (by_name and len(kinds) > 1):
                raise TypeError("the rows of executemany are either all mappings or all lists and tuples")
            count += len(chunk)
            chunks.append(pack_rows(chunk))
        given = (chunks, CHUNK_ROWS, count)
        return self._result(self._run(Kind.EXECUTEMANY, "executemany", sql, given, timeout, token, None))

    def _result(self, answer: bytes) -> ExecResult:
        result = ExecResult(values.unpack(answer))
        self._bare = result.pop("in_transaction", False)
        return result

    def _query(self, sql: str, binds: Any, timeout: float | None, token: bytes | None) -> Rows:
        number = next(self._query_numbers)
        try:
            answer = self._run(Kind.QUERY, "query", sql, (binds, number), timeout, token, None)
            columns, self._bare, more, batch = values.unpack(answer)
            return Rows(self, columns, unpack_rows(batch), number if more else None, timeout)
        except BaseException:
            self._client.tell(self._key, Kind.END_QUERY, (self._holder_id, number))  # should it have begun
            raise

    def _run(
        self,
        kind: Kind,
        what: str,
        sql: str,
        given: tuple[Any, ...],
        timeout: float | None,
        token: bytes | None,
        part: Part | None,
    ) -> bytes:
        if not isinstance(sql, str):
            raise TypeError(f"{what} takes SQL text, not {type(sql).__name__}")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise TypeError(f"{what}'s timeout is a number of milliseconds, not {type(timeout).__name__}")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"{what}'s timeout is in milliseconds and must be above zero")
        # a query of a server has a link of its own
        in_line = kind is not Kind.QUERY or self._scheme == "sqlite3"
        if in_line and timeout is None and token is None and Transaction.holds_up(self):
            raise StatementError(_FOR_ITSELF)
        deadline = Deadline(None if timeout is None else timeout / 1000 + GRACE_S)
        at = None if timeout is None else deadline.at - GRACE_S
        body = values.pack([sql, *given])
        if len(body) >= BULK_BYTES:
            raise ValueError(f"{len(body):,} bytes are too much for one {what}; give it in several")
        try:
            return self._ask_database(kind, (token, timeout, at), body, deadline, part)[0]
        except TrunklineError as error:
            if error.code == OVER:
                self._bare = False
            raise

    def _ask_database(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes,
        deadline: Deadline,
        part: Part | None = None,
    ) -> list[bytes]:
        """One answer to one request. It is sent again only where it is certain that no worker has begun
        with it: between a crashed worker and the next one."""
        patience = Deadline(min(REPLACE_S, deadline.left()) if self._executes else 0)
        while True:
            self._check_open()
            self._client_now(deadline)  # in a forked child that gives the object an identity of its own
            whole = (self._holder_id, *fields)
            answer = self._route.try_request(
                kind,
                whole,
                body,
                deadline,
                lambda: self._closed,
                part,
                patience=patience,
                can_redial=self._redial is not None,
            )
            if answer is not None:
                return answer
            self._hear_of_end()
            time.sleep(REPLACE_LOOK_S)

    def _hear_of_end(self) -> None:
        """Whether the worker is gone for good: the broker says so on the stream socket, which nobody reads
        here."""
        self._turn.run(0, self._hear_of_end_in_turn)

    def _hear_of_end_in_turn(self) -> None:
        if self._closed or not self._in_order():
            return
        while (received := self._route.peek(0)) is not None:
            if received[1] is Kind.GONE and not received[3][0]:
                self._gone = self._gone or f"{received[3][1]}{self._what_is_lost()}"
            self._route.done()

    def _what_is_lost(self) -> str:
        memory = self._scheme == "sqlite3" and (":memory:" in self._peer or "mode=memory" in self._peer)
        return "; its database was in memory, so the data is gone too" if memory else ""

    # the rest of being an object's connection to its worker; see Connection

    def _request(
        self, kind: Kind, *fields: Any, body: bytes | None = None, deadline: Deadline
    ) -> list[bytes]:
        self._check_open()
        self._client_now(deadline)
        return self._route.request(kind, fields, body, deadline, lambda: self._closed)

    def _check_open(self) -> None:
        if self._closed:
            by = " by the program's end" if self._client.program_ends else ""
            raise ClosedError(f"this object of {self._peer} was closed{by}; dial again, or Dial its handle")
        if self._gone is not None:
            if "has ended" in self._gone:  # said by the broker, and what to do with it
                raise DeadHandle(self._gone)
            raise DeadHandle(f"the connection to {self._peer} has ended ({self._gone}); dial again")

    def _client_now(self, deadline: Deadline) -> Client:
        """The client of this process. In a forked child the object first becomes a holder of its own, and
        after an exception that broke off what it was saying it joins anew; OperationTimeout when that took
        too long. The grace at the end of the deadline is left out: it is for the worker's answer."""
        limit = Deadline(min(ATTACH_S, max(0.0, deadline.left() - GRACE_S)))
        while (not self._route.is_joined or self._resync) and not self._closed and self._gone is None:
            self._ask_to_join(limit)
            if limit.expired():
                raise OperationTimeout(
                    f"the connection to {self._peer} could not be joined in the time allowed"
                )
            time.sleep(min(JOIN_LOOK_S, limit.left()))
        self._check_open()
        return self._client


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows as lists, tuples and dicts, some at a time."""
    left = iter(rows)
    while chunk := list(islice(left, CHUNK_ROWS)):
        kinds = set(map(type, chunk))
        if not kinds <= _ROWS:
            yield [_row(row) for row in chunk]
        else:
            yield chunk


def _row(row: Any) -> Any:
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, Iterable) and not isinstance(row, (str, bytes, bytearray)):
        return list(row)
    record = record_values(row)
    if record is not None:
        return record
    raise TypeError(f"executemany takes rows of values, and one of them is a {type(row).__name__}")


def _given(binds: tuple[Any, ...]) -> Any:
    return dict(binds[0]) if len(binds) == 1 and isinstance(binds[0], Mapping) else list(binds)
