"""The proxy that a program holds: read, write, exec, fd, close. Longer than most modules here because it
is the whole public face of a connection.

Locks: `_lock` guards the pocket and is held for moments only; `_turn` is the right to use the stream
socket, held by the thread that waits for data. Whoever takes both takes `_turn` first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgpack

from trunkline import client as clients
from trunkline import runtime
from trunkline.channel import SLICE_S, Channel, Received
from trunkline.client import Client
from trunkline.deadline import Deadline
from trunkline.direct import Direct, NoDoor
from trunkline.errors import (
    BrokenError,
    BrokerGone,
    ClosedError,
    DeadHandle,
    OperationTimeout,
    OutcomeUnknown,
    TrunklineError,
    Unsupported,
    WorkerDied,
    from_wire,
)
from trunkline.pipe import Pipe
from trunkline.pocket import EMPTY, LOST, Pocket, Taken
from trunkline.reasons import remember
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, Mark
from trunkline.wire.stats import Stats

__all__ = ["Connection", "Transaction"]

log = logging.getLogger("trunkline")

ACK_EVERY = 256
PACE_S = 0.005
"""How long a blocking read on a lost link waits before its `""`: a loop that ignores it must not spin."""
ANSWER_S = 0.25
"""How long a read that must not wait does wait for the worker's answer, where it has to ask for one."""
FIND_S = 0.02
GRACE_S = 0.25
ATTACH_S = 10.0
HANDLE_S = 2.0
REDIAL_S = 2.5
REPLACE_S = 10.0
"""How long a statement waits for the worker that replaces a crashed one."""
REPLACE_LOOK_S = 0.01
ROLLBACK_MS = 2000
BARE = b""
"""Stands for the transaction that this object opened with a bare BEGIN."""
OVER = "TRANSACTION_OVER"
"""Code of the errors of a transaction's statements after its end."""
WRITE_MS = 30_000


class Connection:
    """One dialled connection; made by `Dial`, `connect` and unpickling, not by calling the class.

    Safe to use from several threads, in forked children too (a further holder there), picklable (as its
    handle), a context manager, iterable, and never falsy. Objects of `Dial` answer failure
    with a value (`None`, `""`, 0) and a line in the log; those of `connect` raise.
    """

    def __init__(
        self, client: Client, channel: Channel, key: bytes, info: Mapping[str, Any], *, raising: bool
    ) -> None:
        self._client = client
        self._channel: Channel | None = channel
        self._holder_id = channel.identity
        self._key = key
        self._scheme = str(info.get("scheme", ""))
        self._executes = info.get("kind") == "database"
        self._lost = None if info.get("lost_is_none") else ""
        self._peer = str(info.get("peer", ""))
        self._number = str(info.get("id", info.get("number", "")))
        self._raising = raising
        self._pocket = Pocket()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting = False
        self._closed = False
        self._gone: str | None = None
        self._local = threading.local()
        self._handle: int | None = None
        self._figures: Stats | None = None
        """The last that were asked for."""
        self._bare = False
        self._direct = Direct(runtime.door(client.address, key))
        self._redial: tuple[tuple[Any, ...], bytes] | None = None
        self._pipe: Pipe | None = None
        self._routed = False
        self._orphan = False
        self._start_at = 0.0
        self._told: set[str] = set()
        self._consumed = 0
        client.connections.add(self)
        self._finalizer = weakref.finalize(self, client.detach, key, channel.identity, self._pocket, channel)
        self._finalizer.atexit = False
        self._start()

    # reading

    def read(self, timeout_ms: float | None = None) -> str | bytes | None:
        """The oldest message, as SPEC 3's table says.

        `timeout_ms`: None or 0 waits for data; -1 does not wait; less than -1 gives the newest message at
        once and discards the rest; otherwise milliseconds to wait. Returns the message (`str`
        when it is valid UTF-8, else `bytes`), None when there was none in time, and when the link is or
        was lost here in the order: `""` (tcp, tls, unix and udp: None). An object of
        `connect` raises BrokenError instead of the latter, ClosedError after `close`.
        """
        with self._lock:
            items = self._pocket.items
            if items and (timeout_ms is None or timeout_ms >= -1):
                entry = items.popleft()
                if not isinstance(entry, int):
                    pocket = self._pocket
                    pocket.consumed += 1
                    if pocket.stream and pocket.consumed - pocket.acked < ACK_EVERY:
                        return entry
                    self._ack_if_free(pocket)
                    return entry
                items.appendleft(entry)
        if timeout_ms == -1 and self._quiet():
            return None
        taken = self._take(_checked(timeout_ms))
        if taken is EMPTY:
            return None
        if taken is LOST:
            return self._when_lost()
        assert isinstance(taken, (str, bytes))
        return taken

    def _quiet(self) -> bool:
        """A cheap look whether there is surely nothing to read: polling loops live on it."""
        pipe, pocket = self._pipe, self._pocket
        if pipe is None or pocket.acked != pocket.consumed or pocket.down or pocket.more or not pocket.stream:
            return False
        if not self._turn.acquire(blocking=False):
            return False
        quiet = pipe.quiet()
        self._release_turn()
        return quiet

    def _when_lost(self) -> str | None:
        if self._raising:
            if self._closed:
                raise ClosedError("read on a connection that you have closed")
            raise BrokenError(f"the link to {self._peer} {'has ended' if self._pocket.ended else 'was lost'}")
        return self._lost

    def _take(self, timeout_ms: float | None) -> Taken:
        if self._executes:
            self._misuse("read", "use exec")
            return EMPTY
        if self._closed and not self._raising:
            self._after_close("read")
        newest = timeout_ms is not None and timeout_ms < -1
        blocking = timeout_ms is None or timeout_ms > 0
        deadline = Deadline.after_ms(timeout_ms) if blocking else Deadline(0)
        if not self._turn.acquire(timeout=-1 if deadline.timeout() is None else deadline.left()):
            with self._lock:  # another thread is waiting for data; what it has not taken is ours
                return self._pocket.take_newest() if newest else self._pocket.take()
        try:
            return self._take_in_turn(newest, blocking, deadline)
        except BrokerGone as error:
            remember(error)
            return LOST
        finally:
            self._release_turn()

    def _take_in_turn(self, newest: bool, blocking: bool, deadline: Deadline) -> Taken:
        if self._usable() is None:
            return self._paced(blocking, deadline)
        self._drain()
        if self._orphan and not self._pocket.items:
            self._find_worker()
            return self._paced_look(blocking, deadline)
        if newest:
            return self._take_newest()
        with self._lock:
            pocket = self._pocket
            taken = pocket.take()
            asks = blocking or not pocket.stream or pocket.more
            bare = pocket.down and not pocket.items
            self._waiting = blocking and taken is EMPTY
        if taken is LOST and bare:
            return self._paced_look(blocking, deadline)
        if taken is EMPTY and asks:
            return self._wait(blocking, deadline)
        self._ack()
        return taken

    def _wait(self, blocking: bool, deadline: Deadline) -> Taken:
        """Nothing is here: wait for what comes, or ask for it where nothing comes unasked. An ask is repeated
        now and then: that does no harm, and it may have been sent to a worker that was not there yet."""
        limit = deadline if blocking else Deadline(ANSWER_S)
        try:
            while True:
                if blocking and self._pocket.stream:
                    self._ack()
                else:
                    self._ask(wait=blocking, newest=False)
                answered = self._await_push(limit)
                with self._lock:
                    taken, stream = self._pocket.take(), self._pocket.stream
                    over = limit.expired() or self._closed or (answered and not blocking)
                    self._waiting = blocking and taken is EMPTY and not over
                if taken is not EMPTY or over:
                    break
        except BaseException:
            self._waiting = False
            with contextlib.suppress(Exception):
                self._say(Kind.CANCEL, self._holder_id)
            raise
        if taken is EMPTY and blocking and not stream:
            return self._give_up()
        self._ack()
        if taken is LOST and not stream:
            self._paced(blocking, deadline)  # where each read asks, it is answered as fast as it is asked
        return taken

    def _give_up(self) -> Taken:
        """The time is over: say so; a message may have been sent to us just before."""
        self._say(Kind.CANCEL, self._holder_id)
        limit = Deadline(ANSWER_S)
        while not limit.expired() and not self._closed:
            received = self._receive(max(0.001, limit.left()))
            if received is None or received[1] is Kind.CANCELLED:
                break
            self._handle_stream(received)
        with self._lock:
            taken = self._pocket.take()
        self._ack()
        return taken

    def _take_newest(self) -> Taken:
        with self._lock:
            answered = self._pocket.has_newest()
            if not answered:
                self._pocket.discard()
        limit = Deadline(ANSWER_S)
        while not answered and not limit.expired() and not self._closed:
            self._ask(wait=False, newest=True)
            answered = self._await_push(limit)
        with self._lock:
            taken = self._pocket.take_newest()
        self._ack()
        return taken

    def _ask(self, *, wait: bool, newest: bool) -> None:
        with self._lock:
            pocket = self._pocket
            fields = (
                self._holder_id,
                pocket.epoch,
                pocket.consumed,
                pocket.skipped,
                wait,
                newest,
                pocket.had,
            )
            pocket.acked, pocket.skipped = pocket.consumed, 0
        if self._pipe is None and not self._routed:
            self._start()
        self._say(Kind.READ, *fields)

    def _await_push(self, deadline: Deadline) -> bool:
        """Wait for a moment, not beyond the deadline; whether the worker has answered or sent something."""
        received = self._receive(max(0.001, min(SLICE_S, deadline.left())))
        if received is not None:
            answered = self._handle_stream(received)
            return self._drain() or answered
        if self._stale() and not self._closed and not deadline.expired():
            self._let_rejoin()
        return False

    def _drain(self) -> bool:
        answered = False
        while (received := self._receive(0)) is not None:
            answered = self._handle_stream(received) or answered
        return answered

    def _handle_stream(self, received: Received) -> bool:
        """One message on the stream socket; False when it changes nothing for who waits."""
        _, kind, _, fields, body = received
        if kind is Kind.PUSH:
            self._orphan = False
            entries = msgpack.unpackb(body[0], raw=False, use_list=True)
            with self._lock:
                fed = self._pocket.feed(fields[0], fields[1], fields[2], entries, fields[3])
                gap, self._pocket.gap = self._pocket.gap, False
            if gap and self._channel is not None:
                self._channel.generation = -1  # attached anew, we are sent again what we have not read
            return fed
        if kind is Kind.START:
            self._orphan = False
        elif kind is Kind.GONE:
            self._lose_worker(bool(fields[0]), str(fields[1]))
            return True
        elif kind is Kind.ERROR:
            log.warning("%s: %s", self._peer, from_wire(fields[0]))
        return False

    def _lose_worker(self, replaced: bool, why: str) -> None:
        """The worker is gone; `replaced`: another one will take over."""
        self._close_pipe()
        self._routed = False
        self._orphan = replaced
        with self._lock:
            self._pocket.lose(Mark.DOWN if replaced else Mark.END)
        if not replaced:
            self._gone = self._gone or why

    def _find_worker(self) -> None:
        """Say START until the worker that takes over has heard it."""
        if self._pipe is None and time.monotonic() >= self._start_at:
            self._start_at = time.monotonic() + FIND_S
            self._start()

    def _ack(self) -> None:
        with self._lock:
            pocket = self._pocket
            if pocket.consumed <= max(pocket.acked, 0) and not pocket.skipped:
                return
            fields = (self._holder_id, max(0, pocket.consumed), pocket.skipped)
            pocket.acked, pocket.skipped = pocket.consumed, 0
        self._say(Kind.ACK, *fields)

    def _ack_if_free(self, pocket: Pocket) -> None:
        """With `_lock` held: acknowledge now if nobody is using the socket; whoever is will do it."""
        if self._turn.acquire(blocking=False):
            try:
                if pocket.consumed > 0:
                    fields = (self._holder_id, pocket.consumed, pocket.skipped)
                    pocket.acked, pocket.skipped = pocket.consumed, 0
                    self._say(Kind.ACK, *fields)
            finally:
                self._turn.release()

    def _idle_ack(self, control: Channel) -> None:
        """Called by the control thread now and then: what was read before a long pause."""
        self._ack_if_idle()

    def _ack_if_idle(self) -> None:
        """Acknowledge what was read, unless someone uses the socket: who waits for data has done it."""
        if self._pocket.consumed > max(self._pocket.acked, 0) and self._turn.acquire(blocking=False):
            try:
                if not self._closed:
                    self._ack()
            finally:
                self._release_turn()

    # the two ways to the worker

    def _start(self) -> None:
        """With `_turn` held: tell the worker that we can be served, over a pipe of our own if it has a door
        for us, else through the router."""
        if self._executes:
            return
        with self._lock:
            fields = (self._holder_id, self._pocket.will_be_down(), self._pocket.had)
        try:
            self._pipe = Pipe(runtime.door(self._client.address, self._key), self._key)
        except (OSError, BrokerGone):
            self._pipe, self._routed = None, True
        self._say(Kind.START, *fields)

    def _say(self, kind: Kind, *fields: Any) -> None:
        pipe, channel = self._pipe, self._channel
        if pipe is not None:
            pipe.send(kind, fields)
        elif channel is not None and not self._stale():
            channel.send(self._key, kind, 0, fields)

    def _receive(self, timeout_s: float) -> Received | None:
        """With `_turn` held: the next message from the worker, or from the broker about it."""
        pipe = self._pipe
        if pipe is not None:
            try:
                return pipe.receive(timeout_s)
            except EOFError:
                self._pipe = None
                pipe.close()
        channel = self._channel
        return None if channel is None or self._stale() else channel.receive(timeout_s)

    def _stale(self) -> bool:
        """The broker was lost and this object has not joined the next one yet."""
        channel = self._channel
        return channel is None or channel.generation != self._client.generation

    def _let_rejoin(self) -> None:
        """With `_turn` held: let the control thread have it for a moment, it has to attach us again."""
        self._turn.release()
        time.sleep(0.01)
        self._turn.acquire()

    def _recall(self, epoch: int) -> tuple[int, bool]:
        """Called by the control thread: give back what has not been consumed."""
        with self._lock:
            if self._closed:
                return self._consumed, False
            return self._pocket.recall(epoch), self._waiting

    def _paced(self, blocking: bool, deadline: Deadline) -> Taken:
        if blocking:
            threading.Event().wait(min(PACE_S, deadline.left()))
        return LOST

    def _paced_look(self, blocking: bool, deadline: Deadline) -> Taken:
        """The link is down and nothing is here: `""`, but a blocking read looks once more first."""
        if blocking:
            pace = Deadline(min(PACE_S, deadline.left()))
            received = self._receive(max(0.001, pace.left()))
            if received is not None:
                self._handle_stream(received)
            elif pace.left():
                threading.Event().wait(pace.left())
        return LOST

    # writing

    def write(self, data: str | bytes | bytearray | memoryview, timeout_ms: float | None = None) -> int:
        """Send one message (on a byte stream: these bytes).

        Returns the number of bytes the transport took: 0 when the link is down (nothing is sent later)
        and 0 when it took none within `timeout_ms` milliseconds (default 30 s). An object of `connect` raises
        BrokenError, OperationTimeout or ClosedError instead of the 0.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"write takes str or bytes, not {type(data).__name__}")
        text = isinstance(data, str)
        body = data.encode() if isinstance(data, str) else bytes(data)
        limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
        deadline = Deadline(limit / 1000 + GRACE_S)
        at = deadline.at - GRACE_S
        try:
            answer = self._request(Kind.WRITE, limit, text, at, body=body, deadline=deadline)
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._raising:
                self._after_close("write")
            return int(self._failed(error, 0, quiet=not isinstance(error, Unsupported)))
        return int(values.unpack(answer[0]))

    def _after_close(self, what: str) -> None:
        """Say once what is wrong: a loop may go on for long."""
        if what not in self._told:
            self._told.add(what)
            log.warning("%s: %s on a connection that you have closed; dial again", self._peer, what)

    # statements

    def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> dict[str, Any] | None:
        """Run a statement on a database connection.

        `binds` are its values in order (or one mapping of names); `timeout` in milliseconds. Returns
        `{"columns": [...], "values": [[...], ...]}`, with `affected` and `last_id` where the driver knows
        them; None on failure, with the reason in the log and in `last_error()`. An object of `connect` raises
        StatementError, OperationTimeout, OutcomeUnknown.
        """
        if not isinstance(sql, str):
            raise TypeError(f"exec takes SQL text, not {type(sql).__name__}")
        if timeout is not None and timeout <= 0:
            raise ValueError("exec's timeout is in milliseconds and must be above zero")
        values_given: Any = binds[0] if len(binds) == 1 and isinstance(binds[0], Mapping) else list(binds)
        deadline = Deadline(None if timeout is None else timeout / 1000 + GRACE_S)
        body = values.pack([sql, values_given])
        token = getattr(self._local, "token", None)
        if token is None and self._bare:
            token = BARE
        try:
            at = None if timeout is None else deadline.at - GRACE_S
            answer = self._ask_database(Kind.EXEC, (token, timeout, at), body, deadline)
        except TrunklineError as error:
            if error.code == OVER:
                self._bare = False
            return self._failed(error, None)  # type: ignore[no-any-return]
        result: dict[str, Any] = values.unpack(answer[0])
        self._bare = result.pop("in_transaction", False)
        return result

    def _ask_database(
        self, kind: Kind, fields: tuple[Any, ...], body: bytes, deadline: Deadline
    ) -> list[bytes]:
        """One answer to one request. It is sent again only where it is certain that no worker has begun
        with it: between a crashed worker and the next one."""
        patience = Deadline(min(REPLACE_S, deadline.left()) if self._executes else 0)
        while True:
            self._check_open()
            client = self._client_now()  # in a forked child that gives the object an identity of its own
            whole = (self._holder_id, *fields)
            try:
                return self._direct.request(kind, whole, body, deadline, lambda: self._closed)
            except NoDoor as error:
                # The socket of a worker that is gone; the router may not know it yet and lose the request.
                dead = isinstance(error.__cause__, ConnectionRefusedError)
            except WorkerDied:
                dead = True
            if not dead or patience.expired():
                try:
                    return client.request(self._key, kind, *whole, body=(body,), deadline=deadline)
                except WorkerDied:
                    if patience.expired():
                        raise
            self._hear_of_end()
            time.sleep(REPLACE_LOOK_S)

    def _hear_of_end(self) -> None:
        """Whether the worker is gone for good: the broker says so on the stream socket, which nobody reads
        here."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            channel = self._usable()
            while channel is not None and not self._stale() and (received := channel.receive(0)) is not None:
                if received[1] is Kind.GONE and not received[3][0]:
                    self._gone = self._gone or f"{received[3][1]}{self._what_is_lost()}"
        finally:
            self._release_turn()

    def _what_is_lost(self) -> str:
        memory = self._scheme == "sqlite3" and (":memory:" in self._peer or "mode=memory" in self._peer)
        return "; its database was in memory, so the data is gone too" if memory else ""

    def transaction(self, timeout_ms: float = 30_000) -> Transaction:
        """`with conn.transaction():` holds a shared database connection exclusively.

        Commits at the end, rolls back when the block raises, when its process dies and when the server is
        lost: then its statements fail with code "TRANSACTION_OVER", and the block's end raises. Others wait.
        `timeout_ms`: how long to wait for one's turn; then OperationTimeout. Raises for objects of `Dial`
        too, for a block cannot be passed over: StatementError when the commit is refused (it is rolled back
        then),
        OutcomeUnknown when its answer never came. Belongs to the thread that entered it.
        """
        return Transaction(self, timeout_ms)

    # sharing

    def fd(self) -> int:
        """A handle for `Dial` in any thread or process of this broker; it cannot be guessed.

        Once taken, the connection outlives `close()` until every process that used it is gone, or
        `linger` seconds without a holder, or `trunkline kill`. None (an object of `connect` raises) when
        the connection has ended.
        """
        if self._handle is None:
            try:
                self._check_open()
                answer = self._client_now().ask_broker(Kind.HANDLE, self._key)
            except TrunklineError as error:
                return self._failed(error, None)  # type: ignore[no-any-return]
            self._handle = int(values.unpack(answer[0]))
            with contextlib.suppress(TrunklineError):
                # By the router, behind what the broker has told the worker: that it is shared from now on.
                self._client.request(self._key, Kind.STATS, deadline=Deadline(HANDLE_S))
        return self._handle

    def stats(self) -> Stats:
        """The connection's figures now, as a frozen dataclass. Of a connection whose worker is gone: what
        this object knows. Never raises for the network's sake."""
        self._ack_if_idle()
        try:
            answer = self._request(Kind.STATS, deadline=Deadline(5))
            self._figures = Stats.from_wire(values.unpack(answer[0]))
            return self._figures
        except TrunklineError as error:
            state = "closed" if self._closed else "failed" if self._gone else "down"
            if self._figures is not None:
                return replace(self._figures, state=state, pid=None, last_error=str(error))
            return Stats(
                id=self._number,
                scheme=self._scheme,
                kind="database" if self._executes else "stream",
                lost_is_none=self._lost is None,
                peer=self._peer,
                state=state,
                last_error=str(error),
            )

    def close(self) -> None:
        """Detach this object; idempotent, never waits. The connection ends with its last object, unless
        its handle was taken with `fd()`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumed = self._consumed = max(0, self._pocket.consumed)
            self._pocket.items.clear()
            self._pocket.lose(Mark.END)
        self._finalizer.detach()
        self._direct.close()
        channel = None
        if self._turn.acquire(blocking=False):
            channel, self._channel = self._channel, None
            self._close_pipe()
            self._turn.release()
        elif (pipe := self._pipe) is not None:
            pipe.shut()  # wakes the thread that waits there
        self._client.connections.discard(self)
        if channel is not None or self._holder_id:
            self._client.detach(self._key, self._holder_id, consumed, channel)

    def _left(self, limit: Deadline) -> bool:
        """After `close`: whether no thread is in the stream socket any more."""
        if not self._turn.acquire(timeout=limit.left()):
            return False
        self._turn.release()
        return True

    # plumbing

    def _request(
        self, kind: Kind, *fields: Any, body: bytes | None = None, deadline: Deadline
    ) -> list[bytes]:
        self._check_open()
        client = self._client_now()
        with contextlib.suppress(NoDoor):
            return self._direct.request(kind, fields, body or b"", deadline, lambda: self._closed)
        bodies = () if body is None else (body,)
        return client.request(self._key, kind, *fields, body=bodies, deadline=deadline)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this object of {self._peer} was closed; dial again, or Dial its handle")
        if self._gone is not None:
            raise DeadHandle(f"the connection to {self._peer} has ended ({self._gone}); dial again")

    def _client_now(self) -> Client:
        """The client of this process; in a forked child the object first becomes a holder of its own."""
        if self._channel is None and not self._closed:
            with self._turn:
                self._usable()
        return self._client

    def _usable(self) -> Channel | None:
        """With `_turn` held: the stream socket, made anew after a fork; None when closed. After a lost
        broker the control thread does that, for a read may have no time for it."""
        if self._closed:
            return None
        return self._channel or self._attach_again(None)

    def _attach_again(self, old: Channel | None) -> Channel | None:
        """With `_turn` held: become a holder (again): with the broker that took over, or, without an `old`
        socket, in a forked child. BrokerGone when the broker is lost meanwhile; then later again."""
        if old is None:
            self._client = clients.get()
            self._client.connections.add(self)
        client = self._client
        channel = client.channel()
        with self._lock:
            pocket = self._pocket
            consumed = 0 if old is None else max(0, pocket.recall(pocket.epoch + 1))
            was = b"" if old is None else self._holder_id
            fields = (client.control_id, 0, self._key, was, pocket.epoch, consumed)
        try:
            channel.send(BROKER, Kind.ATTACH, 1, fields)
            attached(channel, Deadline(ATTACH_S), client)
        except (BrokerGone, OperationTimeout) as error:
            channel.close()
            raise BrokerGone(str(error)) from None
        except TrunklineError as error:
            channel.close()
            if isinstance(error, DeadHandle) and self._redial is not None and old is not None:
                return self._dial_anew(client, old)
            self._ended(error)
            return old
        if old is not None:
            old.close()
        self._finalizer.detach()
        self._channel, self._holder_id = channel, channel.identity
        if self._pipe is None:
            self._start()
        self._finalizer = weakref.finalize(self, client.detach, self._key, channel.identity, pocket, channel)
        self._finalizer.atexit = False
        return channel

    def redial_with(self, fields: tuple[Any, ...], body: bytes) -> None:
        """Called by `Dial`: how to open the connection anew when broker and worker are lost together."""
        self._redial = (fields, body)

    def _dial_anew(self, client: Client, old: Channel) -> Channel:
        """With `_turn` held: as a worker that crashed is replaced, so is one that was lost with its broker.
        BrokerGone when it cannot be dialled now; then later again."""
        assert self._redial is not None
        fields, body = self._redial
        channel = client.channel()
        self._close_pipe()
        with self._lock:
            if not self._pocket.down:
                self._pocket.lose(Mark.DOWN)
        try:
            channel.send(BROKER, Kind.OPEN, 1, (client.control_id, *fields), body)
            key, info = attached(channel, Deadline(REDIAL_S), client)
        except TrunklineError as error:
            channel.close()
            remember(error)
            raise BrokerGone(str(error)) from None
        old.close()
        self._finalizer.detach()
        self._channel, self._holder_id, self._key = channel, channel.identity, key
        self._number, self._handle = str(info.get("id", "")), None
        self._direct.close()
        self._direct = Direct(runtime.door(client.address, key))
        self._routed = self._orphan = False
        self._start()
        self._finalizer = weakref.finalize(self, client.detach, key, channel.identity, self._pocket, channel)
        self._finalizer.atexit = False
        log.warning("%s: broker and worker were lost together; it was dialled anew", self._peer)
        return channel

    def _ended(self, error: TrunklineError) -> None:
        """The broker knows nothing of the connection (any more)."""
        remember(error)
        log.warning("%s: %s", self._peer, error)
        self._gone = str(error)
        with self._lock:
            self._pocket.lose(Mark.END)

    def _rejoin(self) -> None:
        """Called by the control thread after a lost broker, for objects that nobody is using."""
        if self._turn.acquire(timeout=2 * SLICE_S):
            try:
                if self._stale() and not self._closed and self._gone is None:
                    self._attach_again(self._channel)
            except BrokerGone:
                pass  # lost again: the control thread comes back
            finally:
                self._release_turn()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    def _release_turn(self) -> None:
        channel = None
        if self._closed:
            channel, self._channel = self._channel, None
            self._close_pipe()
        self._turn.release()
        if channel is not None:
            channel.close()

    def _after_fork(self) -> None:
        """In a forked child: nothing of the parent's object may be used here, its locks neither."""
        self._finalizer.detach()
        clients.keep(self._channel)
        self._direct.close()
        self._close_pipe()
        self._routed = self._orphan = False
        self._channel = None
        self._holder_id = b""
        self._pocket = Pocket()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._local = threading.local()
        self._bare = False
        self._waiting = False

    def _failed(self, error: TrunklineError, value: Any, *, quiet: bool = False) -> Any:
        """Failure as this object's form says: raise, or log and answer with a value."""
        if self._raising:
            raise error
        remember(error)
        if not quiet:
            log.warning("%s: %s", self._peer, error)
        return value

    def _misuse(self, what: str, instead: str) -> None:
        error = Unsupported(f"{self._scheme}:// has no {what}: {instead}")
        self._failed(error, None)

    # the rest of being an object

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages as they come, waiting for each; outages that are mended are passed over. Ends when the
        link has ended for good or this object is closed."""
        while True:
            taken = self._take(None)
            if isinstance(taken, (str, bytes)):
                yield taken
            elif self._pocket.ended or self._closed or taken is EMPTY:
                return

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        from trunkline.dial import from_handle

        handle = self.fd()
        if handle is None:
            raise DeadHandle(f"the connection to {self._peer} has ended and cannot be pickled")
        return from_handle, (handle, self._raising)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._pocket.ended or self._gone else None
        state = state or ("down" if self._pocket.down else "open")
        return f"<Connection {self._number} {self._peer} {state}>"


class Transaction:
    """What `Connection.transaction()` gives; see there."""

    def __init__(self, connection: Connection, timeout_ms: float) -> None:
        self._connection = connection
        self._timeout_ms = timeout_ms
        self._token = secrets.token_bytes(8)
        self._pid = os.getpid()

    def __enter__(self) -> Connection:
        if getattr(self._connection._local, "token", None) is not None:
            raise Unsupported("this thread has a transaction on the connection already; they do not nest")
        try:
            self._do("begin")
        except BaseException:
            # It may have begun, or yet begin, with nobody left to end it.
            with contextlib.suppress(TrunklineError):
                self._do("rollback", ROLLBACK_MS)
            raise
        self._connection._local.token = self._token
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self._pid != os.getpid():
            return  # a child forked in the block: the transaction is its parent's
        self._connection._local.token = None
        if kind is None:
            self._commit()
            return
        with contextlib.suppress(TrunklineError):  # the block's own error is the one to see
            self._do("rollback")

    def _commit(self) -> None:
        try:
            self._do("commit")
        except (WorkerDied, OperationTimeout, BrokerGone) as error:
            with contextlib.suppress(TrunklineError):
                self._do("rollback", ROLLBACK_MS)
            raise OutcomeUnknown(f"the transaction may or may not be committed: {error}") from error

    def _do(self, what: str, timeout_ms: float | None = None) -> None:
        connection = self._connection
        limit_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        deadline = Deadline(limit_ms / 1000 + GRACE_S)
        fields = (self._token, what, limit_ms)
        if what == "begin":
            connection._ask_database(Kind.TRANSACTION, fields, b"", deadline)
            return
        connection._client_now()
        connection._request(Kind.TRANSACTION, connection._holder_id, *fields, deadline=deadline)


def attached(channel: Channel, deadline: Deadline, client: Client) -> tuple[bytes, dict[str, Any]]:
    """Wait for the answer to OPEN or ATTACH: the connection's id and what is known of it; or raise what was
    answered, OperationTimeout, or BrokerGone when the broker is lost meanwhile."""
    while True:
        received = channel.receive(max(0.001, min(SLICE_S, deadline.left())))
        if received is None:
            if deadline.expired():
                raise OperationTimeout("the broker did not answer in the time allowed")
            if client.left(channel.generation):
                raise BrokerGone("the broker was lost meanwhile")
            continue
        _, kind, _, fields, _ = received
        if kind in (Kind.OPENED, Kind.ATTACHED):
            return fields[0], fields[1]
        if kind in (Kind.FAILED, Kind.ERROR):
            raise from_wire(fields[0])


def _checked(timeout_ms: object) -> float | None:
    """A timeout as it may be given: a number of milliseconds or None; 0 counts as None."""
    if timeout_ms is None or timeout_ms == 0:
        return None
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
        raise TypeError(f"read takes milliseconds as a number, not {type(timeout_ms).__name__}")
    return timeout_ms
