"""Reading from a connection: SPEC 3's table over a pocket and a socket."""

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
from trunkline.wire.envelope import Kind
from trunkline.wire.loss import Loss
from trunkline.wire.stats import Stats

__all__ = ["Call", "Reader", "data_of"]

ACK_EVERY = 256
ACK_EVERY_KEPT = 64
"""Where a message broker keeps what is not acknowledged: a killed reader's last messages are read twice."""
PACE_S = 0.005
"""How long a blocking read on a lost link waits before its `""`: a loop that ignores it must not spin."""
ANSWER_S = 0.25
"""How long a read that must not wait does wait for the worker's answer, where it has to ask for one."""
AGAIN_S = 0.005
"""How often a read looks whether the control thread has joined the connection again."""


class _Again(Enum):
    AGAIN = "again"


AGAIN: Final = _Again.AGAIN
"""A read has to leave the turn to the control thread for a moment, and to begin again."""


class Reader:
    """The reads of one object."""

    __slots__ = ("_ack_every", "_dialogue", "_failures", "_member", "_told_loss")

    def __init__(self, member: Membership, dialogue: Dialogue, failures: Failures) -> None:
        self._member = member
        self._dialogue = dialogue
        self._failures = failures
        self._told_loss: Loss | None = None
        self._ack_every = ACK_EVERY_KEPT if member.about.comes_again else ACK_EVERY

    def read(self, timeout_ms: float | None = None) -> str | bytes | None:
        """See `Connection.read`."""
        member = self._member
        entry: str | bytes | None = None
        hand = None
        if member.pocket_is_mine():
            return None
        try:
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
        """See `Connection.__iter__`."""
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
        """See `Connection.watch`; `stats` asks the worker for its figures."""
        member = self._member
        if member.closed:
            return False, None, None
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
            # An outage that was over between two looks is known by the count alone: the mark tells it once.
            ready = figures.buffered > 0 or lost or figures.reconnects > 0
            return ready, None, (*mark, lost, figures.reconnects, figures.buffered > 0)
        return ready, member.route.fileno(), mark

    def _quiet(self) -> bool:
        """A cheap look whether there is surely nothing to read: polling loops live on it."""
        member = self._member
        pocket = member.pocket
        if pocket.acked != pocket.consumed or pocket.down or pocket.more or not pocket.stream:
            return False
        if pocket.again or pocket.items or member.unsure:
            return False  # among the items is a loss that is not read yet: `watch` may have taken it in
        return member.turn.run(0, member.route.is_quiet) is True

    def look(self) -> None:
        """With the turn held: take in what has come."""
        member = self._member
        if not member.closed and member.in_order():
            self._dialogue.drain()

    def _not_returned(self, hand: Hand | None, entry: str | bytes | None) -> None:
        """A signal handler has raised, so what was taken has not reached the program: the next read gives
        it."""
        member = self._member
        member.waiting = False
        with member.lock:
            if hand is None:
                hand = Hand()
                hand.entry = hand.whole = entry
                hand.number = member.pocket.consumed
            if not member.closed:
                member.pocket.put_back(hand)
        if member.route.is_joined and member.turn.run(0, member.in_order) is False:
            member.client.rejoin_soon()

    def _check_not_closed(self) -> None:
        """Another thread may have closed the object while this one waited."""
        member = self._member
        if member.about.raising and member.closed:
            raise ClosedError(closed_by("read", program_ends=member.client.program_ends))

    def _when_lost(self) -> str | None:
        member = self._member
        if member.about.raising:
            if member.closed:
                raise ClosedError(closed_by("read", program_ends=member.client.program_ends))
            raise self._loss_error()
        loss = member.pocket.loss
        if (
            loss is not None and loss is not self._told_loss
        ):  # once: polling must not hide what fails later
            self._told_loss = loss
            remember(self._loss_error())
        return member.about.lost

    def _loss_error(self) -> BrokenError:
        """The loss that was met in the order of reading, with its cause where the worker has told it."""
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
                if member.closed:
                    member.turn.run(0, member.route.close)
                if taken is AGAIN:
                    if member.resync or not member.route.is_joined:
                        member.ask_to_join(call.limit)
                    time.sleep(min(AGAIN_S, call.limit.left()))
                elif isinstance(taken, (str, bytes, Stamped)) or taken is LOST or taken is EMPTY:
                    return taken
                else:
                    break
            if (
                member.turn.is_mine()
            ):  # a signal handler, which has interrupted the read of this very thread
                return EMPTY
            with member.lock:  # another thread is waiting for data; what it has not taken is ours
                return call.read.take(member.pocket)
        except BrokerGone as error:
            remember(error)
            with member.lock:
                member.pocket.put_back(call.read.hand)
            return EMPTY if call.read.blocking and call.deadline.expired() else LOST

    def _take_in_turn(self, call: Call) -> Taken | _Again:
        """With the turn held: carry out what `ReadCall.next_step` says, until the read is over or has to
        leave the turn to the control thread."""
        member = self._member
        read, limit = call.read, call.limit
        silent = confirmed = waits = False
        usable = member.closed or member.gone is not None or member.in_order()
        try:
            while True:
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
            if waits and read.form is not Form.NEWEST:
                with contextlib.suppress(Exception):
                    if member.in_order():
                        member.route.send(
                            Kind.CANCEL, member.holder_id, member.pocket.give_up_asks()
                        )
            raise

    def _end_read(self, do: Do, taken: Taken, call: Call) -> Taken:
        """With the turn held: the last step of a read. A blocking read that meets a lost link waits a moment,
        so that a loop that ignores the `""` does not spin."""
        member = self._member
        if do is Do.FIND:
            self._dialogue.find_worker()
        if do in (Do.TAKE, Do.TAKE_SLOWLY, Do.LOOK):
            self._dialogue.acknowledge()
        if not call.read.blocking or do in (Do.TAKE, Do.RETURN):
            return taken
        pace = Deadline(min(PACE_S, call.deadline.left()))
        if do in (Do.FIND, Do.LOOK):
            received = member.route.peek(max(0.001, pace.left()))
            if received is not None:
                self._dialogue.handle(received)
                member.route.done()
                return taken
        time.sleep(pace.left())
        return taken

    def _await_confirmation(self, number: int, limit: Deadline) -> tuple[bool, bool]:
        """Wait for the next message; whether none has come, and whether it was the worker's confirmation that
        the asks up to this number are over."""
        member = self._member
        received = member.route.peek(max(0.001, limit.left()))
        if received is None:
            return True, False
        confirmed = received[1] is Kind.CANCELLED and received[3][0] >= number
        self._dialogue.handle(received)
        member.route.done()
        return False, confirmed


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
