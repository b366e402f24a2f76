"""The actor behind databases: one statement at a time, for many holders. Long because two threads share it,
and what one may do to the other should be read in one place.

The driver is blocking code and has one thread of its own; the loop keeps the line (`line`), the
deadlines and the heartbeat, and interrupts a statement that runs out of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.actors.database import admission
from trunkline.actors.database.admission import (
    Entry,
    admit_transaction,
    explain_transaction_given_up,
    refuse_statement,
)
from trunkline.actors.database.answers import Results
from trunkline.actors.database.bulk import BulkRows
from trunkline.actors.database.jobs import (
    OVER,
    Job,
    LinkLost,
    begin,
    commit,
    nothing,
    over,
    rollback,
    shortened,
    still_inside,
)
from trunkline.actors.database.line import Expiry, Line, Waiting, decide_expiry
from trunkline.actors.database.queries import Queries
from trunkline.actors.database.redial import Redial
from trunkline.actors.driver import Ending, ExecDriver, Result
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    DialError,
    DialTimeout,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    TrunklineError,
    Unsupported,
    to_wire,
)
from trunkline.sqltext import Dialect
from trunkline.wire import messages, values
from trunkline.wire.envelope import STATEMENTS, Kind, header, parse
from trunkline.wire.framing import Inlet
from trunkline.wire.state import State
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest
    from trunkline.actors.process.worker import Worker

__all__ = ["ExecActor"]

INTERRUPT_S = 2.0
"""How long an interrupted statement may take to end before its caller is answered anyway, and its link is
broken."""
CLOSE_S = 1.0
"""How long an interrupt that is under way when the worker ends may take."""
ROLLBACK_MS = 5_000
TOGETHER = 64
"""Statements in one commit."""
STAY_MS = 20
"""How long the driver's thread waits on a guest's socket for his next request."""
AGAIN_S = 0.05
"""An interrupt may come a moment before there is anything to interrupt, so it is repeated."""
AGAIN_ASKED_S = 0.5
"""The same where the server has to be asked."""


class ExecActor:
    """See the module."""

    def __init__(self, worker: Worker, driver: type[ExecDriver]) -> None:
        self.worker = worker
        self.address = worker.address
        self.driver_class = driver
        self.driver: ExecDriver | None = None
        self.state = State.DIALING
        self.line: Line[Job] = Line()
        self._dialect = Dialect(driver.dialect)
        self._running: Waiting[Job] | None = None
        self._opened = False
        self._handover = threading.Lock()
        self._together = False
        """The running statements are several: the link is not broken because one of them is not wanted."""
        self._done: tuple[Waiting[Job], bytes, Exception | None, bool] | None = None
        """A job that is answered and that nobody waits behind: the loop is not woken to note it."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
        self._staying = False
        self._stay_with: Guest | None = None
        self._inlet = Inlet(1 << 16)
        self._thread = threading.Thread(target=self._serve, name="trunkline-driver", daemon=True)
        self._base = worker.base_stats()
        self._last_error: str | None = self._base.last_error
        self._statements = self._reconnects = self._outages = 0
        """Counted by the driver's thread alone."""
        self.redial = Redial(self.address, driver.transient, self._tell_outage)
        self._interrupting = False
        self._interrupt_over = threading.Event()
        """Cleared while another thread is in the driver's `interrupt`."""
        self._interrupt_over.set()
        self._asked = asyncio.Event()
        self._after_interrupt: tuple[Waiting[Job], bytes, Exception | None, bool] | None = None
        self.queries = Queries(self)
        self.results = Results(worker)
        self._opened_at = 0.0
        self._void: deque[bytes] = deque(maxlen=256)
        """Transactions that were given up: one that comes late does not begin."""

    # the driver's thread

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            job()
            guest, self._stay_with = self._stay_with, None
            if guest is not None:
                self._stay(guest)

    def put(self, work: Callable[[], None] | None) -> None:
        self._work.put(work)
        if self._staying:
            os.eventfd_write(self._wake, 1)

    def _stay(self, guest: Guest) -> None:
        """Wait for the next request of the one who was just answered, on his own socket: programs execute one
        statement after the other, and the way through the loop costs two more thread wake-ups each."""
        while True:
            self._staying = True
            messages = guest.listen(self._wake, STAY_MS, self._inlet) if self._work.empty() else []
            self._staying = False
            waiting = self._express(guest, *messages[0]) if len(messages) == 1 else None
            if waiting is None:
                break
            self._run(waiting)
            if self._stay_with is None:
                return  # the loop was told of the job, and has the guest back with it
            self._stay_with = None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with contextlib.suppress(RuntimeError):
            for head, body in messages:
                self.worker.loop.call_soon_threadsafe(self.worker.mailbox.deliver, guest.name, head, body)
            self.worker.loop.call_soon_threadsafe(guest.rearm)

    def _express(self, guest: Guest, head: bytes, body: bytes) -> Waiting[Job] | None:
        """The job of a request that may run at once, without the loop; None for any other."""
        try:
            kind, request_id, fields = parse(head)
            if kind is not Kind.EXEC or fields[1] or fields[2] is not None:
                return None
            sql, binds = values.unpack(body)
            if self._refusal(sql, fields[0], None) is not None:
                return None
        except (TrunklineError, ValueError, TypeError, IndexError):
            return None  # the loop will say what is wrong with it
        job = self._job(guest.name, request_id, None, nothing, "exec")
        job.run = lambda driver: self.results.run(driver, sql, binds, None, job)
        job.guest = guest
        waiting = Waiting(fields[0], None, job)
        with self._handover:
            alone = self._done is not None and not self.line.waiting and self.line.owner is None
            if not alone or self.state is not State.OPEN or self.driver is None:
                return None
            self._done, self._running = None, waiting
        return waiting

    async def _on_thread(self, work: Callable[[], Any]) -> Any:
        future: asyncio.Future[Any] = self.worker.loop.create_future()

        def run() -> None:
            try:
                answer, error = work(), None
            except BaseException as caught:
                answer, error = None, caught
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self.worker.loop.call_soon_threadsafe(settle, answer, error)

        def settle(answer: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_result(answer) if error is None else future.set_exception(error)

        self.put(run)
        return await future

    async def open(self, deadline: Deadline) -> None:
        """Connect. A worker that replaces a crashed one connects again the same way."""
        self._thread.start()
        if deadline.left_ms() is None:
            deadline = Deadline(float(self.address.option("timeout")))
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self._on_thread(lambda: self._connect(deadline))
        except TimeoutError as error:
            if isinstance(error, DialError):
                self._first_dial_failed(error)
            else:
                self._first_dial_failed(
                    DialTimeout(f"{self.address.display} could not be opened in the time allowed")
                )
        except DialError as error:
            self._first_dial_failed(error)
        else:
            self.state = State.OPEN
            self._opened_at = time.time()
        self._opened = True
        self._advance()  # what came in by the door meanwhile

    def _first_dial_failed(self, error: DialError) -> None:
        """Raise the error, unless a former worker had the link: then the next statement tries again, for
        even a refused login or certificate may be accepted by then."""
        if not self.worker.succeeds:
            self.state = State.FAILED
            raise error
        self.state = State.DOWN
        self.worker.log("warning", f"{self.address.display} could not be opened again yet: {error}")

    def _connect(self, deadline: Deadline) -> None:
        driver = self.driver_class(self.address)
        driver.warn = self.warn
        driver.open(deadline)
        self.driver = driver

    def warn(self, text: str) -> None:
        """A line in the user's log, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.worker.loop.call_soon_threadsafe(self.worker.log, "warning", text)

    def _tell_outage(self, text: str) -> None:
        """On the driver's thread, while it dials: the state is told before a statement ends, too."""
        self.warn(text)
        with contextlib.suppress(RuntimeError):
            self.worker.loop.call_soon_threadsafe(self._note_state)

    async def close(self, ending: Ending) -> None:
        driver = self.driver
        if self.state is not State.FAILED:
            self.state = State.CLOSED
        for waiting in self.line.leave_all():
            self._answer_not_run(waiting)
        self.queries.stop()
        self.redial.stop()
        if driver is not None:
            if self._running is not None:
                self._interrupt_driver()
                if self._interrupting:  # a server may not notice that we are gone
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CLOSE_S):
                            await self._asked.wait()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._on_thread(driver.close)
        self.queries.join(0.5)
        self.put(None)

    # requests

    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None:
        if old:
            self.line.rename(old, holder)
            self.queries.rename(old, holder)
            if self._running is not None and self._running.holder == old:
                self._running.holder = holder

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """Nothing is streamed here."""

    def note(self) -> None:
        """What was executed is not kept for the time after a crash."""

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """A holder is gone: what it waits for is stopped or not run, and its transaction is rolled back."""
        self._collect()
        for waiting in self.line.leave(holder):
            self._answer_not_run(waiting)
        self.queries.leave(holder)
        running = self._running
        if running is not None and running.holder == holder:
            running.job.closed = True
            self._give_up(running)
        if self.line.owner_holder == holder and self.line.owner is not None:
            self._roll_back(holder, self.line.owner)
            self.worker.log("warning", "a holder was gone in a transaction; it is rolled back")

    def left(self, sender: bytes) -> None:
        """Who asked hung up before the answer (Ctrl-C, a kill): its statement is stopped, or not begun."""
        self._collect()
        running = self._running
        if running is not None and running.job.sender == sender and running.job.what == "exec":
            self._give_up(running)
        for waiting in [
            w for w in self.line.waiting if w.job.sender == sender and w.job.what in ("exec", "begin")
        ]:
            self.line.remove(waiting)
            self.answer(waiting.job, error=StatementError("nobody waits for it any more"))

    def _roll_back(self, holder: bytes, token: bytes) -> None:
        self.enqueue(Waiting(holder, token, self._job(b"", 0, ROLLBACK_MS, rollback, "rollback")))

    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None:
        self._collect()
        if kind in STATEMENTS:
            holder, token, timeout_ms, at = messages.Statement(*fields)
            if timeout_ms is not None and at is not None:
                timeout_ms = self.worker.mailbox.left_ms(timeout_ms, at)
            job = self._job(sender, request_id, timeout_ms, nothing, "exec")
            self._statement(kind, holder, token, job, body[0])
        elif kind is Kind.FETCH:
            holder, number, timeout_ms = messages.Fetch(*fields)
            job = self._job(sender, request_id, timeout_ms, nothing, "fetch")
            self.queries.fetch((holder, number), job)
        elif kind is Kind.END_QUERY:
            holder, number = messages.EndQuery(*fields)
            self.queries.end((holder, number), self._job(sender, request_id, None, nothing, "end"))
        elif kind is Kind.TRANSACTION:
            holder, token, what, timeout_ms, at = messages.Transaction(*fields)
            if at is not None:
                timeout_ms = self.worker.mailbox.left_ms(timeout_ms, at)
            what, _, how = what.partition(" ")
            begins = partial(begin, how=how)
            action = begins if what == "begin" else {"commit": commit, "rollback": rollback}[what]
            self._transaction(holder, token, self._job(sender, request_id, timeout_ms, action, what))
        elif kind is Kind.READ:
            self.worker.mailbox.send(
                sender, header(Kind.PUSH, 0, 0, True, False, 0, False, [], fields[1]), values.pack([])
            )
        elif kind is Kind.WRITE:
            text = f"{self.address.scheme}:// has no write: use exec"
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(Unsupported(text))))

    def _statement(self, kind: Kind, holder: bytes, token: bytes | None, job: Job, body: bytes) -> None:
        if job.deadline.expired():
            self.answer(job, error=admission.explain_late_arrival())
            return
        sql, binds, *more = values.unpack(body)
        apart = kind is Kind.QUERY and token is None and self.driver_class.queries_apart
        refusal = self._refusal(sql, holder, token, apart)
        if refusal is not None:
            self.answer(job, error=refusal)
        elif kind is Kind.EXEC:
            self._exec(holder, token, job, sql, binds)
        elif kind is Kind.EXECUTEMANY:
            rows = BulkRows(binds, *more)
            job.run = lambda driver: self.results.packed(driver, driver.executemany(sql, rows), token)
            self.enqueue(Waiting(holder, token, job))
        elif apart:
            self.queries.begin_apart((holder, more[0]), job, sql, binds)
        else:
            key = (holder, more[0])
            job.run = lambda driver: self.queries.begin_beside(driver, key, token, job, sql, binds)
            self.enqueue(Waiting(holder, token, job))

    def _exec(self, holder: bytes, token: bytes | None, job: Job, sql: str, binds: Any) -> None:
        job.run = lambda driver: self.results.run(driver, sql, binds, token, job)
        if token is None and job.deadline.timeout() is None and self.driver_class.joins(sql):
            job.joins = sql, binds
        if not token and job.deadline.timeout() is None and self._idle():
            job.guest = self.worker.mailbox.guest(job.sender)
            if job.guest is not None:
                job.guest.claim()
        self.enqueue(Waiting(holder, token, job))

    def _idle(self) -> bool:
        """Whether a statement that comes now runs at once."""
        unused = self._running is None and not self.line.waiting and self.line.owner is None
        return unused and self._opened and self._wake >= 0

    def _transaction(self, holder: bytes, token: bytes, job: Job) -> None:
        entry = admit_transaction(job.what, is_given_up=token in self._void, is_over=self.line.stale(token))
        if entry is Entry.WAIT:
            begins = job.what == "begin"
            job.begins = token if begins else None
            self.enqueue(Waiting(holder, None if begins else token, job))
        elif entry is Entry.GIVEN_UP:
            self.answer(job, error=explain_transaction_given_up())
        elif entry is Entry.OVER:
            self.answer(job, error=over())
        else:
            self._forget_begin(token)
            self._void.append(token)  # its BEGIN may have been overtaken
            self.answer(job, body=values.pack(None))

    def _forget_begin(self, token: bytes) -> None:
        """Whoever wanted this transaction does not wait for it any more."""
        waiting = next((w for w in self.line.waiting if w.job.begins == token), None)
        if waiting is not None:
            self.line.remove(waiting)
            self.answer(waiting.job, error=explain_transaction_given_up())
        elif self._running is not None and self._running.job.begins == token:
            self._give_up(self._running)

    def _refusal(
        self, sql: str, holder: bytes, token: bytes | None, apart: bool = False
    ) -> StatementError | None:
        """The error of a statement that must not run, from either thread; None when it may. `apart`: it does
        not use this link, but is a query with a link of its own."""
        return refuse_statement(
            sql,
            self._dialect,
            token,
            is_over=self.line.stale(token),
            is_shared=apart or self.worker.record["handle"] is not None or len(self.worker.holders) > 1,
            owns_link=self.line.may_enter(holder, token),
        )

    def _job(
        self,
        sender: bytes,
        request_id: int,
        timeout_ms: float | None,
        run: Callable[[ExecDriver], bytes],
        what: str,
    ) -> Job:
        deadline = Deadline.after_ms(timeout_ms)
        unlimited = deadline.timeout() is None
        dials_s = float(self.address.option("timeout")) if unlimited else deadline.left()
        return Job(sender, request_id, run, deadline, Deadline(dials_s), what=what)

    # the line

    def _answer_not_run(self, waiting: Waiting[Job]) -> None:
        is_present = waiting.holder in self.worker.holders
        self.answer(waiting.job, error=admission.explain_not_run(is_holder_present=is_present))

    def enqueue(self, waiting: Waiting[Job]) -> None:
        if self.state is State.CLOSED:
            self._answer_not_run(waiting)
            return
        self.line.add(waiting)
        left = waiting.job.deadline.timeout()
        if left is not None:
            waiting.job.timer = self.worker.loop.call_later(left, self._expired, waiting)
        self._advance()

    def _advance(self) -> None:
        if self._running is not None:
            self._collect()
        while self._running is None and self._opened and (waiting := self.line.next()) is not None:
            if self.line.stale(waiting.token):
                undone = waiting.job.what == "rollback"  # what it was to end has ended while it waited
                self.answer(waiting.job, body=values.pack(None), error=None if undone else over())
            elif group := self._group(waiting):
                self._running, self._together = waiting, True
                self.put(partial(self._run_together, group))
            else:
                self._running = waiting
                self.put(partial(self._run, waiting))

    def _group(self, first: Waiting[Job]) -> list[Waiting[Job]]:
        """The statements that are committed together with this one; none when it stays alone."""
        if first.job.joins is None or first.token is not None or self.line.owner is not None:
            return []
        others = self.line.take_along(lambda job: job.joins is not None, TOGETHER - 1)
        return [first, *others] if others else []

    def _run_together(self, group: list[Waiting[Job]]) -> None:
        """On the driver's thread: as `_run`, for several statements with one commit."""
        outcomes: list[Result | Exception] = []
        try:
            driver = self._linked(group[0])
            outcomes = [*driver.execute_together([w.job.joins for w in group if w.job.joins])]
        except Exception as error:
            outcomes = [error] * len(group)
            if isinstance(error, ConnectionError):
                self._drop_link()
        self._statements += len(outcomes)
        answers = [self._told(w.job, outcome) for w, outcome in zip(group, outcomes, strict=False)]
        inside = still_inside(self.driver)
        with contextlib.suppress(RuntimeError):
            self.worker.loop.call_soon_threadsafe(self._finished_together, group, answers, inside)

    def _told(self, job: Job, outcome: Result | Exception) -> tuple[bytes, Exception | None]:
        if isinstance(outcome, Exception):
            return b"", outcome
        assert self.driver is not None
        try:
            body = self.results.packed(self.driver, outcome, None)
        except Exception as error:
            return b"", error
        self._answer_at_once(job, body)
        return body, None

    def _finished_together(
        self, group: list[Waiting[Job]], answers: list[tuple[bytes, Exception | None]], inside: bool
    ) -> None:
        for waiting, (body, error) in zip(group, answers, strict=False):
            told = self._loss(error, waiting.job) if isinstance(error, ConnectionError) else error
            self.answer(waiting.job, body=body, error=self._as_at_the_end(told))
        rest = group[len(answers) :]
        for waiting in rest if not answers else rest[:1]:
            waiting.job.joins = None
        if self.state is State.CLOSED:
            for waiting in rest:
                self._answer_not_run(waiting)
        else:
            self.line.put_back(rest)
        self._running, self._together = None, False
        self._note_state()
        self._settle_link(group[0], inside, None)
        self._advance()

    def _run(self, waiting: Waiting[Job]) -> None:
        """On the driver's thread: run a job, and those behind it that need nothing from the loop."""
        following: Waiting[Job] | None = waiting
        while following is not None:
            following = self._run_one(following)

    def _run_one(self, waiting: Waiting[Job]) -> Waiting[Job] | None:
        """Reconnect if need be, run, answer or hand the answer to the loop. Returns who is next already."""
        job = waiting.job
        body, error = b"", None
        try:
            if job.timed_out:
                raise StatementError("interrupted")
            driver = self._linked(waiting)
            job.begun = True
            if job.timed_out:
                raise StatementError("interrupted")
            body = job.run(driver)
            inside = driver.in_transaction()
        except Exception as caught:
            error = caught
            if isinstance(caught, ConnectionError):
                self._drop_link()
            inside = still_inside(self.driver)
        if inside and job.what in ("commit", "rollback"):  # refused (XA, say), and it would never end
            self.warn(f"a transaction could not be ended ({error}); its link is broken instead")
            self._drop_link()
            inside = False
        self._statements += job.what == "exec"
        settled = error is None and inside == (self.line.owner is not None) and self.state is State.OPEN
        at_once = settled and self._answer_at_once(job, body)
        with self._handover:
            if at_once and not self.line.waiting:
                self._done = (waiting, body, error, inside)
                job.stays = job.guest is not None and job.guest.claimed
                self._stay_with = job.guest if job.stays else None
                return None
            following = self._next_in_line(job) if at_once else None
        with contextlib.suppress(RuntimeError):
            if following is None:
                self.worker.loop.call_soon_threadsafe(self._finished, waiting, body, error, inside)
            elif job.timer is not None or job.guest is not None:
                self.worker.loop.call_soon_threadsafe(self.answer, job)
        return following

    def _next_in_line(self, job: Job) -> Waiting[Job] | None:
        """On the driver's thread, which holds `_handover`: the next statement of somebody, where nothing is
        to be settled first. Each way through the loop is two changes of threads, and many programs that
        share a connection would wait for them all the time."""
        settled = self.line.owner is None and not job.timed_out and not self._interrupting
        if not settled or not self._work.empty():
            return None
        found = self.line.take_along(lambda other: other.what == "exec" and other.joins is None, 1)
        if not found:
            return None
        self._running = found[0]
        return found[0]

    def _collect(self) -> None:
        """Note the job that was left for the loop to find."""
        with self._handover:
            done, self._done = self._done, None
        if done is not None:
            self._finished(*done)

    def _answer_at_once(self, job: Job, body: bytes) -> bool:
        """From the driver's thread, where the caller came in by the door: it need not wait for the loop.
        Not where a transaction began or ended, for the loop must know of it before the next statement."""
        if job.what == "exec" and not job.answered and not job.timed_out and job.sender:
            job.answered = self.worker.mailbox.answer(job.sender, header(Kind.REPLY, job.request_id), body)
            return job.answered
        return False

    def _linked(self, waiting: Waiting[Job]) -> ExecDriver:
        """On the driver's thread: the driver with a link, which is dialled where there is none. One that the
        server has ended since the last statement is found out here, before the next one is sent to it."""
        if self.driver is not None and not self.driver.alive():
            if self.line.owner is not None:
                raise LinkLost("the server was lost in a transaction")
            self._drop_link()
        if self.driver is None:
            if waiting.token is not None:
                raise over()
            self._dial_again(waiting.job)
        assert self.driver is not None
        return self.driver

    def _dial_again(self, job: Job) -> None:
        if self.ended:
            raise self.redial.end_error()
        self.redial.dial(self._connect, job.dials_until, lambda: job.timed_out)
        self._reconnects += 1

    @property
    def ended(self) -> bool:
        """Whether the link is gone for good."""
        return self.driver is None and self.redial.over

    def _drop_link(self) -> None:
        """On the driver's thread: the link is of no use any more."""
        with self._handover:  # from now on no other thread finds the driver
            driver, self.driver = self.driver, None
        if driver is None:
            return
        self._outages += 1
        self.redial.link_lost()
        self._interrupt_over.wait(INTERRUPT_S)  # a thread that interrupts uses it still
        with contextlib.suppress(Exception):
            driver.close()

    def _finished(self, waiting: Waiting[Job], body: bytes, error: Exception | None, inside: bool) -> None:
        if self._interrupting:  # what is on its way to stop this statement must not meet the next one
            self._after_interrupt = waiting, body, error, inside
            return
        self._running = None
        job = waiting.job
        if isinstance(error, ConnectionError):
            error, inside = self._loss(error, job), False
        if self.driver is None:
            self.queries.forget()
        if job.begins and job.timed_out and error is None:
            error = explain_transaction_given_up()
        self._note_state()
        if job.timed_out and error is not None and not isinstance(error, OutcomeUnknown):
            error = (
                StatementError("the statement was stopped: its object was closed while it ran")
                if job.closed
                else OperationTimeout("the statement was stopped: it did not end in the time allowed")
            )
        self._settle_link(waiting, inside, error)
        self.answer(job, body=body, error=self._as_at_the_end(error))
        self._advance()

    def _as_at_the_end(self, error: Exception | None) -> Exception | None:
        """The error of a statement; of one that was stopped as its connection ended, that."""
        if error is None or self.state is not State.CLOSED or isinstance(error, OutcomeUnknown):
            return error
        return StatementError("the statement was stopped: its connection was ended while it ran")

    def _note_state(self) -> None:
        """Whether the link is there, as the last statement found it."""
        state = State.DOWN if self.driver is None else State.OPEN
        if self.ended:
            state = State.LOST if self.redial.ends_at_loss else State.FAILED
        if state is not self.state and self.state in (State.DOWN, State.OPEN):
            self.state = state
            self.worker.say_state()
            if self.ended:
                self._last_error = str(self.redial.end_error())
                self.worker.log("error", self._last_error)

    def _settle_link(self, waiting: Waiting[Job], inside: bool, error: Exception | None) -> None:
        """Give the link to the transaction that is open now; roll back one that no holder waits for."""
        job, holder = waiting.job, waiting.holder
        has_failed = bool(job.begins) and (error is not None or job.timed_out)
        is_wanted = holder in self.worker.holders and not has_failed
        settled = self.line.settle(holder, job.begins, is_inside=inside, is_wanted=is_wanted)
        if settled.ended is not None:
            self.queries.forget(settled.ended)
        if settled.roll_back is not None:
            self._roll_back(holder, settled.roll_back)

    def _loss(self, error: ConnectionError, job: Job) -> Exception:
        """What the loss of the link in the midst of a job means for the caller."""
        who = f"the server of {self.address.display} was lost"
        if job.what == "fetch":
            return BrokenError(f"{who} before all rows of the query were read: {error}")
        if isinstance(error, LinkLost) or (job.what == "exec" and self.line.owner is not None):
            return StatementError(
                f"{who} in a transaction, which it rolls back ({error}); begin it again", code=OVER
            )
        if job.what not in ("exec", "commit"):
            return BrokenError(f"{who}: {error}")
        return OutcomeUnknown(f"{who} while the statement ran ({error}): it may or may not have taken effect")

    def _expired(self, waiting: Waiting[Job]) -> None:
        job = waiting.job
        step = decide_expiry(waiting.stage, is_answered=job.answered, is_rollback=job.what == "rollback")
        if step is Expiry.IGNORE:
            return
        if step is Expiry.ANSWER:
            self.answer(job, error=admission.explain_late_rollback())
            return
        # The driver thread may take the statement between the decision and the removal.
        if step is Expiry.LEAVE and self.line.remove(waiting):
            self.answer(job, error=admission.explain_expiry(in_transaction=self.line.owner is not None))
            return
        timed_out, job.timed_out = job.timed_out, True  # first this, for its thread looks at it after `begun`
        self.redial.wake()
        if not job.begun:
            has_link = self.driver is not None
            error = admission.explain_not_begun(self.address.display, self.redial.reason, has_link=has_link)
            self.answer(job, error=error)
            return
        job.timed_out = timed_out
        self._give_up(waiting)

    def _give_up(self, waiting: Waiting[Job]) -> None:
        """Nobody waits for the running job any more: stop it."""
        if not waiting.job.timed_out:
            waiting.job.timed_out = True
            self.redial.wake()
            self.worker.loop.call_later(INTERRUPT_S, self._abandon, waiting)
        self._interrupt(waiting)

    def _interrupt(self, waiting: Waiting[Job]) -> None:
        self._collect()
        with self._handover:  # its thread does not go on to the next one behind our back
            running = self._running is waiting
        if running:
            if waiting.job.begun:
                self._interrupt_driver()
            again = AGAIN_ASKED_S if self.driver_class.interrupt_waits else AGAIN_S
            self.worker.loop.call_later(again, self._interrupt, waiting)

    def _interrupt_driver(self) -> None:
        """Have the driver stop what its own thread does. `_drop_link` does not close it meanwhile."""
        with self._handover:
            driver = self.driver
            if driver is None or self._interrupting:
                return
            if not driver.interrupt_waits:
                driver.interrupt()
                return
            self._interrupting = True
            self._interrupt_over.clear()
        self._asked.clear()
        ask = partial(self._ask_to_stop, driver)
        threading.Thread(target=ask, name="trunkline-interrupt", daemon=True).start()

    def _ask_to_stop(self, driver: ExecDriver) -> None:
        """On a thread of its own."""
        with contextlib.suppress(Exception):
            driver.interrupt()
        self._interrupt_over.set()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.worker.loop.call_soon_threadsafe(self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        self._interrupting = False
        self._asked.set()
        finished, self._after_interrupt = self._after_interrupt, None
        if finished is not None:
            self._finished(*finished)

    def _abandon(self, waiting: Waiting[Job]) -> None:
        text = "the statement did not end in time and could not be stopped yet; its outcome is unknown"
        self.answer(waiting.job, error=OutcomeUnknown(text))
        with self._handover:
            if self._running is waiting and self.driver is not None and not self._together:
                self.driver.abort()

    def answer(self, job: Job, *, body: bytes = b"", error: Exception | None = None) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job.guest is not None and not job.stays:
            job.guest.rearm()
        if job.answered or not job.sender:
            return
        job.answered = True
        if error is None:
            self.worker.mailbox.send(job.sender, header(Kind.REPLY, job.request_id), body)
        else:
            error = shortened(error)
            self._last_error = str(error)
            self.worker.mailbox.send(job.sender, header(Kind.ERROR, job.request_id, to_wire(error)))

    def tick(self) -> None:
        """A statement that takes long: watch again whether the one who asked hangs up. And a link whose loss
        is the end of the connection is looked at without a statement, too."""
        with self._handover:
            running = self._running if self._done is None else None
            if running is not None and running.job.guest is not None:
                running.job.guest.rearm()
        if self.redial.ends_at_loss and self.state is State.OPEN and self.line.owner is None:
            self.put(self._look_at_link)

    def _look_at_link(self) -> None:
        """On the driver's thread."""
        if self.driver is not None and not self.driver.alive():
            self._drop_link()
            with contextlib.suppress(RuntimeError):
                self.worker.loop.call_soon_threadsafe(self._note_state)

    def bequest(self) -> dict[str, Any]:
        """A database's driver begins anew with each link."""
        return {}

    def stats(self) -> Stats:
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
            statements=base.statements + self._statements + self.queries.begun_apart,
            rows=base.rows + self.results.rows + self.queries.rows,
            queries=self.queries.count,
            reconnects=base.reconnects + self._reconnects,
            outages=base.outages + self._outages,
            holders=len(self.worker.holders),
            last_error=self._last_error,
        )
