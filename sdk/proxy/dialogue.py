"""What an object that reads says to its worker, and what it hears from it.

`acknowledge`, `ask`, `find_worker`, `drain`, `await_push`, `handle` and `say_all_in_turn` are called with the
object's turn held; the other methods take the turn themselves, where it is free.
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
"""The shortest time from one START to the next, while the worker that takes over is not there yet."""


class Dialogue:
    """That of one object with its worker."""

    __slots__ = ("_member",)

    def __init__(self, member: Membership) -> None:
        self._member = member

    def ask(self, form: Form) -> None:
        """Ask the worker for an entry; an ask that is out is repeated, under its number."""
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
        """Tell the worker, before it hears that they were consumed, which messages are settled later."""
        member = self._member
        for consumed, ticket in kept:
            member.route.send(Kind.KEEP, member.holder_id, consumed, ticket)

    def await_push(self, deadline: Deadline) -> bool:
        """Wait for a moment, not beyond the deadline; whether the worker has answered or sent something."""
        member = self._member
        received = member.route.peek(max(0.001, min(SLICE_S, deadline.left())))
        if received is None:
            return False
        answered = self.handle(received)
        member.route.done()
        return self.drain() or answered

    def drain(self) -> bool:
        """Take in all that has arrived; whether something of it was of use."""
        member = self._member
        answered = False
        while True:
            received = member.route.peek(0)
            if received is None:
                return answered
            answered = self.handle(received) or answered
            member.route.done()

    def handle(self, received: Received) -> bool:
        """One message on the stream socket; False when it changes nothing for who waits."""
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
                member.route.mark_stale()  # attached anew, we are sent again what we have not read
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
        """The worker is gone; `replaced`: another one will take over, of incarnation `serving`."""
        member = self._member
        if replaced and not serving and member.route.is_joined:
            # This broker does not know the connection. It may have taken over before we have noticed; joining
            # anew tells what has become of the connection.
            member.route.mark_stale()
            member.client.rejoin_soon()
            return
        if replaced and serving <= member.serving:
            # Its loss is known. The broker tells it once more to those who have asked what could not hear.
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
        """Say START until the worker that takes over has heard it. One that does not answer may not have
        been told of this object: then join the connection anew."""
        member = self._member
        now = time.monotonic()
        if not member.route.has_stream and now >= member.start_at:
            member.start_at = now + FIND_S
            member.start()
        elif member.route.has_stream and now >= member.unheard_at:
            member.unsure = True

    def acknowledge(self, *, waiting: bool = False) -> None:
        """With the turn held. An ask that is out is over, unless it is still waited for."""
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
        """Acknowledge now if nobody is using the socket; whoever is will do it."""
        self._member.turn.run(0, self._acknowledge_in_turn)

    def _acknowledge_in_turn(self) -> None:
        member = self._member
        if not member.closed and member.in_order():
            self.acknowledge()

    def acknowledge_when_idle(self, control: RouterRoute) -> None:
        """Called by the control thread now and then: what was read before a long pause."""
        self.acknowledge_if_idle()

    def acknowledge_if_idle(self) -> None:
        """Acknowledge what was read, unless someone uses the socket: who waits for data has done it. What a
        busy worker did not take then is sent now."""
        member = self._member
        untold = member.pocket.consumed > max(member.pocket.acked, 0)
        if untold or member.route.has_unsent():
            member.turn.run(0, self.say_all_in_turn)

    def say_all_in_turn(self) -> None:
        """Acknowledge, and send what a busy worker did not take before."""
        member = self._member
        if not member.closed and member.in_order():
            self.acknowledge()
            member.route.flush()

    def say_what_waits(self, limit: Deadline) -> None:
        """Return when the worker has been sent all that this object said, or the time is over: what comes
        another way might be faster."""
        member = self._member
        self.acknowledge_if_idle()
        while member.route.has_unsent() and not member.closed and not limit.expired():
            time.sleep(0.002)
            self.acknowledge_if_idle()
