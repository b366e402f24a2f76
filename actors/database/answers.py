"""Results on their way out of a worker: rows in batches of about the same size, whatever a row holds."""

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
"""Of packed rows: small enough to be no memory, large enough that a round trip is nothing."""
LONGEST = 20_000
"""Rows of a batch, however small they are."""
TAKEN_S = 5.0
"""How long who asked may take nothing of a long answer: the others wait for him."""
LARGEST_ANSWER = MAX_BYTES - 4096


class Batches:
    """The rows of a driver, batch by batch."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._count = FIRST_ROWS
        self.more = True
        """Whether there may be another batch."""

    def measured(self, rows: int, packed: int) -> None:
        """So many rows were so many bytes: the next batch is made to fit."""
        if rows:
            self._count = max(1, min(LONGEST, BATCH_BYTES * rows // max(1, packed)))

    def next(self) -> Sequence[Any]:
        """The next rows; none at the end."""
        count = self._count
        found = self._rows.fetch(count)
        if len(found) < count:
            self.more = False
            self._rows.close()
        return found

    def packed(self, *before: Any) -> tuple[int, bytes]:
        """The next rows as one packed value, behind what is given and whether more may come; and how many."""
        rows = self.next()
        body = values.pack([*before, self.more, pack_rows(rows)])
        self.measured(len(rows), len(body))
        return len(rows), body

    def close(self) -> None:
        self.more = False
        self._rows.close()


class Results:
    """What statements gave, as the answers to those who sent them. Called on the driver's thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.rows = 0
        """How many were given so far."""

    def run(self, driver: ExecDriver, sql: str, binds: Any, token: bytes | None, job: Job) -> bytes:
        """Execute a statement. Returns the body of its answer; long results are sent in parts before."""
        result = driver.execute(sql, binds)
        if result.rest is not None:
            self._send_ahead(Batches(result.rest), result.values, job)
            result.values = []
        return self.packed(driver, result, token)

    def packed(self, driver: ExecDriver, result: Result, token: bytes | None) -> bytes:
        """A result as the body of an answer."""
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
            answer["in_transaction"] = True  # for the proxy: its next statement belongs to this transaction
        body = values.pack(answer)
        if len(body) > LARGEST_ANSWER:
            text = f"the result takes {len(body):,} bytes, more than one answer holds; ask for a part of it"
            raise StatementError(text)
        return body

    def _send_ahead(self, batches: Batches, rows: Sequence[Any], job: Job) -> None:
        """Send a long result in parts while it is fetched."""
        try:
            while rows:
                body = pack_rows(rows)
                self.rows += len(rows)
                batches.measured(len(rows), len(body))
                self._send_part(job, body)
                rows = batches.next() if batches.more else ()
        finally:
            batches.close()

    def _send_part(self, job: Job, body: bytes) -> None:
        head = header(Kind.PART, job.request_id)
        mailbox = self._worker.mailbox
        guest = mailbox.guest(job.sender)
        if guest is not None:
            taken = guest.send_when_taken(head, body, TAKEN_S, lambda: job.timed_out or job.answered)
        else:
            taken = not (job.sender.startswith(b"direct-") or job.timed_out or job.answered)
            if taken:
                self._worker.loop.call_soon_threadsafe(mailbox.send, job.sender, head, body)
        if not taken:
            raise StatementError("whoever asked for these rows does not take them")


def _as_lists(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    return [*map(list, rows)] if rows and type(rows[0]) is tuple else rows
