"""The reading half of a connection: SPEC 3's table over a pocket and a socket."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from enum import Enum
from functools import partial
from typing import Any, Final

import msgpack

from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, BrokerGone, ClosedError, TrunklineError, Unsupported, from_wire
from trunkline.message import Message, Source
from trunkline.proxy.holder import Holder
from trunkline.proxy.next_step import Do, Form, Moment, Phase, ReadCall, acknowledgement, ask
from trunkline.proxy.pocket import EMPTY, LOST, Hand, Stamped, Taken
from trunkline.proxy.process import Client, is_cut_off
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import SLICE_S, Received, RouterRoute
from trunkline.proxy.turn import FOREVER
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, Mark
from trunkline.wire.loss import Loss
from trunkline.wire.stats import Stats

__all__ = ["Call", "Reader", "data_of"]

log = logging.getLogger("trunkline")

ACK_EVERY = 256
ACK_EVERY_KEPT = 64
"""Where a message broker keeps what is not acknowledged: a killed reader's last messages are read twice."""
PACE_S = 0.005
"""How long a blocking read on a lost link waits before its `""`: a loop that ignores it must not spin."""
ANSWER_S = 0.25
"""How long a read that must not wait does wait for the worker's answer, where it has to ask for one."""
FIND_S = 0.02
AGAIN_S = 0.005
"""How often a read looks whether the control thread has joined the connection again."""


class _Again(Enum):
    AGAIN = "again"


AGAIN: Final = _Again.AGAIN
"""A read has to leave the turn to the control thread for a moment, and to begin again."""


class Reader(Holder):
    """A holder that reads; the base of `Connection`."""

    def __init__(
        self, client: Client, router: RouterRoute, key: bytes, info: Mapping[str, Any], *, raising: bool
    ) -> None:
        super().__init__(client, router, key, info, raising=raising)
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
        entry: str | bytes | None = None
        hand = None
        if self._pocket_is_mine():
            return None
        try:
            with self._lock:
                pocket = self._pocket
                items = pocket.items
                if items and not pocket.again and (timeout_ms is None or timeout_ms >= -1):
                    first = items[0]
                    if not isinstance(first, int):
                        number = pocket.consumed + 1
                        # ALL OR NOTHING, see trunkline.proxy.pocket
                        pocket.consumed = number
                        entry = first
                        del items[0]
                        if pocket.stream and number - pocket.acked < self._ack_every:
                            return entry
                        self._ack_if_free()
                        return entry
            if timeout_ms == -1 and self._quiet():
                return None
            hand = Hand()
            taken = self._take(Call(timeout_ms, hand))
            if taken is not EMPTY and taken is not LOST:
                return data_of(taken)
        except TrunklineError:
            raise
        except BaseException:
            self._not_returned(hand, entry)
            raise
        if taken is LOST:
            return self._when_lost()
        self._check_not_closed()
        return None

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
        if self._pocket_is_mine():
            return None
        hand = Hand()
        try:
            taken: Taken | None = None
            with self._lock:
                pocket = self._pocket
                pocket.want_envelopes()
                items = pocket.items
                here = bool(pocket.again or (items and not isinstance(items[0], int)))
                if here and (timeout_ms is None or timeout_ms >= -1):
                    taken = pocket.take(hand, keep=not ack)
                    if not ack or not pocket.stream or pocket.consumed - pocket.acked >= self._ack_every:
                        self._ack_if_free()
            if taken is None:
                taken = self._take(Call(timeout_ms, hand, keep=not ack))
            if taken is not EMPTY and taken is not LOST:
                assert isinstance(taken, Stamped)
                return _message(taken, self._itself())
        except TrunklineError:
            raise
        except BaseException:
            self._not_returned(hand, None)
            raise
        if taken is LOST:
            return self._when_lost()
        self._check_not_closed()
        return None

    def _no_acknowledgements(self) -> str:
        return (
            f"{self._scheme}:// has no acknowledgements with this address, so receive(ack=False) could "
            "promise nothing: use receive()"
        )

    def watch(self) -> tuple[bool, int | None, object]:
        """For whoever waits for several connections (`EventLoop`): whether a read would return at once, the
        descriptor that becomes readable when more has come (None: look again later), and a mark that differs
        when the connection was read from, or when something came while the link was known to be down. Takes
        no message; never waits but for a worker's figures. An object that was closed is never ready."""
        if self._closed:
            return False, None, None
        self._turn.run(0, self._look)
        if self._resync or not (self._route.is_joined or self._closed):
            try:
                self._ask_to_join(Deadline(ANSWER_S))
            except BrokerGone as error:
                remember(error)
        with self._lock:
            pocket = self._pocket
            here = bool(pocket.items or pocket.again)
            mark = (pocket.consumed, pocket.down, pocket.ended, here)
            ready = here or pocket.ended or (pocket.down and pocket.stream)
            asks = not pocket.stream and not ready
        if asks:
            stats = self.stats()
            lost = stats.state != "open"
            # An outage that was over between two looks is known by the count alone: the mark tells it once.
            ready = stats.buffered > 0 or lost or stats.reconnects > 0
            return ready, None, (*mark, lost, stats.reconnects, stats.buffered > 0)
        return ready, self._route.fileno(), mark

    def stats(self) -> Stats:
        """See `Connection.stats`."""
        raise NotImplementedError

    def _quiet(self) -> bool:
        """A cheap look whether there is surely nothing to read: polling loops live on it."""
        pocket = self._pocket
        if pocket.acked != pocket.consumed or pocket.down or pocket.more or not pocket.stream:
            return False
        if pocket.again or pocket.items or self._unsure:
            return False  # among the items is a loss that is not read yet: `watch` may have taken it in
        return self._turn.run(0, self._route.is_quiet) is True

    def _look(self) -> None:
        """With `_turn` held: take in what has come."""
        if not self._closed and self._in_order():
            self._drain()

    def _not_returned(self, hand: Hand | None, entry: str | bytes | None) -> None:
        """A signal handler has raised, so what was taken has not reached the program: the next read gives
        it."""
        self._waiting = False
        with self._lock:
            if hand is None:
                hand = Hand()
                hand.entry = hand.whole = entry
                hand.number = self._pocket.consumed
            if not self._closed:
                self._pocket.put_back(hand)
        if self._route.is_joined and self._turn.run(0, self._in_order) is False:
            self._client.rejoin_soon()

    def _check_not_closed(self) -> None:
        """Another thread may have closed the object while this one waited."""
        if self._raising and self._closed:
            raise ClosedError(self._closed_by("read"))

    def _when_lost(self) -> str | None:
        if self._raising:
            if self._closed:
                raise ClosedError(self._closed_by("read"))
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

    def _take(self, call: Call) -> Taken:
        if self._executes:
            self._misuse("read", "use exec")
            return EMPTY
        if self._closed and not self._raising:
            self._after_close("read")
        if self._pocket_is_mine():
            return EMPTY
        try:
            while True:
                deadline = call.deadline
                seconds = FOREVER if deadline.timeout() is None else deadline.left()
                taken = self._turn.run(seconds, partial(self._take_in_turn, call))
                if self._closed:
                    self._turn.run(0, self._route.close)
                if taken is AGAIN:
                    if self._resync or not self._route.is_joined:
                        self._ask_to_join(call.limit)
                    time.sleep(min(AGAIN_S, call.limit.left()))
                elif isinstance(taken, (str, bytes, Stamped)) or taken is LOST or taken is EMPTY:
                    return taken
                else:
                    break
            if self._turn.is_mine():  # a signal handler, which has interrupted the read of this very thread
                return EMPTY
            with self._lock:  # another thread is waiting for data; what it has not taken is ours
                return call.read.take(self._pocket)
        except BrokerGone as error:
            remember(error)
            with self._lock:
                self._pocket.put_back(call.read.hand)
            return EMPTY if call.read.blocking and call.deadline.expired() else LOST

    def _pocket_is_mine(self) -> bool:
        """Whether a signal handler asks that has interrupted this very thread while it changes the pocket."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    def _take_in_turn(self, call: Call) -> Taken | _Again:
        """With `_turn` held: carry out what `ReadCall.next_step` says, until the read is over or has to leave
        the turn to the control thread."""
        read, limit = call.read, call.limit
        silent = confirmed = waits = False
        usable = self._closed or self._gone is not None or self._in_order()
        try:
            while True:
                with self._lock:
                    moment = Moment(
                        closed=self._closed,
                        usable=usable,
                        orphan=self._orphan,
                        stale=silent and self._stale(),
                        expired=limit.expired(),
                        silent=silent,
                        confirmed=confirmed,
                    )
                    do, taken = read.next_step(self._pocket, moment)
                    waits = read.phase is Phase.WAITING
                    self._waiting = waits and read.blocking
                    number = self._pocket.answered
                if do is Do.HEAR:
                    self._drain()
                    if read.form is Form.NEWEST:
                        limit = Deadline(ANSWER_S)
                elif do is Do.ASK:
                    self._ask(read.form)
                    silent = not self._await_push(limit)
                elif do is Do.WAIT:
                    self._ack(waiting=True)
                    silent = not self._await_push(limit)
                elif do is Do.GIVE_UP:
                    self._route.send(Kind.CANCEL, self._holder_id, number)
                    limit = Deadline(ANSWER_S)
                    silent, confirmed = self._await_confirmation(number, limit)
                elif do is Do.CONFIRM:
                    silent, confirmed = self._await_confirmation(number, limit)
                elif do is Do.REJOIN:
                    return AGAIN
                else:
                    return self._end_read(do, taken, call)
        except BaseException:
            self._waiting = False
            if waits and read.form is not Form.NEWEST:
                with contextlib.suppress(Exception):
                    if self._in_order():
                        self._route.send(Kind.CANCEL, self._holder_id, self._pocket.give_up_asks())
            raise

    def _end_read(self, do: Do, taken: Taken, call: Call) -> Taken:
        """With `_turn` held: the last step of a read. A blocking read that meets a lost link waits a moment,
        so that a loop that ignores the `""` does not spin."""
        if do is Do.FIND:
            self._find_worker()
        if do in (Do.TAKE, Do.TAKE_SLOWLY, Do.LOOK):
            self._ack()
        if not call.read.blocking or do in (Do.TAKE, Do.RETURN):
            return taken
        pace = Deadline(min(PACE_S, call.deadline.left()))
        if do in (Do.FIND, Do.LOOK):
            received = self._route.peek(max(0.001, pace.left()))
            if received is not None:
                self._handle_stream(received)
                self._route.done()
                return taken
        time.sleep(pace.left())
        return taken

    def _await_confirmation(self, number: int, limit: Deadline) -> tuple[bool, bool]:
        """Wait for the next message; whether none has come, and whether it was the worker's confirmation that
        the asks up to this number are over."""
        received = self._route.peek(max(0.001, limit.left()))
        if received is None:
            return True, False
        confirmed = received[1] is Kind.CANCELLED and received[3][0] >= number
        self._handle_stream(received)
        self._route.done()
        return False, confirmed

    def _ask(self, form: Form) -> None:
        if not self._route.is_chosen:
            self._start()
        self._unsure = True
        with self._lock:
            said, kept = ask(self._pocket, self._holder_id, form)
        self._say_kept(kept)
        self._route.send(Kind.READ, *said)
        self._unsure = False

    def _say_kept(self, kept: list[tuple[int, int]]) -> None:
        """Tell the worker, before it hears that they were consumed, which messages are settled later."""
        for consumed, ticket in kept:
            self._route.send(Kind.KEEP, self._holder_id, consumed, ticket)

    def _await_push(self, deadline: Deadline) -> bool:
        """Wait for a moment, not beyond the deadline; whether the worker has answered or sent something."""
        received = self._route.peek(max(0.001, min(SLICE_S, deadline.left())))
        if received is None:
            return False
        answered = self._handle_stream(received)
        self._route.done()
        return self._drain() or answered

    def _drain(self) -> bool:
        answered = False
        while True:
            received = self._route.peek(0)
            if received is None:
                return answered
            answered = self._handle_stream(received) or answered
            self._route.done()

    def _handle_stream(self, received: Received) -> bool:
        """One message on the stream socket; False when it changes nothing for who waits."""
        _, kind, _, fields, body = received
        if kind is Kind.PUSH:
            self._orphan = False
            epoch, stream, more, first, stamped, losses, answer = messages.Push(*fields)
            entries = msgpack.unpackb(body[0], raw=False, use_list=True)
            stamps = values.unpack(entries.pop()) if stamped else ()
            for index, *cause in losses:
                entries[index] = Loss.from_wire(entries[index], cause)
            with self._lock:
                fed = self._pocket.feed(epoch, stream, more, entries, first, stamps, answer)
                gap, self._pocket.gap = self._pocket.gap, False
            if gap and self._route.is_joined:
                self._route.mark_stale()  # attached anew, we are sent again what we have not read
                self._client.rejoin_soon()
            return fed
        if kind is Kind.START:
            self._orphan = False
        elif kind is Kind.GONE:
            self._lose_worker(*messages.Gone(*fields))
            return True
        elif kind is Kind.ERROR:
            log.warning("%s: %s", self._peer, from_wire(fields[0]))
        return False

    def _lose_worker(self, replaced: bool, why: str, serving: int) -> None:
        """The worker is gone; `replaced`: another one will take over, of incarnation `serving`."""
        if replaced and not serving and self._route.is_joined:
            # This broker does not know the connection. It may have taken over before we have noticed; joining
            # anew tells what has become of the connection.
            self._route.mark_stale()
            self._client.rejoin_soon()
            return
        if replaced and serving <= self._serving:
            # Its loss is known. The broker tells it once more to those who have asked what could not hear.
            if not self._route.has_stream:
                self._route.try_door_again()
                self._orphan = True
            return
        self._serving = serving
        self._route.close_stream()
        self._route.try_door_again()
        self._orphan = replaced
        with self._lock:
            self._pocket.lose(Mark.DOWN if replaced else Mark.END, comes_again=self._comes_again)
        if not replaced:
            self._gone = self._gone or why
            if not self._closed:
                remember(BrokenError(f"the connection to {self._peer} has ended: {why}; dial again"))

    def _find_worker(self) -> None:
        """Say START until the worker that takes over has heard it. One that does not answer may not have
        been told of this object: then join the connection anew."""
        now = time.monotonic()
        if not self._route.has_stream and now >= self._start_at:
            self._start_at = now + FIND_S
            self._start()
        elif self._route.has_stream and now >= self._unheard_at:
            self._unsure = True

    def _ack(self, *, waiting: bool = False) -> None:
        """With `_turn` held. An ask that is out is over, unless it is still waited for."""
        self._unsure = True
        with self._lock:
            owed = acknowledgement(self._pocket, self._holder_id, waiting=waiting)
        if owed is not None:
            ack, kept = owed
            self._say_kept(kept)
            self._route.send(Kind.ACK, *ack)
        self._unsure = False

    def _ack_if_free(self) -> None:
        """Acknowledge now if nobody is using the socket; whoever is will do it."""
        self._turn.run(0, self._ack_in_turn)

    def _ack_in_turn(self) -> None:
        if not self._closed and self._in_order():
            self._ack()

    def _idle_ack(self, control: RouterRoute) -> None:
        """Called by the control thread now and then: what was read before a long pause."""
        self._ack_if_idle()

    def _ack_if_idle(self) -> None:
        """Acknowledge what was read, unless someone uses the socket: who waits for data has done it. What a
        busy worker did not take then is sent now."""
        untold = self._pocket.consumed > max(self._pocket.acked, 0)
        if untold or self._route.has_unsent():
            self._turn.run(0, self._say_all_in_turn)

    def _say_all_in_turn(self) -> None:
        if not self._closed and self._in_order():
            self._ack()
            self._route.flush()

    def _say_what_waits(self, limit: Deadline) -> None:
        """Return when the worker has been sent all that this object said, or the time is over: what comes
        another way might be faster."""
        self._ack_if_idle()
        while self._route.has_unsent() and not self._closed and not limit.expired():
            time.sleep(0.002)
            self._ack_if_idle()

    def _after_close(self, what: str) -> None:
        """Say once what is wrong: a loop may go on for long, and must not hide what fails later."""
        if what not in self._told and not is_cut_off():
            self._told.add(what)
            error = ClosedError(f"{self._peer}: {self._closed_by(what)}; dial again")
            log.warning("%s", error)
            remember(error)

    def _closed_by(self, what: str) -> str:
        if self._client.program_ends:
            return f"{what} after the program's end has closed the connection"
        return f"{what} on a connection that you have closed"

    def _failed(self, error: TrunklineError, value: Any, *, quiet: bool = False) -> Any:
        """Failure as this object's form says: raise, or log and answer with a value."""
        if self._raising:
            raise error
        remember(error)
        if not quiet and not (isinstance(error, ClosedError) and is_cut_off()):
            text = str(error)
            log.warning("%s", text if self._peer in text else f"{self._peer}: {text}")
        return value

    def _misuse(self, what: str, instead: str) -> None:
        error = Unsupported(f"{self._scheme}:// has no {what}: {instead}")
        self._failed(error, None)


class Call:
    """One call of read or receive, with its limits of time."""

    __slots__ = ("deadline", "limit", "read")

    def __init__(self, timeout_ms: object, hand: Hand, *, keep: bool = False) -> None:
        checked = _checked(timeout_ms)
        if checked is None or checked > 0:
            form = Form.WAIT
        elif checked < -1:
            form = Form.NEWEST
        else:
            form = Form.NOW
        self.read = ReadCall(form, hand, keep=keep)
        self.deadline: Deadline = Deadline.after_ms(checked) if self.read.blocking else Deadline(0)
        self.limit: Deadline = self.deadline if self.read.blocking else Deadline(ANSWER_S)
        """Until when to wait where an answer is needed."""


def data_of(taken: Taken) -> str | bytes:
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
