"""Statements on a database connection: exec, query and executemany, each with its transaction."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trunkline.deadline import Deadline
from trunkline.errors import StatementError, TrunklineError
from trunkline.proxy.membership import Membership
from trunkline.proxy.requesting import GRACE_S, Requests
from trunkline.proxy.result import ExecResult
from trunkline.proxy.rows import Rows
from trunkline.proxy.transaction import BARE, OVER, Transaction
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.foreign import record_values
from trunkline.wire.table import pack_rows, unpack_rows

__all__ = ["Statements", "binds_of"]

_FOR_ITSELF = (
    "this thread has a transaction open on the same database connection, by another object, and would wait"
    " for itself; end that one first"
)
BULK_BYTES = 1 << 30
"""The largest body of a message in bytes (see trunkline.wire.framing)."""

CHUNK_ROWS = 1000
"""Rows of an `executemany` packed, and unpacked, together."""
_ROWS = frozenset((list, tuple, dict))
"""Types of rows packed without conversion."""

Part = Callable[[bytes], None]
"""A callback for a part of a result that comes before the result's end."""


class Statements:
    """The statements of one object. These methods raise; `Connection` answers failure as its form
    says."""

    def __init__(self, member: Membership, requests: Requests) -> None:
        self._member = member
        self._requests = requests
        self._query_numbers = itertools.count(1)
        self.local: threading.local
        """The thread's attribute `transaction` refers to the transaction whose block the thread is
        in."""
        self.bare: bool
        """A statement of this object (BEGIN) has begun a transaction, which is open."""
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: forget the transactions, which are the parent's."""
        self.local = threading.local()
        self.bare = False

    def token(self) -> bytes | None:
        """The token of the transaction that this thread is in; None outside of a transaction."""
        block = Transaction.of_thread(self.local)
        if block is not None:
            return block.token
        return BARE if self.bare else None

    def execute(
        self, sql: str, binds: Any, timeout: float | None, token: bytes | None
    ) -> ExecResult:
        """Run a statement and return its whole result. `timeout`: milliseconds, None for no limit.

        `token`: the statement's transaction. A large result comes in parts.
        """
        rows: list[Any] = []

        def part(body: bytes) -> None:
            rows.extend(unpack_rows(body))

        result = self._result(self._run(Kind.EXEC, "exec", sql, (binds,), timeout, token, part))
        if rows:
            rows.extend(result["values"])
            result["values"] = rows
        return result

    def executemany(
        self, sql: str, rows: Iterable[Any], timeout: float | None, token: bytes | None
    ) -> ExecResult:
        """Run a statement for each row. TypeError for rows of mixed forms."""
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise TypeError(f"executemany takes rows, not {type(rows).__name__}")
        count, chunks = 0, []
        by_name: bool | None = None
        for chunk in _chunks(rows):
            kinds = set(map(type, chunk))
            if by_name is None:
                by_name = kinds == {dict}
            if (dict in kinds) != by_name or (by_name and len(kinds) > 1):
                raise TypeError(
                    "the rows of executemany are either all mappings or all lists and tuples"
                )
            count += len(chunk)
            chunks.append(pack_rows(chunk))
        given = (chunks, CHUNK_ROWS, count)
        return self._result(
            self._run(Kind.EXECUTEMANY, "executemany", sql, given, timeout, token, None)
        )

    def _result(self, answer: bytes) -> ExecResult:
        """The result of an answer. Takes note of a transaction that the statement has begun or
        ended."""
        result = ExecResult(values.unpack(answer))
        self.bare = result.pop("in_transaction", False)
        return result

    def query(self, sql: str, binds: Any, timeout: float | None, token: bytes | None) -> Rows:
        """Run a statement and return an iterator over its rows."""
        member = self._member
        number = next(self._query_numbers)
        try:
            answer = self._run(Kind.QUERY, "query", sql, (binds, number), timeout, token, None)
            columns, self.bare, more, batch = values.unpack(answer)
            return Rows(
                member.owner(), columns, unpack_rows(batch), number if more else None, timeout
            )
        except BaseException:
            # The query may have begun, and the worker would keep its batch ready.
            member.client.tell(member.key, Kind.END_QUERY, (member.holder_id, number))
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
        """Check the arguments, send the statement, and return the body of its answer.

        `what`: the method's name for the texts of errors. `given`: the fields behind the SQL text.
        """
        member = self._member
        if not isinstance(sql, str):
            raise TypeError(f"{what} takes SQL text, not {type(sql).__name__}")
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float))
        ):
            raise TypeError(
                f"{what}'s timeout is a number of milliseconds, not {type(timeout).__name__}"
            )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"{what}'s timeout is in milliseconds and must be above zero")
        # A query of a database server has a link of its own, and so does not wait in the line.
        in_line = kind is not Kind.QUERY or member.about.scheme == "sqlite3"
        if in_line and timeout is None and token is None and Transaction.holds_up(member.key):
            raise StatementError(_FOR_ITSELF)
        deadline = Deadline(None if timeout is None else timeout / 1000 + GRACE_S)
        at = None if timeout is None else deadline.at - GRACE_S
        body = values.pack([sql, *given])
        if len(body) >= BULK_BYTES:
            raise ValueError(f"{len(body):,} bytes are too much for one {what}; give it in several")
        try:
            return self._requests.request_until_taken(
                kind, (token, timeout, at), body, deadline, part
            )[0]
        except TrunklineError as error:
            if error.code == OVER:
                self.bare = False
            raise


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows as lists, tuples and dicts, at most `CHUNK_ROWS` at a time."""
    left = iter(rows)
    while chunk := list(itertools.islice(left, CHUNK_ROWS)):
        kinds = set(map(type, chunk))
        if not kinds <= _ROWS:
            yield [_row(row) for row in chunk]
        else:
            yield chunk


def _row(row: Any) -> Any:
    """One row as a list or a dict. TypeError for an object that is no row."""
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, Iterable) and not isinstance(row, (str, bytes, bytearray)):
        return list(row)
    record = record_values(row)
    if record is not None:
        return record
    raise TypeError(f"executemany takes rows of values, and one of them is a {type(row).__name__}")


def binds_of(binds: tuple[Any, ...]) -> Any:
    """The values of a statement: a dict for one mapping, else a list."""
    return dict(binds[0]) if len(binds) == 1 and isinstance(binds[0], Mapping) else list(binds)
