"""Reading from a connection: carries out the steps of `next_step` with a pocket and a socket.

The user's threads run this module, several at a time perhaps. A read first tries to take an entry
from the pocket under `Membership.lock`, without the turn. A read that has to listen, to ask or to
wait takes the turn of the stream socket (`Membership.turn`). While one thread waits with the turn,
the other threads wait for the turn until their own timeouts.

Ctrl-C may raise an exception in the main thread anywhere. A message that was taken and that could
not be returned is put back into the pocket, so that the next read gives it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import Final

from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, BrokerGone, ClosedError, TrunklineError, Unsupported
from trunkline.message import Message, Source
from trunkline.proxy.dialogue import Dialogue
from trunkline.proxy.failures import Failures, closed_by
from trunkline.proxy.membership import Membership
from trunkline.proxy.next_step import Do, Form, Moment, Phase, ReadCall
from trunkline.proxy.pocket import EMPTY, LOST, Hand, Stamped, Taken
from trunkline.proxy.reasons import remember
from trunkline.proxy.turn import FOREVER
from trunkline.wire import messages
from trunkline.wire.envelope import Kind
from trunkline.wire.loss import Loss
from trunkline.wire.stats import Stats

__all__ = ["Call", "Reader", "data_of"]

ACK_EVERY = 256
"""After so many messages, reads acknowledge to the worker although the worker streams."""
ACK_EVERY_KEPT = 64
"""The same where a message broker delivers unacknowledged messages again. Smaller, because the
messages that a killed program had read since its last acknowledgement are read twice."""
PACE_S = 0.005
"""Seconds that a blocking read on a lost link waits before it returns `""`: a program that ignores
the `""` and reads in a loop must not spin."""
ANSWER_S = 0.25
"""Seconds that a read without waiting (-1 or less) waits for the worker's answer, where it has to
ask. The worker answers at once; the limit is for a stopped or dead worker."""
AGAIN_S = 0.005
"""Seconds between two looks whether the control thread has joined the connection again."""


class _Again(Enum):
    AGAIN = "again"


AGAIN: Final = _Again.AGAIN
"""The read leaves the turn to the control thread for a moment, and begins again."""


class Reader:
    """The reads of one object."""

    __slots__ = ("_ack_every", "_dialogue", "_failures", "_member", "_told_loss")

    def __init__(self, member: Membership, dialogue: Dialogue, failures: Failures) -> None:
        self._member = member
        self._dialogue = dialogue
        self._failures = failures
        self._told_loss: Loss | None = None
        """The last loss kept for `last_error()`."""
        self._ack_every = ACK_EVERY_KEPT if member.about.comes_again else ACK_EVERY

    def read(self, timeout_ms: float | None = None) -> str | bytes | None:
        """See `Connection.read`."""
        member = self._member
        entry: str | bytes | None = None
        hand = None
        if member.pocket_is_mine():
            # A signal handler reads, and has interrupted this thread while it changes the pocket.
            # The lock would let the handler in, for it is reentrant.
            return None
        try:
            # The fast path: most reads of a busy stream take the leftmost message and return. The
            # lines below are those of `Pocket.take`, written out to save the calls.
            with member.lock:
                pocket = member.pocket
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
                        self._dialogue.acknowledge_if_free()
                        return entry
            # Polling loops call `read(-1)` all the time: answer them without the turn's long way.
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
        """See `Connection.receive`."""
        member = self._member
        if not ack and not member.about.acknowledges:
            self._failures.failed(Unsupported(self._no_acknowledgements()), None)
            return None
        if member.pocket_is_mine():
            return None
        hand = Hand()
        try:
            taken: Taken | None = None
            with member.lock:
                pocket = member.pocket
                pocket.want_envelopes()
                items = pocket.items
                here = bool(pocket.again or (items and not isinstance(items[0], int)))
                if here and (timeout_ms is None or timeout_ms >= -1):
                    taken = pocket.take(hand, keep=not ack)
                    if (
                        not ack
                        or not pocket.stream
                        or pocket.consumed - pocket.acked >= self._ack_every
                    ):
                        self._dialogue.acknowledge_if_free()
            if taken is None:
                taken = self._take(Call(timeout_ms, hand, keep=not ack))
            if taken is not EMPTY and taken is not LOST:
                assert isinstance(taken, Stamped)
                return _message(taken, member.owner())
        except TrunklineError:
            raise
        except BaseException:
            self._not_returned(hand, None)
            raise
        if taken is LOST:
            return self._when_lost()
        self._check_not_closed()
        return None

    def messages(self) -> Iterator[str | bytes]:
        """See `Connection.__iter__`. Losses of the link are passed over until the link has
        ended."""
        member = self._member
        while True:
            hand = Hand()
            try:
                taken = self._take(Call(None, hand))
                data = data_of(taken) if isinstance(taken, (str, bytes, Stamped)) else None
                over = member.pocket.ended or member.closed or taken is EMPTY
            except TrunklineError:
                raise
            except BaseException:
                self._not_returned(hand, None)
                raise
            if data is not None:
                yield data
            elif over:
                return

    def _no_acknowledgements(self) -> str:
        return (
            f"{self._member.about.scheme}:// has no acknowledgements with this address, "
            "so receive(ack=False) could promise nothing: use receive()"
        )

    def watch(self, stats: Callable[[], Stats]) -> tuple[bool, int | None, object]:
        """See `Connection.watch`; `stats` asks the worker for its figures.

        `stats` is called only where the worker does not stream, for nothing arrives there unasked.
        """
        member = self._member
        if member.closed:
            return False, None, None
        # Take in what has arrived; the thread with the turn does so itself.
        member.turn.run(0, self.look)
        if member.resync or not (member.route.is_joined or member.closed):
            try:
                member.ask_to_join(Deadline(ANSWER_S))
            except BrokerGone as error:
                remember(error)
        with member.lock:
            pocket = member.pocket
            here = bool(pocket.items or pocket.again)
            mark = (pocket.consumed, pocket.down, pocket.ended, here)
            ready = here or pocket.ended or (pocket.down and pocket.stream)
            asks = not pocket.stream and not ready
        if asks:
            figures = stats()
            lost = figures.state != "open"
            # Only the count of reconnects tells of an outage that began and ended between two
            # looks. The count is part of the mark, so the caller sees one change for the outage.
            ready = figures.buffered > 0 or lost or figures.reconnects > 0
            return ready, None, (*mark, lost, figures.reconnects, figures.buffered > 0)
        return ready, member.route.fileno(), mark

    def _quiet(self) -> bool:
        """Whether there is surely nothing to read. A cheap look for programs that poll.

        Reads the pocket without its lock: a wrong False costs only the longer way, and a message
        that arrives just now would as well have arrived just after.
        """
        member = self._member
        pocket = member.pocket
        if pocket.acked != pocket.consumed or pocket.down or pocket.more or not pocket.stream:
            return False
        # `items` may begin with a mark that `watch` has taken in: a loss to report.
        if pocket.again or pocket.items or member.unsure:
            return False
        return member.turn.run(0, member.route.is_quiet) is True

    def look(self) -> None:
        """With the turn held: take everything that has arrived into the pocket."""
        member = self._member
        if not member.closed and member.in_order():
            self._dialogue.drain()

    def _not_returned(self, hand: Hand | None, entry: str | bytes | None) -> None:
        """Put back the message of a read interrupted by an exception of a signal handler.

        `hand` holds the message, or `entry` is the message taken by the fast path of `read`.
        """
        member = self._member
        member.waiting = False
        with member.lock:
            if hand is None:  # the fast path has no hand: make one of its entry
                hand = Hand()
                hand.entry = hand.whole = entry
                hand.number = member.pocket.consumed
            if not member.closed:
                member.pocket.put_back(hand)
        # The exception may have interrupted the stream socket in the middle of a message.
        if member.route.is_joined and member.turn.run(0, member.in_order) is False:
            member.client.rejoin_soon()

    def _check_not_closed(self) -> None:
        """Raise ClosedError for an object of `connect` closed by another thread meanwhile."""
        member = self._member
        if member.about.raising and member.closed:
            raise ClosedError(closed_by("read", program_ends=member.client.program_ends))

    def _when_lost(self) -> str | None:
        """End a read at a lost link: raise, or return the value for a lost link."""
        member = self._member
        if member.about.raising:
            if member.closed:
                raise ClosedError(closed_by("read", program_ends=member.client.program_ends))
            raise self._loss_error()
        loss = member.pocket.loss
        # Each loss is kept once: a program that polls a lost link must not overwrite later reasons.
        if loss is not None and loss is not self._told_loss:
            self._told_loss = loss
            remember(self._loss_error())
        return member.about.lost

    def _loss_error(self) -> BrokenError:
        """The error for the loss just read, with the cause where the worker has told one."""
        member = self._member
        loss = member.pocket.loss
        text = (
            f"the link to {member.about.peer} {'has ended' if member.pocket.ended else 'was lost'}"
        )
        if loss is None:
            gone = f": {member.gone}" if member.gone and member.pocket.ended else ""
            return BrokenError(f"{text}{gone}")
        return BrokenError(f"{text}: {loss.text}", code=loss.code, reason=loss.reason)

    def _take(self, call: Call) -> Taken:
        """Take the entry of a call, waiting as long as the call allows: the long way of each read.

        Returns EMPTY at the deadline and after a misuse. Returns LOST for a lost link, and when the
        broker is lost before the deadline.
        """
        member = self._member
        if member.about.executes:
            self._failures.misuse("read", "use exec")
            return EMPTY
        if member.closed and not member.about.raising:
            self._failures.after_close("read", program_ends=member.client.program_ends)
        if member.pocket_is_mine():
            return EMPTY
        try:
            while True:
                deadline = call.deadline
                seconds = FOREVER if deadline.timeout() is None else deadline.left()
                taken = member.turn.run(seconds, partial(self._take_in_turn, call))
                # `close` could not close the sockets while this thread used them.
                if member.closed:
                    member.turn.run(0, member.route.close)
                if taken is AGAIN:
                    if member.resync or not member.route.is_joined:
                        member.ask_to_join(call.limit)
                    time.sleep(min(AGAIN_S, call.limit.left()))
                elif isinstance(taken, (str, bytes, Stamped)) or taken is LOST or taken is EMPTY:
                    return taken
                else:
                    break  # BUSY: the turn could not be had in time
            if member.turn.is_mine():
                # A signal handler reads, and has interrupted the read of this very thread.
                return EMPTY
            # Another thread has the turn and waits for data. It may have left entries in the
            # pocket.
            with member.lock:
                return call.read.take(member.pocket)
        except BrokerGone as error:
            # `ask_to_join` found no broker, in a forked child for example.
            remember(error)
            with member.lock:
                member.pocket.put_back(call.read.hand)
            return EMPTY if call.read.blocking and call.deadline.expired() else LOST

    def _take_in_turn(self, call: Call) -> Taken | _Again:
        """With the turn held: carry out the steps of `ReadCall.next_step` until the read is over.

        Returns AGAIN when the read has to leave the turn to the control thread first.
        """
        member = self._member
        read, limit = call.read, call.limit
        silent = confirmed = waits = False
        usable = member.closed or member.gone is not None or member.in_order()
        try:
            while True:
                # Deciding needs the lock: the control thread may answer a recall at any moment. The
                # waits below do not hold it.
                with member.lock:
                    moment = Moment(
                        closed=member.closed,
                        usable=usable,
                        orphan=member.orphan,
                        stale=silent and member.is_stale(),
                        expired=limit.expired(),
                        silent=silent,
                        confirmed=confirmed,
                    )
                    do, taken = read.next_step(member.pocket, moment)
                    waits = read.phase is Phase.WAITING
                    # From here on a recall tells the worker that this holder waits for a message.
                    member.waiting = waits and read.blocking
                    number = member.pocket.answered
                if do is Do.HEAR:
                    self._dialogue.drain()
                    if read.form is Form.NEWEST:
                        limit = Deadline(ANSWER_S)
                elif do is Do.ASK:
                    self._dialogue.ask(read.form)
                    silent = not self._dialogue.await_push(limit)
                elif do is Do.WAIT:
                    self._dialogue.acknowledge(waiting=True)
                    silent = not self._dialogue.await_push(limit)
                elif do is Do.GIVE_UP:
                    member.route.send(Kind.CANCEL, member.holder_id, number)
                    limit = Deadline(ANSWER_S)
                    silent, confirmed = self._await_confirmation(number, limit)
                elif do is Do.CONFIRM:
                    silent, confirmed = self._await_confirmation(number, limit)
                elif do is Do.REJOIN:
                    return AGAIN
                else:
                    return self._end_read(do, taken, call)
        except BaseException:
            member.waiting = False
            # Tell the worker that nobody waits any more: it would keep the next message for this
            # ask.
            if waits and read.form is not Form.NEWEST:
                with contextlib.suppress(Exception):
                    if member.in_order():
                        member.route.send(
                            Kind.CANCEL, member.holder_id, member.pocket.give_up_asks()
                        )
            raise

    def _end_read(self, do: Do, taken: Taken, call: Call) -> Taken:
        """With the turn held: carry out the last step of a read. Returns the read's result.

        A blocking read that meets a lost link waits `PACE_S`, but for the steps TAKE and RETURN.
        """
        member = self._member
        if do is Do.FIND:
            self._dialogue.find_worker()
        if do in (Do.TAKE, Do.TAKE_SLOWLY, Do.LOOK):
            self._dialogue.acknowledge()
        if not call.read.blocking or do in (Do.TAKE, Do.RETURN):
            return taken
        pace = Deadline(min(PACE_S, call.deadline.left()))
        if do in (Do.FIND, Do.LOOK):
            # Listen during the pause: the end of the outage may arrive.
            received = member.route.peek(max(0.001, pace.left()))
            if received is not None:
                self._dialogue.handle(received)
                member.route.done()
                return taken
        time.sleep(pace.left())
        return taken

    def _await_confirmation(self, number: int, limit: Deadline) -> tuple[bool, bool]:
        """With the turn held: wait for the next message from the worker, until `limit` at most.

        Returns two booleans. The first is True when no message has come. The second is True when
        the message confirms that the asks up to `number` are over.
        """
        member = self._member
        received = member.route.peek(max(0.001, limit.left()))
        if received is None:
            return True, False
        confirmed = (
            received.kind is Kind.CANCELLED
            and messages.Cancelled(*received.fields).number >= number
        )
        self._dialogue.handle(received)
        member.route.done()
        return False, confirmed


class Call:
    """One call of read or receive, with its limits of time.

    `timeout_ms` as in `Connection.read`. TypeError when it is no number.
    """

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
        """Until when a read waits for the worker: `deadline` for a blocking read, else
        `ANSWER_S`."""


def data_of(taken: Taken) -> str | bytes:
    """The data of a taken message, with or without its stamp."""
    data = taken.data if isinstance(taken, Stamped) else taken
    assert isinstance(data, (str, bytes))
    return data


def _message(taken: Stamped, source: Source) -> Message:
    """The `Message` that `receive` returns; `source` is the connection that the message came
    over."""
    if taken.stamp is None:  # without envelope, for example from a worker that is gone
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
    """The timeout in milliseconds; None for None and 0. TypeError for anything but a number."""
    if timeout_ms is None or timeout_ms == 0:
        return None
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)):
        raise TypeError(f"read takes milliseconds as a number, not {type(timeout_ms).__name__}")
    return timeout_ms
