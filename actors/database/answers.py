"""Results on their way out of a worker: rows in batches of about the same size in bytes.

All code of this module runs on the thread of the driver that has the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trunkline.actors.driver import FIRST_ROWS, ExecDriver, Result, Rows
from trunkline.errors import StatementError
from trunkline.wire import values
from trunkline.wire.envelope import Kind, header
from trunkline.wire.framing import MAX_BYTES
from trunkline.wire.table import pack_rows

if TYPE_CHECKING:
    from trunkline.actors.database.jobs import Job
    from trunkline.actors.process.worker import Worker

__all__ = ["BATCH_BYTES", "Batches", "Results"]

BATCH_BYTES = 256 * 1024
"""Aim for the packed rows of a batch. Small beside the memory of a process, and so large that the
round trip for a batch costs little beside the rows.
"""
MOST_ROWS = 20_000
"""Rows of a batch at most, however small the rows are."""
MUST_TAKE_S = 5.0
"""Seconds in which a client must take some part of a long answer.
Other statements wait meanwhile.
"""
LARGEST_ANSWER = MAX_BYTES - 4096
"""Bytes of one message, with room for the header."""


class Batches:
    """The rows of a driver, batch by batch."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._count = FIRST_ROWS
        self.more = True
        """Whether there may be another batch."""

    def note_size(self, rows: int, packed: int) -> None:
        """Choose the size of the next batch: as many rows as fit into `BATCH_BYTES`.

        The last batch had `rows` rows, which took `packed` bytes.
        """
        if rows:
            self._count = max(1, min(MOST_ROWS, BATCH_BYTES * rows // max(1, packed)))

    def fetch_next(self) -> Sequence[Any]:
        """The next rows; empty at the end. Errors are those of `Rows.fetch`."""
        count = self._count
        found = self._rows.fetch(count)
        if len(found) < count:
            self.more = False
            self._rows.close()
        return found

    def pack_next(self, *before: Any) -> tuple[int, bytes]:
        """Fetch the next rows.

        Returns their number and a packed list: the values of
        `before`, whether more rows may come, the packed rows.
        """
        rows = self.fetch_next()
        body = values.pack([*before, self.more, pack_rows(rows)])
        self.note_size(len(rows), len(body))
        return len(rows), body

    def close(self) -> None:
        """Give up the rows that were not fetched. Idempotent."""
        self.more = False
        self._rows.close()


class Results:
    """Makes the answers to statements from the results of the driver.

    Called on the driver thread.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.rows = 0
        """Rows of all answers so far."""

    def run_statement(
        self, driver: ExecDriver, sql: str, binds: Any, token: bytes | None, job: Job
    ) -> bytes:
        """Execute a statement.

        Returns the body of the answer; the rows of a long result are sent ahead in parts.

        Raises what the driver raises, and StatementError if the client does not take the parts.
        """
        result = driver.execute(sql, binds)
        if result.rest is not None:
            self._send_ahead(Batches(result.rest), result.values, job)
            result.values = []
        return self.pack_result(driver, result, token)

    def pack_result(self, driver: ExecDriver, result: Result, token: bytes | None) -> bytes:
        """A result as the body of an answer.

        `token`: the transaction of the statement.

        StatementError if the result is larger than a message may be.
        """
        self.rows += len(result.values) + sum(len(each.values) for each in result.more)
        answer: dict[str, Any] = {"columns": result.columns, "values": _as_lists(result.values)}
        if result.more:
            answer["more"] = [
                {"columns": each.columns, "values": _as_lists(each.values)} for each in result.more
            ]
        if result.affected is not None:
            answer["affected"] = result.affected
        if result.matched is not None:
            answer["matched"] = result.matched
        if result.last_id is not None:
            answer["last_id"] = result.last_id
        if not token and driver.in_transaction():
            # The proxy then knows that the next statement
            # of its holder belongs to this transaction.
            answer["in_transaction"] = True
        body = values.pack(answer)
        if len(body) > LARGEST_ANSWER:
            text = f"the result takes {len(body):,} bytes, more than one answer holds; ask for a part of it"
            raise StatementError(text)
        return body

    def _send_ahead(self, batches: Batches, rows: Sequence[Any], job: Job) -> None:
        """Send a long result in parts while the driver fetches the remaining rows."""
        try:
            while rows:
                body = pack_rows(rows)
                self.rows += len(rows)
                batches.note_size(len(rows), len(body))
                self._send_part(job, body)
                rows = batches.fetch_next() if batches.more else ()
        finally:
            batches.close()

    def _send_part(self, job: Job, body: bytes) -> None:
        """Send one part. Waits for the client if the client came by the door: back pressure."""
        head = header(Kind.PART, job.request_id)
        mailbox = self._worker.mailbox
        client = mailbox.guest(job.sender)
        if client is not None:
            is_taken = client.send_when_taken(head, body, MUST_TAKE_S, lambda: _is_over(job))
        else:
            # A client without a socket here is behind the router, or has hung up.
            is_taken = not (job.sender.startswith(b"direct-") or _is_over(job))
            if is_taken:
                self._worker.loop.call_soon_threadsafe(mailbox.send, job.sender, head, body)
        if not is_taken:
            raise StatementError("whoever asked for these rows does not take them")


def _is_over(job: Job) -> bool:
    """Whether the client of a job wants no more rows."""
    return job.is_unwanted or job.is_answered


def _as_lists(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Rows as msgpack packs them: tuples become lists."""
    return [*map(list, rows)] if rows and type(rows[0]) is tuple else rows
