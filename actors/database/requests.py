"""From a request to a job: the fields of the request, whether it may run, and its time limit.

The event loop does this for most requests.
The driver thread does this for requests that it reads from a client's socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trunkline.actors.database.admission import refuse_statement
from trunkline.actors.database.answers import Results
from trunkline.actors.database.jobs import Job, do_nothing
from trunkline.actors.database.line import Line, Waiting
from trunkline.actors.driver import ExecDriver
from trunkline.deadline import Deadline
from trunkline.errors import StatementError, TrunklineError
from trunkline.sqltext import Dialect
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, parse

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest
    from trunkline.actors.process.worker import Worker

__all__ = ["Requests"]


class Requests:
    """Makes the jobs of one connection.

    Keeps no state besides its constructor's arguments, so both threads may call its methods.
    """

    def __init__(self, worker: Worker, line: Line[Job], results: Results, dialect: Dialect) -> None:
        self._worker = worker
        self._line = line
        self._results = results
        self._dialect = dialect
        self._dials_s = float(worker.address.option("timeout"))

    def make_job(
        self,
        sender: bytes,
        request_id: int,
        timeout_ms: float | None,
        *,
        what: str = "exec",
        run: Callable[[ExecDriver], bytes] = do_nothing,
    ) -> Job:
        """A new job whose time begins now.

        `timeout_ms`: the time in milliseconds, None for no limit.
        `sender`: the client socket.
        """
        deadline = Deadline.after_ms(timeout_ms)
        dials_s = self._dials_s if deadline.timeout() is None else deadline.left()
        return Job(sender, request_id, run, deadline, Deadline(dials_s), what=what)

    def left_ms(self, timeout_ms: float | None, until: float | None) -> float | None:
        """The rest of a request's time in milliseconds; None for no limit.

        The rest is negative when the time is over.

        `until`: the end by the clock that all processes of the machine share; None if unknown.
        """
        if timeout_ms is None or until is None:
            return timeout_ms
        return self._worker.mailbox.left_ms(timeout_ms, until)

    def find_refusal(
        self, sql: str, holder: bytes, token: bytes | None, *, is_apart: bool = False
    ) -> StatementError | None:
        """The error of a statement that must not run; None if the statement may run.

        `is_apart`: the statement is a query with a link of its own.
        """
        return refuse_statement(
            sql,
            self._dialect,
            token,
            is_over=self._line.stale(token),
            is_shared=is_apart
            or self._worker.record["handle"] is not None
            or len(self._worker.holders) > 1,
            owns_link=self._line.may_enter(holder, token),
        )

    def read_plain_exec(self, client: Guest, head: bytes, body: bytes) -> Waiting[Job] | None:
        """The statement of a request that may run without the event loop; None for others.

        Only an EXEC without a deadline and outside of a transaction may. Called on the driver
        thread.
        """
        try:
            kind, request_id, fields = parse(head)
            if kind is not Kind.EXEC:
                return None
            holder, token, timeout_ms, _ = messages.Statement(*fields)
            if token or timeout_ms is not None:
                return None
            sql, binds = values.unpack(body)
            if self.find_refusal(sql, holder, None) is not None:
                return None
        except (TrunklineError, ValueError, TypeError, IndexError):
            # The event loop reads the request again and answers with the error.
            return None
        job = self.make_job(client.name, request_id, None)
        job.run = lambda driver: self._results.run_statement(driver, sql, binds, None, job)
        job.client = client
        return Waiting(holder, None, job)
