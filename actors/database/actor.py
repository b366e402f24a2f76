"""The actor behind databases: one shared link, one statement at a time, for many holders.

Two threads share a connection:

* The event loop runs the methods of this module. The event loop takes requests, keeps the line of
  statements (`line`), watches deadlines (`interrupts`) and notes ends.
* The driver thread (`thread`) calls the driver and runs jobs (`runner`). The driver thread sends
  most answers without the event loop.

`handover` holds the state that both threads change.
The decisions are pure functions in `line`, `admission` and `outcomes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.actors.database import admission
from trunkline.actors.database.answers import Results
from trunkline.actors.database.bulk import BulkRows
from trunkline.actors.database.handover import Handover
from trunkline.actors.database.interrupts import Interrupts
from trunkline.actors.database.jobs import Finished, Job, roll_back_transaction, shorten_error
from trunkline.actors.database.line import Line, Waiting
from trunkline.actors.database.link import Link
from trunkline.actors.database.outcomes import explain_end, explain_loss, explain_outcome
from trunkline.actors.database.queries import Queries
from trunkline.actors.database.requests import Requests
from trunkline.actors.database.runner import Answer, Runner
from trunkline.actors.database.thread import DriverThread, call_on_loop
from trunkline.actors.database.transactions import Transactions
from trunkline.actors.driver import Ending, ExecDriver
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, StatementError, Unsupported, to_wire
from trunkline.sqltext import Dialect
from trunkline.wire import messages, values
from trunkline.wire.envelope import STATEMENTS, Kind, header
from trunkline.wire.state import State
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.actors.process.worker import Worker

__all__ = ["ExecActor"]

ROLLBACK_MS = 5_000
"""Milliseconds that the rollback of a transaction may take whose holder has left."""
MOST_IN_GROUP = 64
"""How many statements may share one commit."""
CLOSE_S = 1.0
"""Seconds that the driver may take to close."""
JOIN_QUERIES_S = 0.5
"""Seconds that `close` waits for the threads of stopped queries."""


class ExecActor:
    """The actor of a database connection. All methods run on the event loop."""

    def __init__(self, worker: Worker, driver: type[ExecDriver]) -> None:
        self.worker = worker
        self.address = worker.address
        self.state = State.DIALING
        self.line: Line[Job] = Line()
        self.link = Link(worker.address, driver, self._warn, self._tell_outage)
        self.thread = DriverThread(worker.loop, lambda *message: worker.mailbox.deliver(*message))
        self.handover = Handover(self.line)
        self.results = Results(worker)
        self.requests = Requests(worker, self.line, self.results, Dialect(driver.dialect))
        self.runner = Runner(
            self, self.line, self.link, self.handover, self.thread, self.requests, self.results
        )
        self.queries = Queries(
            worker.loop, self.link, self.thread, answer=self.answer, enqueue=self.enqueue
        )
        self.interrupts = Interrupts(
            worker.loop,
            self.line,
            self.link,
            self.handover,
            answer=self.answer,
            collect=self.collect,
            finish=self.finish,
        )
        self.transactions = Transactions(
            self.line, self.handover, self.interrupts, answer=self.answer, enqueue=self.enqueue
        )
        self._base = worker.base_stats()
        self._last_error: str | None = self._base.last_error
        self._may_run = False
        """The first dial has ended. Statements that came by the door before may run now."""
        self._opened_at = 0.0

    # life

    async def open(self, deadline: Deadline) -> None:
        """Connect by the deadline; without a deadline, within option `timeout`.

        Raises DialError or TimeoutError.
        A worker that replaces a crashed worker connects the same way, but raises nothing.
        """
        self.thread.start()
        if deadline.left_ms() is None:
            deadline = Deadline(float(self.address.option("timeout")))
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self.thread.call(lambda: self.link.connect(deadline))
        except TimeoutError as error:
            if isinstance(error, DialError):
                self._note_failed_dial(error)
            else:
                text = f"{self.address.display} could not be opened in the time allowed"
                self._note_failed_dial(DialTimeout(text))
        except DialError as error:
            self._note_failed_dial(error)
        else:
            self.state = State.OPEN
            self._opened_at = time.time()
        self._may_run = True
        self._advance()

    def _note_failed_dial(self, error: DialError) -> None:
        """Raise `error`, unless this worker replaces a crashed worker.

        The replacement stays alive and lets the next statement dial again: by then the server may
        accept even a login that the server refuses now.
        """
        if not self.worker.succeeds:
            self.state = State.FAILED
            raise error
        self.state = State.DOWN
        self.worker.log("warning", f"{self.address.display} could not be opened again yet: {error}")

    async def close(self, ending: Ending) -> None:
        """End the connection: answer or stop all statements, close the driver.

        Takes a few seconds at most. A driver that does not close in time is left behind in the
        driver thread, which is a daemon thread.
        """
        if self.state is not State.FAILED:
            self.state = State.CLOSED
        for waiting in self.line.leave_all():
            self._answer_not_run(waiting)
        self.queries.stop_all()
        # The line is empty now, so no statement follows the one that `end` interrupts.
        self.link.redial.stop()
        driver = self.link.driver
        if driver is not None:
            await self.interrupts.end()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await self.thread.call(driver.close)
        self.queries.wait_for_stopped(JOIN_QUERIES_S)
        self.thread.stop()

    def _warn(self, text: str) -> None:
        """Write a line into the user's log. Called from any thread."""
        call_on_loop(self.worker.loop, self.worker.log, "warning", text)

    def _tell_outage(self, text: str) -> None:
        """Write a line about the link into the log, and tell the link's state.

        Called on the driver thread while the driver thread dials, so that programs hear of the
        outage before the statement ends.
        """
        self._warn(text)
        call_on_loop(self.worker.loop, self._note_state)

    # holders and clients

    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None:
        """Take a new holder.

        `old` is the former name of a holder that has joined another broker, else empty.
        """
        if old:
            self.line.rename(old, holder)
            self.queries.rename_holder(old, holder)
            running = self.handover.running
            if running is not None and running.holder == old:
                running.holder = holder

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """Do nothing: a database streams no messages to a holder."""

    def note(self) -> None:
        """Do nothing: the counters of a database are not kept in the ledger."""

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """Forget a holder: end its statements, and roll back its transaction."""
        self.collect()
        for waiting in self.line.leave(holder):
            self._answer_not_run(waiting)
        self.queries.end_queries_of(holder)
        running = self.handover.running
        if running is not None and running.holder == holder:
            running.job.is_object_closed = True
            self.interrupts.give_up(running)
        if self.line.owner_holder == holder and self.line.owner is not None:
            self._roll_back(holder, self.line.owner)
            self.worker.log("warning", "a holder was gone in a transaction; it is rolled back")

    def left(self, sender: bytes) -> None:
        """End the statement of a client that hung up before the answer came (Ctrl-C, a kill).

        A running statement is stopped. A waiting statement is taken out of the line.
        """
        self.collect()
        running = self.handover.running
        if running is not None and running.job.sender == sender and running.job.what == "exec":
            self.interrupts.give_up(running)
        for waiting in self.line.find(
            lambda each: each.job.sender == sender and each.job.what in ("exec", "begin")
        ):
            if self.line.remove(waiting):
                self.answer(waiting.job, error=StatementError("nobody waits for it any more"))
            else:  # the driver thread has just taken it
                self.interrupts.give_up(waiting)

    def _roll_back(self, holder: bytes, token: bytes) -> None:
        """Put a rollback of the transaction `token` into the line.

        The rollback has `ROLLBACK_MS`.
        """
        job = self.requests.make_job(
            b"", 0, ROLLBACK_MS, what="rollback", run=roll_back_transaction
        )
        self.enqueue(Waiting(holder, token, job))

    # requests

    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None:
        """Take a request of a client.

        `fields` are those of the message kind (`trunkline.wire.messages`).
        """
        self.collect()
        requests = self.requests
        if kind in STATEMENTS:
            statement = messages.Statement(*fields)
            left_ms = requests.left_ms(statement.timeout_ms, statement.until)
            job = requests.make_job(sender, request_id, left_ms)
            self._take_statement(kind, statement.holder, statement.transaction, job, body[0])
        elif kind is Kind.FETCH:
            fetch = messages.Fetch(*fields)
            job = requests.make_job(sender, request_id, fetch.timeout_ms, what="fetch")
            self.queries.fetch_rows((fetch.holder, fetch.query), job)
        elif kind is Kind.END_QUERY:
            end = messages.EndQuery(*fields)
            job = requests.make_job(sender, request_id, None, what="end")
            self.queries.end_query((end.holder, end.query), job)
        elif kind is Kind.TRANSACTION:
            transaction = messages.Transaction(*fields)
            left_ms = requests.left_ms(transaction.timeout_ms, transaction.until)
            what, _, modes = transaction.what.partition(" ")
            job = requests.make_job(sender, request_id, left_ms, what=what)
            self.transactions.take_request(transaction.holder, transaction.transaction, job, modes)
        elif kind is Kind.READ:
            number = messages.Read(*fields).number
            push = messages.Push(0, True, False, 0, False, [], number)
            self.worker.mailbox.send(sender, header(Kind.PUSH, 0, *push), values.pack([]))
        elif kind is Kind.WRITE:
            error = Unsupported(f"{self.address.scheme}:// has no write: use exec")
            told = messages.Error(to_wire(error))
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, *told))

    def _take_statement(
        self, kind: Kind, holder: bytes, token: bytes | None, job: Job, body: bytes
    ) -> None:
        """Take an EXEC, EXECUTEMANY or QUERY."""
        if job.deadline.expired():
            self.answer(job, error=admission.explain_late_arrival())
            return
        sql, binds, *more = values.unpack(body)
        is_apart = kind is Kind.QUERY and token is None and self.link.driver_class.queries_apart
        refusal = self.requests.find_refusal(sql, holder, token, is_apart=is_apart)
        results = self.results
        if refusal is not None:
            self.answer(job, error=refusal)
        elif kind is Kind.EXEC:
            self._take_exec(holder, token, job, sql, binds)
        elif kind is Kind.EXECUTEMANY:
            rows = BulkRows(binds, *more)
            job.run = lambda driver: results.pack_result(
                driver, driver.executemany(sql, rows), token
            )
            self.enqueue(Waiting(holder, token, job))
        elif is_apart:
            self.queries.begin_apart((holder, more[0]), job, sql, binds)
        else:
            key = (holder, more[0])
            job.run = lambda driver: self.queries.begin_beside(driver, key, token, job, sql, binds)
            self.enqueue(Waiting(holder, token, job))

    def _take_exec(
        self, holder: bytes, token: bytes | None, job: Job, sql: str, binds: Any
    ) -> None:
        """Take an EXEC.

        Statements without a deadline may share a commit or keep their client's socket.
        """
        job.run = lambda driver: self.results.run_statement(driver, sql, binds, token, job)
        is_unlimited = job.deadline.timeout() is None
        if token is None and is_unlimited and self.link.driver_class.joins(sql):
            job.joins = sql, binds
        if not token and is_unlimited and self._runs_at_once():
            job.client = self.worker.mailbox.guest(job.sender)
            # Leave the client's socket to the driver thread, so that the next statement need not
            # pass through the event loop.
            if job.client is not None:
                job.client.claim()
        self.enqueue(Waiting(holder, token, job))

    def _runs_at_once(self) -> bool:
        """Whether a statement that comes now runs at once.

        Only then may the driver thread read the client's socket after the answer.
        """
        is_unused = (
            self.handover.running is None and not self.line.waiting and self.line.owner is None
        )
        return is_unused and self._may_run and self.thread.can_listen

    # the line

    def enqueue(self, waiting: Waiting[Job]) -> None:
        """Put a statement into the line, and begin the next statement if the link is free."""
        if self.state is State.CLOSED:
            self._answer_not_run(waiting)
            return
        self.line.add(waiting)
        left_s = waiting.job.deadline.timeout()
        if left_s is not None:
            waiting.job.timer = self.worker.loop.call_later(left_s, self.interrupts.expire, waiting)
        self._advance()

    def _advance(self) -> None:
        """Give the driver thread the next statement, if the driver thread has none."""
        if self.handover.running is not None:
            self.collect()
        while self.handover.running is None and self._may_run:
            waiting = self.line.next()
            if waiting is None:
                return
            if self.line.stale(waiting.token):
                self._answer_stale(waiting.job)
            elif group := self._take_group(waiting):
                self.handover.start(waiting, is_group=True)
                self.thread.put(partial(self.runner.run_group, group))
            else:
                self.handover.start(waiting)
                self.thread.put(partial(self.runner.run, waiting))

    def _take_group(self, first: Waiting[Job]) -> list[Waiting[Job]]:
        """The statements to commit together with `first`, or none.

        The first of them is `first` itself.
        """
        if first.job.joins is None or first.token is not None or self.line.owner is not None:
            return []
        others = self.line.take_along(lambda job: job.joins is not None, MOST_IN_GROUP - 1)
        return [first, *others] if others else []

    def _answer_stale(self, job: Job) -> None:
        """Answer a job whose transaction ended while the job waited.

        A rollback is answered with success.
        """
        if job.what == "rollback":
            self.answer(job, body=values.pack(None))
        else:
            self.answer(job, error=admission.explain_transaction_over())

    def _answer_not_run(self, waiting: Waiting[Job]) -> None:
        """Answer a statement that leaves the line without being run."""
        is_present = waiting.holder in self.worker.holders
        self.answer(waiting.job, error=admission.explain_not_run(is_holder_present=is_present))

    # ends

    def collect(self) -> None:
        """Note the end of a job that the driver thread has answered and left unnoted."""
        finished = self.handover.take_unnoted()
        if finished is not None:
            self.finish(finished)

    def finish(self, finished: Finished) -> None:
        """Note the end of a job, answer it, and begin the next one."""
        # An interrupt on its way must not meet the next
        # statement, so the end waits until the interrupt returns.
        if self.interrupts.hold_back(finished):
            return
        self.handover.finish()
        job = finished.waiting.job
        if self.link.driver is None:
            self.queries.close_beside()
        error = explain_outcome(
            finished.error,
            job,
            self.address.display,
            in_transaction=self.line.owner is not None,
            is_closed=self.state is State.CLOSED,
        )
        is_lost = isinstance(finished.error, ConnectionError)
        self._note_state()
        self._settle_link(
            finished.waiting,
            is_inside=finished.is_inside and not is_lost,
            has_failed=error is not None,
        )
        self.answer(job, body=finished.body, error=error)
        self._advance()

    def finish_group(
        self, group: Sequence[Waiting[Job]], answers: Sequence[Answer], is_inside: bool
    ) -> None:
        """Note the end of statements that were to be committed together, and answer them.

        `answers` may be shorter than `group`. The statements without an
        answer go back to the front of the line. The first of them then runs
        alone; all of them run alone if the driver ran none of the group.
        """
        is_closed = self.state is State.CLOSED
        for waiting, (body, error) in zip(group, answers, strict=False):
            if isinstance(error, ConnectionError):
                in_transaction = self.line.owner is not None
                error = explain_loss(
                    error, waiting.job, self.address.display, in_transaction=in_transaction
                )
            self.answer(waiting.job, body=body, error=explain_end(error, is_closed=is_closed))
        rest = list(group[len(answers) :])
        # A statement without `joins` runs alone.
        # So a group that fails is not tried again in the same form.
        for waiting in rest[:1] if answers else rest:
            waiting.job.joins = None
        if is_closed:
            for waiting in rest:
                self._answer_not_run(waiting)
        else:
            self.line.put_back(rest)
        self.handover.finish()
        self._note_state()
        self._settle_link(group[0], is_inside=is_inside, has_failed=False)
        self._advance()

    def _settle_link(self, waiting: Waiting[Job], *, is_inside: bool, has_failed: bool) -> None:
        """Give the link to the transaction that is open now.

        Roll back a transaction that no holder waits for.
        """
        job, holder = waiting.job, waiting.holder
        is_given_up = bool(job.begins) and (has_failed or job.is_unwanted)
        is_wanted = holder in self.worker.holders and not is_given_up
        settled = self.line.settle(holder, job.begins, is_inside=is_inside, is_wanted=is_wanted)
        if settled.ended is not None:
            self.queries.close_beside(settled.ended)
        if settled.roll_back is not None:
            self._roll_back(holder, settled.roll_back)

    def _note_state(self) -> None:
        """Note whether there is a link, as the driver thread found last.

        Tell the holders if that has changed.
        """
        state = State.OPEN if self.link.driver is not None else State.DOWN
        if self.link.has_ended:
            state = State.LOST if self.link.redial.ends_at_loss else State.FAILED
        if state is self.state or self.state not in (State.DOWN, State.OPEN):
            return
        self.state = state
        self.worker.say_state()
        if self.link.has_ended:
            self._last_error = str(self.link.redial.end_error())
            self.worker.log("error", self._last_error)

    def answer(self, job: Job, *, body: bytes = b"", error: Exception | None = None) -> None:
        """Answer a job with a body or an error, unless the job is answered already.

        The timer of the job is cancelled. The event loop reads the client's socket again, unless
        the driver thread goes on reading that socket.
        """
        if job.timer is not None:
            job.timer.cancel()
        if job.client is not None and not job.keeps_client:
            job.client.rearm()
        if job.is_answered or not job.sender:
            return
        job.is_answered = True
        if error is None:
            self.worker.mailbox.send(job.sender, header(Kind.REPLY, job.request_id), body)
        else:
            error = shorten_error(error)
            self._last_error = str(error)
            told = messages.Error(to_wire(error))
            self.worker.mailbox.send(job.sender, header(Kind.ERROR, job.request_id, *told))

    # each second

    def tick(self) -> None:
        """Called each second.

        Let the event loop notice if the client of a long statement hangs up. With
        `reconnect=false`, also look whether the server has ended a link that no transaction has.
        """
        self.handover.watch_running_client()
        is_unused = self.line.owner is None
        if self.link.redial.ends_at_loss and self.state is State.OPEN and is_unused:
            self.thread.put(self._look_at_link)

    def _look_at_link(self) -> None:
        """Note a link that the server has ended. Called on the driver thread."""
        if self.link.drop_if_lost():
            call_on_loop(self.worker.loop, self._note_state)

    def bequest(self) -> dict[str, Any]:
        """What the next worker is to know if this worker is killed: nothing.

        A database link keeps no position.
        """
        return {}

    def stats(self) -> Stats:
        """The figures of the connection. The counters continue those of former workers."""
        base = self._base
        return Stats(
            id=str(self.worker.record["number"]),
            scheme=self.address.scheme,
            kind="database",
            peer=self.address.display,
            state=self.state.value,
            pid=os.getpid(),
            incarnation=self.worker.incarnation,
            opened_at=self._opened_at or base.opened_at,
            statements=base.statements + self.runner.statements + self.queries.begun_apart,
            rows=base.rows + self.results.rows + self.queries.rows,
            queries=self.queries.count,
            reconnects=base.reconnects + self.link.reconnects,
            outages=base.outages + self.link.outages,
            holders=len(self.worker.holders),
            last_error=self._last_error,
        )
