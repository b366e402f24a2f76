"""The reading half of a connection: SPEC 3's table over a pocket and a socket."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgpack

from trunkline.channel import SLICE_S, Channel, Received
from trunkline.client import Client
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, BrokerGone, ClosedError, TrunklineError, Unsupported, from_wire
from trunkline.holder import Holder
from trunkline.message import Message, Source
from trunkline.pocket import EMPTY, LOST, Pocket, Stamped, Taken
from trunkline.reasons import remember
from trunkline.wire import values
from trunkline.wire.envelope import Kind, Mark
from trunkline.wire.loss import Loss
from trunkline.wire.stats import Stats

__all__ = ["Reader"]

log = logging.getLogger("trunkline")

ACK_EVERY = 256
ACK_EVERY_KEPT = 64
"""Where a message broker keeps what is not acknowledged: a killed reader's last messages are read twice."""
PACE_S = 0.005
"""How long a blocking read on a lost link waits before its `""`: a loop that ignores it must not spin."""
ANSWER_S = 0.25
"""How long a read that must not wait does wait for the worker's answer, where it has to ask for one."""
FIND_S = 0.02


class Reader(Holder):
    """A holder that reads; the base of `Connection`."""

    def __init__(
        self, client: Client, channel: Channel, key: bytes, info: Mapping[str, Any], *, raising: bool
    ) -> None:
        super().__init__(client, channel, key, info, raising=raising)
        self._told_loss: Loss | None = None
        self._ack_every = ACK_EVERY_KEPT if self._comes_again else ACK_EVERY

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
                    if pocket.stream and pocket.consumed - pocket.acked < self._ack_every:
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
        return _data(taken)

    def receive(self, timeout_ms: float | None = None, *, ack: bool = True) -> Message | str | None:
        """What `read` would return, as a `Message`: with its topic, key, headers, time and so on.

        `timeout_ms` and what comes instead of a message (None, `""`, the errors of `connect`) are those of
        `read`. The first call asks the worker for the envelopes; before it nobody pays for them.

        `ack=False`, where a message broker waits for acknowledgements: the message is not acknowledged yet.
        The program does its work and then calls `message.ack()`, `nak()`, `reject()` or `term()`. A message
        whose program ends before that is read again, by another holder or after the next Dial. Where the
        scheme has no acknowledgements, None and a reason (an object of `connect` raises Unsupported).
        """
        if not ack and not self._acknowledges:
            self._failed(Unsupported(self._no_acknowledgements()), None)
            return None
        taken: Taken | None = None
        with self._lock:
            pocket = self._pocket
            pocket.want_envelopes()
            items = pocket.items
            if items and not isinstance(items[0], int) and (timeout_ms is None or timeout_ms >= -1):
                taken = pocket.take(keep=not ack)
                if not ack or not pocket.stream or pocket.consumed - pocket.acked >= self._ack_every:
                    self._ack_if_free(pocket)
        if taken is None:
            taken = self._take(_checked(timeout_ms), keep=not ack)
        if taken is EMPTY:
            return None
        if taken is LOST:
            return self._when_lost()
        assert isinstance(taken, Stamped)
        return _message(taken, self._itself())

    def _no_acknowledgements(self) -> str:
        return (
            f"{self._scheme}:// has no acknowledgements with this address, so receive(ack=False) could "
            "promise nothing: use receive()"
        )

    def watch(self) -> tuple[bool, int | None, object]:
        """For whoever waits for several connections (`EventLoop`): whether a read would return at once, the
        descriptor that becomes readable when more has come (None: look again later), and a mark that differs
        when the connection was read from. Takes no message; never waits but for a worker's figures."""
        if self._turn.acquire(blocking=False):
            try:
                if self._usable() is not None:
                    self._drain()
            except BrokerGone as error:
                remember(error)
            finally:
                self._release_turn()
        pipe = self._pipe
        with self._lock:
            pocket = self._pocket
            mark = (pocket.consumed, pocket.down, pocket.ended)
            ready = bool(pocket.items) or pocket.ended or (pocket.down and pocket.stream)
            asks = not pocket.stream and not ready
        if asks:
            return self.stats().buffered > 0, None, mark
        return ready, pipe.fileno() if pipe is not None else None, mark

    def stats(self) -> Stats:
        """See `Connection.stats`."""
        raise NotImplementedError

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
            raise self._loss_error()
        loss = self._pocket.loss
        if loss is not None and loss is not self._told_loss:  # once: polling must not hide what fails later
            self._told_loss = loss
            remember(self._loss_error())
        return self._lost

    def _loss_error(self) -> BrokenError:
        """The loss that was met in the order of reading, with its cause where the worker has told it."""
        loss = self._pocket.loss
        text = f"the link to {self._peer} {'has ended' if self._pocket.ended else 'was lost'}"
        if loss is None:
            gone = f": {self._gone}" if self._gone and self._pocket.ended else ""
            return BrokenError(f"{text}{gone}")
        return BrokenError(f"{text}: {loss.text}", code=loss.code, reason=loss.reason)

    def _take(self, timeout_ms: float | None, *, keep: bool = False) -> Taken:
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
                pocket = self._pocket
                return pocket.take_newest(keep=keep) if newest else pocket.take(keep=keep)
        try:
            return self._take_in_turn(newest, blocking, deadline, keep)
        except BrokerGone as error:
            remember(error)
            return LOST
        finally:
            self._release_turn()

    def _take_in_turn(self, newest: bool, blocking: bool, deadline: Deadline, keep: bool) -> Taken:
        if self._usable() is None:
            return self._paced(blocking, deadline)
        self._drain()
        if self._orphan and not self._pocket.items:
            self._find_worker()
            return self._paced_look(blocking, deadline)
        if newest:
            return self._take_newest(keep)
        with self._lock:
            pocket = self._pocket
            taken = pocket.take(keep=keep)
            asks = blocking or not pocket.stream or pocket.more
            bare = pocket.down and not pocket.items
            self._waiting = blocking and taken is EMPTY
        if taken is LOST and bare:
            return self._paced_look(blocking, deadline)
        if taken is EMPTY and asks:
            return self._wait(blocking, deadline, keep)
        self._ack()
        return taken

    def _wait(self, blocking: bool, deadline: Deadline, keep: bool) -> Taken:
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
                    taken, stream = self._pocket.take(keep=keep), self._pocket.stream
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
            return self._give_up(keep)
        self._ack()
        if taken is LOST and not stream:
            self._paced(blocking, deadline)  # where each read asks, it is answered as fast as it is asked
        return taken

    def _give_up(self, keep: bool) -> Taken:
        """The time is over: say so; a message may have been sent to us just before."""
        self._say(Kind.CANCEL, self._holder_id)
        limit = Deadline(ANSWER_S)
        while not limit.expired() and not self._closed:
            received = self._receive(max(0.001, limit.left()))
            if received is None or received[1] is Kind.CANCELLED:
                break
            self._handle_stream(received)
        with self._lock:
            taken = self._pocket.take(keep=keep)
        self._ack()
        return taken

    def _take_newest(self, keep: bool) -> Taken:
        with self._lock:
            answered = self._pocket.has_newest()
            if not answered:
                self._pocket.discard()
        limit = Deadline(ANSWER_S)
        while not answered and not limit.expired() and not self._closed:
            self._ask(wait=False, newest=True)
            answered = self._await_push(limit)
        with self._lock:
            taken = self._pocket.take_newest(keep=keep)
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
                pocket.envelopes,
            )
            pocket.acked, pocket.skipped = pocket.consumed, 0
            kept = pocket.tell_kept()
        if self._pipe is None and not self._routed:
            self._start()
        self._say_kept(kept)
        self._say(Kind.READ, *fields)

    def _say_kept(self, kept: list[tuple[int, int]]) -> None:
        """Tell the worker, before it hears that they were consumed, which messages are settled later."""
        for consumed, ticket in kept:
            self._say(Kind.KEEP, self._holder_id, consumed, ticket)

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
            epoch, stream, more, first, stamped, losses = fields
            entries = msgpack.unpackb(body[0], raw=False, use_list=True)
            stamps = values.unpack(entries.pop()) if stamped else ()
            for index, *cause in losses:
                entries[index] = Loss.from_wire(entries[index], cause)
            with self._lock:
                fed = self._pocket.feed(epoch, stream, more, entries, first, stamps)
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
            self._pocket.lose(Mark.DOWN if replaced else Mark.END, comes_again=self._comes_again)
        if not replaced:
            self._gone = self._gone or why
            if not self._closed:
                remember(BrokenError(f"the connection to {self._peer} has ended: {why}; dial again"))

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
            kept = pocket.tell_kept()
        self._say_kept(kept)
        self._say(Kind.ACK, *fields)

    def _ack_if_free(self, pocket: Pocket) -> None:
        """With `_lock` held: acknowledge now if nobody is using the socket; whoever is will do it."""
        if self._turn.acquire(blocking=False):
            try:
                if pocket.consumed > 0:
                    fields = (self._holder_id, pocket.consumed, pocket.skipped)
                    pocket.acked, pocket.skipped = pocket.consumed, 0
                    self._say_kept(pocket.tell_kept())
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

    def _after_close(self, what: str) -> None:
        """Say once what is wrong: a loop may go on for long."""
        if what not in self._told:
            self._told.add(what)
            log.warning("%s: %s on a connection that you have closed; dial again", self._peer, what)

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


def _data(taken: Taken) -> str | bytes:
    data = taken.data if isinstance(taken, Stamped) else taken
    assert isinstance(data, (str, bytes))
    return data


def _message(taken: Stamped, source: Source) -> Message:
    if taken.stamp is None:  # the last messages of a worker that is gone
        return Message(taken.data, time.time_ns(), _source=source)
    _, received_ns, *envelope = taken.stamp
    if not envelope:
        return Message(taken.data, received_ns, _source=source, _ticket=taken.ticket)
    topic, key, headers, timestamp, offset, partition, redelivered, reply_to, properties = envelope
    return Message(
        taken.data,
        received_ns,
        topic,
        key,
        headers or {},
        timestamp,
        offset,
        partition,
        redelivered,
        reply_to,
        properties or {},
        _source=source,
        _ticket=taken.ticket,
    )


def _checked(timeout_ms: object) -> float | None:
    """A timeout as it may be given: a number of milliseconds or None; 0 counts as None."""
    if timeout_ms is None or timeout_ms == 0:
        return None
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
        raise TypeError(f"read takes milliseconds as a number, not {type(timeout_ms).__name__}")
    return timeout_ms
