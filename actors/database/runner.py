"""The work of the driver thread with jobs: find a link, run the job, answer, go on.

All code of this module runs on the driver thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from trunkline.actors.database.answers import Results
from trunkline.actors.database.handover import Handover
from trunkline.actors.database.jobs import Finished, Job, is_in_transaction
from trunkline.actors.database.line import Line, Waiting
from trunkline.actors.database.link import Link
from trunkline.actors.database.requests import Requests
from trunkline.actors.database.thread import DriverThread, call_on_loop
from trunkline.actors.driver import ExecDriver, Result
from trunkline.errors import StatementError
from trunkline.wire.envelope import Kind, header
from trunkline.wire.state import State

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest
    from trunkline.actors.process.worker import Worker

__all__ = ["Answer", "Owner", "Runner"]

Answer = tuple[bytes, Exception | None]
"""Body and error of the answer to one statement of a group."""


class Owner(Protocol):
    """The actor, as the runner sees it. The methods are called on the event loop."""

    worker: Worker
    state: State

    def finish(self, finished: Finished) -> None:
        """Note the end of a job, and answer the job unless it is answered."""

    def finish_group(
        self, group: Sequence[Waiting[Job]], answers: Sequence[Answer], is_inside: bool
    ) -> None:
        """Note the end of a group. Statements without an answer were not run."""

    def answer(self, job: Job, *, body: bytes = b"", error: Exception | None = None) -> None:
        """Answer a job unless it is answered, and release its timer and its client's socket."""


class Runner:
    """Runs jobs on the shared link."""

    def __init__(
        self,
        owner: Owner,
        line: Line[Job],
        link: Link,
        handover: Handover,
        thread: DriverThread,
        requests: Requests,
        results: Results,
    ) -> None:
        self._owner = owner
        self._loop = owner.worker.loop
        self._line = line
        self._link = link
        self._handover = handover
        self._thread = thread
        self._requests = requests
        self._results = results
        self.statements = 0
        """How many statements were run, with success or not."""

    def run(self, waiting: Waiting[Job]) -> None:
        """Run a job, and the jobs behind it that need no decision of the event loop."""
        following: Waiting[Job] | None = waiting
        while following is not None:
            following = self._run_one(following)

    def run_group(self, group: Sequence[Waiting[Job]]) -> None:
        """Run several statements with one commit."""
        outcomes: list[Result | Exception] = []
        try:
            driver = self._ready_driver(group[0])
            outcomes = [*driver.execute_together([w.job.joins for w in group if w.job.joins])]
        except Exception as error:
            outcomes = [error] * len(group)
            if isinstance(error, ConnectionError):
                self._link.drop()
        self.statements += len(outcomes)
        answers = [
            self._answer_one(w.job, outcome) for w, outcome in zip(group, outcomes, strict=False)
        ]
        is_inside = is_in_transaction(self._link.driver)
        call_on_loop(self._loop, self._owner.finish_group, group, answers, is_inside)

    def run_message(self, client: Guest, head: bytes, body: bytes) -> bool:
        """Run a statement that the driver thread has read from a client's socket.

        Returns False if the event loop has to take the request.
        """
        waiting = self._requests.read_plain_exec(client, head, body)
        if waiting is None or self._owner.state is not State.OPEN or self._link.driver is None:
            return False
        if not self._handover.start_from_client(waiting):
            return False
        self.run(waiting)
        return True

    def _run_one(self, waiting: Waiting[Job]) -> Waiting[Job] | None:
        """Run a job and answer it, or have the event loop answer it.

        Returns the job that has begun in its place;
        None if the driver thread is to wait for work.
        """
        job = waiting.job
        body, error = b"", None
        try:
            # The event loop writes `is_unwanted` and then reads `has_begun`.
            # This thread writes `has_begun` and then reads `is_unwanted`.
            # In every order at least one thread sees the flag of the other.
            # So a caller who is told that nothing was run can rely on that.
            _refuse_unwanted(job)
            driver = self._ready_driver(waiting)
            job.has_begun = True
            _refuse_unwanted(job)
            body = job.run(driver)
            is_inside = driver.in_transaction()
        except Exception as caught:
            error = caught
            if isinstance(caught, ConnectionError):
                self._link.drop()
            is_inside = is_in_transaction(self._link.driver)
        if is_inside and job.what in ("commit", "rollback"):
            self._break_endless_transaction(error)
            is_inside = False
        if job.what == "exec":
            self.statements += 1
        finished = Finished(waiting, body, error, is_inside)
        if self._answer_at_once(finished):
            if self._handover.leave_unnoted(finished):
                # The line was empty, and the event loop may note the end later.
                # Meanwhile this thread may read the client's next statement.
                if job.keeps_client and job.client is not None:
                    self._thread.attend(job.client, self.run_message)
                return None
            following = self._handover.start_following(job) if self._thread.is_idle() else None
            if following is not None:
                # The event loop still has to cancel the timer and to watch the socket.
                if job.timer is not None or job.client is not None:
                    call_on_loop(self._loop, self._owner.answer, job)
                return following
        # Other ends need the event loop: an error, a transaction that begins or ends, an answer
        # that cannot be sent from here, or a choice among waiting statements.
        call_on_loop(self._loop, self._owner.finish, finished)
        return None

    def _answer_at_once(self, finished: Finished) -> bool:
        """Answer a job that needs nothing from the event loop.

        Returns whether that was possible.

        An end at which a transaction began or ended is left to the event loop, which must know of
        the transaction before the next statement.
        """
        is_settled = finished.error is None and finished.is_inside == (self._line.owner is not None)
        if not is_settled or self._owner.state is not State.OPEN:
            return False
        return self._send_answer(finished.waiting.job, finished.body)

    def _send_answer(self, job: Job, body: bytes) -> bool:
        """Answer a client that came in by the door, from the driver thread.

        Returns whether that was possible.
        """
        if job.what == "exec" and not job.is_answered and not job.is_unwanted and job.sender:
            head = header(Kind.REPLY, job.request_id)
            job.is_answered = self._owner.worker.mailbox.answer(job.sender, head, body)
            return job.is_answered
        return False

    def _answer_one(self, job: Job, outcome: Result | Exception) -> Answer:
        """The answer to one statement of a group.

        Sends the answer at once if the driver thread can.
        """
        if isinstance(outcome, Exception):
            return b"", outcome
        assert self._link.driver is not None
        try:
            body = self._results.pack_result(self._link.driver, outcome, None)
        except Exception as error:
            return b"", error
        self._send_answer(job, body)
        return body, None

    def _ready_driver(self, waiting: Waiting[Job]) -> ExecDriver:
        return self._link.ready_driver(
            waiting.job,
            in_block=waiting.token is not None,
            is_transaction_open=self._line.owner is not None,
        )

    def _break_endless_transaction(self, error: Exception | None) -> None:
        """Drop the link of a transaction that the server does not end, such as an XA transaction.

        The transaction would keep the link for ever.
        """
        text = f"a transaction could not be ended ({error}); its link is broken instead"
        call_on_loop(self._loop, self._owner.worker.log, "warning", text)
        self._link.drop()


def _refuse_unwanted(job: Job) -> None:
    """Raise StatementError for a job that no caller waits for."""
    if job.is_unwanted:
        raise StatementError("interrupted")
