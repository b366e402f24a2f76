"""The actor behind databases: one statement at a time, for many holders.

The driver is blocking code and has one thread of its own; the loop keeps the line (`turns`), the
deadlines and the heartbeat, and interrupts a statement that runs out of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trunkline.actors.driver import ExecDriver, Result
from trunkline.actors.sql import Dialect
from trunkline.actors.statements import split
from trunkline.actors.turns import Turns, Waiting
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    DialTimeout,
    OperationTimeout,
    OutcomeUnknown,
    StatementError,
    Unsupported,
    to_wire,
)
from trunkline.wire import values
from trunkline.wire.envelope import Kind, header
from trunkline.wire.state import State
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.actors.worker import Worker

__all__ = ["ExecActor"]

INTERRUPT_S = 2.0
"""How long an interrupted statement may take to end before its caller is answered anyway."""
DIALECTS = {"sqlite3": Dialect.SQLITE, "mysql": Dialect.MYSQL, "clickhouse": Dialect.CLICKHOUSE}


@dataclass(slots=True, eq=False)
class Job:
    """One request: what to run on the driver's thread, and whom to answer."""

    sender: bytes
    request_id: int
    run: Callable[[ExecDriver], bytes]
    deadline: Deadline
    timer: asyncio.TimerHandle | None = None
    what: str = "exec"
    timed_out: bool = False
    answered: bool = field(default=False)


class ExecActor:
    """See the module."""

    def __init__(self, worker: Worker, driver: type[ExecDriver]) -> None:
        self.worker = worker
        self.address = worker.address
        self.driver_class = driver
        self.driver: ExecDriver | None = None
        self.state = State.DIALING
        self.turns: Turns[Job] = Turns()
        self._dialect = DIALECTS.get(self.address.scheme, Dialect.POSTGRES)
        self._running: Waiting[Job] | None = None
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="trunkline-driver", daemon=True)
        self._base = worker.base_stats()
        self._last_error: str | None = self._base.last_error
        self._statements = self._rows = self._reconnects = self._outages = 0
        self._opened_at = 0.0

    # the driver's thread

    def _serve(self) -> None:
        while (job := self._work.get()) is not None:
            job()

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

        self._work.put(run)
        return await future

    async def open(self, deadline: Deadline) -> None:
        """Connect. A worker that replaces a crashed one connects again the same way."""
        self._thread.start()
        if deadline.left_ms() is None:
            deadline = Deadline(float(self.address.option("timeout")))
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self._on_thread(lambda: self._connect(deadline))
        except TimeoutError:
            self.state = State.FAILED
            raise DialTimeout(f"{self.address.display} could not be opened in the time allowed") from None
        self.state = State.OPEN
        self._opened_at = time.time()

    def _connect(self, deadline: Deadline) -> None:
        driver = self.driver_class(self.address)
        driver.warn = self._warn  # type: ignore[method-assign]
        driver.open(deadline)
        self.driver = driver

    def _warn(self, text: str) -> None:
        self.worker.loop.call_soon_threadsafe(self.worker.log, "warning", text)

    async def close(self) -> None:
        driver = self.driver
        if self.state is not State.FAILED:
            self.state = State.CLOSED
        if driver is not None:
            if self._running is not None:
                driver.interrupt()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._on_thread(driver.close)
        self._work.put(None)

    # requests

    def attach(self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int) -> None:
        if self.turns.owner_holder == old and old:
            self.turns.owner_holder = holder

    def start(self, holder: bytes, down: bool) -> None:
        """Nothing is streamed here."""

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """A holder is gone: what it waits for is not run, and its transaction is rolled back."""
        for waiting in self.turns.leave(holder):
            self._answer(waiting.job, error=StatementError("the object was closed before its turn came"))
        if self.turns.owner_holder == holder:
            running = self._running
            if running is not None and running.holder == holder and self.driver is not None:
                self.driver.interrupt()
            self._enqueue(holder, self.turns.owner, self._job(b"", 0, None, _rollback, "rollback"))
            self.worker.log("warning", "a holder was gone in a transaction; it is rolled back")

    def receive(self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]) -> None:
        if kind is Kind.EXEC:
            holder, token, timeout_ms = fields
            sql, binds = values.unpack(body[0])
            job = self._job(sender, request_id, timeout_ms, lambda driver: self._execute(driver, sql, binds), "exec")
            if self._refused(job, sql, token):
                return
            self._enqueue(holder, token, job)
        elif kind is Kind.TRANSACTION:
            holder, token, what, timeout_ms = fields
            action = {"begin": _begin, "commit": _commit, "rollback": _rollback}[what]
            self._transaction(holder, token, self._job(sender, request_id, timeout_ms, action, what))
        elif kind is Kind.READ:
            self.worker.mailbox.send(sender, header(Kind.PUSH, 0, 0, True, False), values.pack([]))
        elif kind is Kind.WRITE:
            text = f"{self.address.scheme}:// has no write: use exec"
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(Unsupported(text))))

    def _transaction(self, holder: bytes, token: bytes, job: Job) -> None:
        if job.what == "begin":
            self._enqueue(holder, None, job)
            job.run = lambda driver: self._begin(driver, holder, token)
        elif self.turns.owner != token:
            text = "the transaction is over: it was rolled back when the connection or its holder was lost"
            self._answer(job, error=StatementError(text))
        else:
            self._enqueue(holder, token, job)

    def _begin(self, driver: ExecDriver, holder: bytes, token: bytes) -> bytes:
        driver.begin()
        self.turns.begin(token, holder)  # the loop is not looking: it waits for this job
        return values.pack(None)

    def _refused(self, job: Job, sql: str, token: bytes | None) -> bool:
        """A bare BEGIN on a connection that others use would put their statements into it."""
        shared = self.worker.record["handle"] is not None or len(self.worker.holders) > 1
        if token is None and not shared:
            return False
        word = next((s.keyword for s in split(sql, self._dialect) if s.transaction not in (None, "savepoint")), None)
        if word is None:
            return False
        text = (
            f"{word} was refused: this connection is shared, so a transaction must be "
            "`with conn.transaction():`, which keeps the others out until it ends"
        )
        self._answer(job, error=StatementError(text))
        return True

    def _job(
        self,
        sender: bytes,
        request_id: int,
        timeout_ms: int | None,
        run: Callable[[ExecDriver], bytes],
        what: str,
    ) -> Job:
        return Job(sender, request_id, run, Deadline.after_ms(timeout_ms), what=what)

    # the line

    def _enqueue(self, holder: bytes, token: bytes | None, job: Job) -> None:
        waiting = Waiting(holder, token, job)
        self.turns.add(waiting)
        left = job.deadline.left_ms()
        if left is not None:
            job.timer = self.worker.loop.call_later(left / 1000, self._expired, waiting)
        self._advance()

    def _advance(self) -> None:
        if self._running is not None:
            return
        waiting = self._running = self.turns.next()
        if waiting is not None:
            self._work.put(lambda: self._run(waiting))

    def _run(self, waiting: Waiting[Job]) -> None:
        """On the driver's thread: reconnect if need be, run, hand the answer to the loop."""
        body, error = b"", None
        try:
            if self.driver is None:
                self._reconnect(waiting)
            assert self.driver is not None
            body = waiting.job.run(self.driver)
        except Exception as caught:
            error = caught
        else:
            self._answer_at_once(waiting.job, body)
        with contextlib.suppress(RuntimeError):
            self.worker.loop.call_soon_threadsafe(self._finished, waiting, body, error)

    def _answer_at_once(self, job: Job, body: bytes) -> None:
        """From the driver's thread, where the caller came in by the door: it need not wait for the loop.
        Not for what ends or begins a transaction, for the loop must know of it before the next statement."""
        if job.what == "exec" and not job.answered and not job.timed_out and job.sender:
            job.answered = self.worker.mailbox.answer(job.sender, header(Kind.REPLY, job.request_id), body)

    def _reconnect(self, waiting: Waiting[Job]) -> None:
        if waiting.token is not None:
            raise StatementError("the server was lost in this transaction, which is rolled back; begin it again")
        seconds = min(waiting.job.deadline.left(), float(self.address.option("timeout")))
        self._connect(Deadline(seconds))
        self._reconnects += 1

    def _finished(self, waiting: Waiting[Job], body: bytes, error: Exception | None) -> None:
        self._running = None
        job = waiting.job
        self._statements += job.what == "exec"
        if isinstance(error, ConnectionError):
            error = self._lost(error, job)
        elif self.driver is not None and self.state is State.DOWN:
            self.state = State.OPEN
            self.worker.say_state()
        if job.timed_out and error is not None:
            error = OperationTimeout("the statement was stopped: it did not end in the time allowed")
        self._settle_turns(waiting, job, error)
        self._answer(job, body=body, error=error)
        self._advance()

    def _settle_turns(self, waiting: Waiting[Job], job: Job, error: Exception | None) -> None:
        """Who has the connection now."""
        if self.driver is None or (job.what in ("commit", "rollback") and not self.driver.in_transaction()):
            self.turns.end()
        elif job.what == "begin":
            if error is not None:
                self.turns.end()
            elif waiting.holder not in self.worker.holders:  # it went while it was waiting
                self._enqueue(waiting.holder, self.turns.owner, self._job(b"", 0, None, _rollback, "rollback"))

    def _lost(self, error: ConnectionError, job: Job) -> Exception:
        driver, self.driver = self.driver, None
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.close()
        self._outages += 1
        self.state = State.DOWN
        self.worker.say_state()
        if job.what != "exec":
            return BrokenError(f"the server of {self.address.display} was lost: {error}")
        return OutcomeUnknown(
            f"the server of {self.address.display} was lost while the statement ran ({error}): "
            "it may or may not have taken effect"
        )

    def _expired(self, waiting: Waiting[Job]) -> None:
        job = waiting.job
        if job.answered:
            return
        if self.turns.remove(waiting):
            who = "another holder's transaction" if self.turns.owner else "the statements before it"
            self._answer(job, error=OperationTimeout(f"the time allowed passed while it waited for {who}"))
            return
        job.timed_out = True
        if self.driver is not None:
            self.driver.interrupt()
        self.worker.loop.call_later(INTERRUPT_S, self._abandon, job)

    def _abandon(self, job: Job) -> None:
        text = "the statement did not end in the time allowed and could not be stopped yet; its outcome is unknown"
        self._answer(job, error=OutcomeUnknown(text))

    def _answer(self, job: Job, *, body: bytes = b"", error: Exception | None = None) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job.answered or not job.sender:
            return
        job.answered = True
        if error is None:
            self.worker.mailbox.send(job.sender, header(Kind.REPLY, job.request_id), body)
        else:
            self._last_error = str(error)
            self.worker.mailbox.send(job.sender, header(Kind.ERROR, job.request_id, to_wire(error)))

    def _execute(self, driver: ExecDriver, sql: str, binds: Any) -> bytes:
        result: Result = driver.execute(sql, binds)
        self._rows += len(result.values)
        answer: dict[str, Any] = {"columns": result.columns, "values": result.values}
        if result.affected is not None:
            answer["affected"] = result.affected
        if result.last_id is not None:
            answer["last_id"] = result.last_id
        return values.pack(answer)

    def stats(self) -> Stats:
        base = self._base
        return Stats(
            id=str(self.worker.record["number"]),
            scheme=self.address.scheme,
            peer=self.address.display,
            state=self.state.value,
            pid=os.getpid(),
            incarnation=self.worker.incarnation,
            opened_at=self._opened_at or base.opened_at,
            statements=base.statements + self._statements,
            rows=base.rows + self._rows,
            reconnects=base.reconnects + self._reconnects,
            outages=base.outages + self._outages,
            holders=len(self.worker.holders),
            last_error=self._last_error,
        )


def _begin(driver: ExecDriver) -> bytes:
    driver.begin()
    return values.pack(None)


def _commit(driver: ExecDriver) -> bytes:
    driver.commit()
    return values.pack(None)


def _rollback(driver: ExecDriver) -> bytes:
    if driver.in_transaction():
        driver.rollback()
    return values.pack(None)
