"""The dialogue about reading between a holder and its worker: asks, acknowledgements, entries.

The turn of the stream socket (`Membership.turn`) guards the socket. `acknowledge`, `ask`,
`find_worker`, `drain`, `await_push`, `handle` and `say_all_in_turn` are called with the turn held.
The other methods take the turn themselves, and do nothing when another thread has it.

`Membership.unsure` is True while a message is written. Should a signal handler raise an exception
meanwhile, `unsure` stays True, and the next thread with the turn has the connection joined anew.
"""

from __future__ import annotations

import logging
import time

import msgpack

from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, from_wire
from trunkline.proxy.membership import Membership
from trunkline.proxy.next_step import Form, acknowledgement, ask
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import SLICE_S, Received, RouterRoute
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, Mark
from trunkline.wire.loss import Loss

__all__ = ["Dialogue"]

log = logging.getLogger("trunkline")

FIND_S = 0.02
"""The shortest time in seconds from one START to the next, while no stream to the new worker is
open."""


class Dialogue:
    """The dialogue of one holder with its worker."""

    __slots__ = ("_member",)

    def __init__(self, member: Membership) -> None:
        self._member = member

    def ask(self, form: Form) -> None:
        """Ask the worker for an entry. A pending ask is repeated under its number."""
        member = self._member
        if not member.route.is_chosen:
            member.start()
        member.unsure = True
        with member.lock:
            said, kept = ask(member.pocket, member.holder_id, form)
        self._say_kept(kept)
        member.route.send(Kind.READ, *said)
        member.unsure = False

    def _say_kept(self, kept: list[tuple[int, int]]) -> None:
        """Tell the worker which messages the program acknowledges later.

        Has to come before the READ or ACK that says the messages are consumed: the worker
        acknowledges a consumed message unless the worker knows its ticket.
        """
        member = self._member
        for consumed, ticket in kept:
            member.route.send(Kind.KEEP, member.holder_id, consumed, ticket)

    def await_push(self, deadline: Deadline) -> bool:
        """Wait for a message, at most `SLICE_S` and not beyond the deadline.

        Returns whether something for a waiting read has arrived: see `handle`.
        """
        member = self._member
        received = member.route.peek(max(0.001, min(SLICE_S, deadline.left())))
        if received is None:
            return False
        answered = self.handle(received)
        member.route.done()
        return self.drain() or answered

    def drain(self) -> bool:
        """Take in all arrived messages. Returns whether `handle` was True for one."""
        member = self._member
        answered = False
        while True:
            received = member.route.peek(0)
            if received is None:
                return answered
            answered = self.handle(received) or answered
            member.route.done()

    def handle(self, received: Received) -> bool:
        """Take in one message from the worker, or from the broker about the worker.

        Returns True when a waiting read should look into the pocket: entries have arrived, or the
        worker is gone. False when nothing has changed for the read.
        """
        member = self._member
        _, kind, _, fields, body = received
        if kind is Kind.PUSH:
            member.orphan = False
            epoch, stream, more, first, stamped, losses, answer = messages.Push(*fields)
            entries = msgpack.unpackb(body[0], raw=False, use_list=True)
            stamps = values.unpack(entries.pop()) if stamped else ()
            for index, *cause in losses:
                entries[index] = Loss.from_wire(entries[index], cause)
            with member.lock:
                fed = member.pocket.feed(epoch, stream, more, entries, first, stamps, answer)
                gap, member.pocket.gap = member.pocket.gap, False
            if gap and member.route.is_joined:
                # To a holder that attaches anew the worker sends all unread entries again.
                member.route.mark_stale()
                member.client.rejoin_soon()
            return fed
        if kind is Kind.START:
            member.orphan = False
        elif kind is Kind.GONE:
            self._lose_worker(*messages.Gone(*fields))
            return True
        elif kind is Kind.ERROR:
            log.warning("%s: %s", member.about.peer, from_wire(messages.Error(*fields).error))
        return False

    def _lose_worker(self, replaced: bool, why: str, serving: int) -> None:
        """Note that the broker has declared the worker gone.

        `replaced`: another worker takes over, of incarnation `serving`. Incarnation 0 means that
        the broker does not know the connection. `why`: the reason, where the connection has ended.
        """
        member = self._member
        if replaced and not serving and member.route.is_joined:
            # This broker may have replaced another one before this process has noticed the change.
            # Joining anew finds out how the connection is.
            member.route.mark_stale()
            member.client.rejoin_soon()
            return
        if replaced and serving <= member.serving:
            # The loss is known already. The broker repeats GONE to a holder whose message could not
            # be delivered to a worker.
            if not member.route.has_stream:
                member.route.try_door_again()
                member.orphan = True
            return
        member.serving = serving
        member.route.close_stream()
        member.route.try_door_again()
        member.orphan = replaced
        with member.lock:
            member.pocket.lose(
                Mark.DOWN if replaced else Mark.END, comes_again=member.about.comes_again
            )
        if not replaced:
            member.gone = member.gone or why
            if not member.closed:
                remember(
                    BrokenError(
                        f"the connection to {member.about.peer} has ended: {why}; dial again"
                    )
                )

    def find_worker(self) -> None:
        """Find the next worker: send START until a stream to the worker is open.

        A worker that leaves START unanswered for `UNHEARD_S` may not know this holder. Then the
        connection is joined anew: `unsure` makes the next `in_order` ask for that.
        """
        member = self._member
        now = time.monotonic()
        if not member.route.has_stream and now >= member.start_at:
            member.start_at = now + FIND_S
            member.start()
        elif member.route.has_stream and now >= member.unheard_at:
            member.unsure = True

    def acknowledge(self, *, waiting: bool = False) -> None:
        """With the turn held: tell the worker which entries were consumed, if the worker is owed
        that.

        `waiting`: a read still waits for the answer to its ask. Otherwise a pending ask is
        given up.
        """
        member = self._member
        member.unsure = True
        with member.lock:
            owed = acknowledgement(member.pocket, member.holder_id, waiting=waiting)
        if owed is not None:
            ack, kept = owed
            self._say_kept(kept)
            member.route.send(Kind.ACK, *ack)
        member.unsure = False

    def acknowledge_if_free(self) -> None:
        """Acknowledge unless another thread has the turn; that thread acknowledges itself."""
        self._member.turn.run(0, self._acknowledge_in_turn)

    def _acknowledge_in_turn(self) -> None:
        member = self._member
        if not member.closed and member.in_order():
            self.acknowledge()

    def acknowledge_when_idle(self, control: RouterRoute) -> None:
        """Acknowledge what was read before a long pause. The control thread calls this each
        second."""
        self.acknowledge_if_idle()

    def acknowledge_if_idle(self) -> None:
        """Acknowledge what was read, and send what a busy worker has not taken before.

        Does nothing while another thread has the turn: a thread waiting for data has
        acknowledged already.
        """
        member = self._member
        untold = member.pocket.consumed > max(member.pocket.acked, 0)
        if untold or member.route.has_unsent():
            member.turn.run(0, self.say_all_in_turn)

    def say_all_in_turn(self) -> None:
        """With the turn held: acknowledge, and send what a busy worker has not taken before."""
        member = self._member
        if not member.closed and member.in_order():
            self.acknowledge()
            member.route.flush()

    def say_what_waits(self, limit: Deadline) -> None:
        """Wait until the worker has been sent all messages of this holder, until `limit` at most.

        For a caller that then sends a request: requests take another socket, and could overtake.
        """
        member = self._member
        self.acknowledge_if_idle()
        while member.route.has_unsent() and not member.closed and not limit.expired():
            time.sleep(0.002)
            self.acknowledge_if_idle()
