"""One object's membership in a connection: its sockets, and how it joins, joins again and leaves.

Locks: `lock` guards the pocket and is held for moments only. `turn` is the right to use the stream
socket; the thread waiting for data holds the turn for the whole wait. A thread that takes both
takes `turn` first. The control thread answers recalls with `lock` alone, so a recall never waits
for a read.

An exception of a signal handler (Ctrl-C) may interrupt the work with the stream socket in the
middle of a message. Then the socket is out of order (see `in_order`). The control thread, in which
Python runs no signal handler, joins the connection anew, and the worker sends all unread entries
again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, DeadHandle, OperationTimeout, TrunklineError, from_wire
from trunkline.frames import Sealed, without_frames
from trunkline.proxy import process
from trunkline.proxy.about import About
from trunkline.proxy.pocket import Pocket, Unread
from trunkline.proxy.process import Client
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import SLICE_S, Received, Route, RouterRoute
from trunkline.proxy.turn import Turn
from trunkline.wire import messages, values
from trunkline.wire.envelope import BROKER, Kind, Mark

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["ATTACH_S", "Membership", "attached"]

log = logging.getLogger("trunkline")

ATTACH_S = 10.0
"""Seconds that the broker may take to answer an ATTACH."""
REDIAL_S = 2.5
"""Seconds for one attempt to dial anew, longer than the 2 s that the OPEN allows the worker."""
UNHEARD_S = 5.0
"""Seconds that a worker may leave a START unanswered before the object joins the connection
anew."""


Hear = Callable[[Received], bool]
"""A callback for one message of the stream: `trunkline.proxy.dialogue.Dialogue.handle`."""


class Membership:
    """The state of one holder: its names at broker and worker, its sockets, its pocket, its locks.

    `owner` is the `Connection`. The membership refers to its owner weakly, so that the garbage
    collector takes a dropped `Connection` at once and the membership ends.
    """

    def __init__(
        self,
        client: Client,
        router: RouterRoute,
        key: bytes,
        about: About,
        number: str,
        serving: int,
    ) -> None:
        self.client = client
        self.route: Route = Route(client.link, router, key)
        self.holder_id: bytes = router.identity
        """The holder's name at the broker and the worker: a new one after each joining."""
        self.key = key
        """The connection's id."""
        self.about = about
        self.number = number
        """The connection's number, as users see it."""
        self.serving = serving
        """The incarnation of the worker whose entries the pocket counts."""
        self.pocket: Pocket = Pocket()
        self.lock: threading.RLock
        self.turn: Turn
        self.pocket_is_mine: Callable[[], bool]
        """Whether this very thread holds `lock`. True only in a signal handler that has interrupted
        the thread while it changes the pocket; `lock` is reentrant and would let the handler in."""
        self._renew_locks()
        self.unsure: bool = False
        """The thread with the turn is writing to the worker. True without a thread that has the
        turn: an exception has interrupted the writing."""
        self.resync: bool = False
        """The control thread has to join the connection anew before the next read."""
        self._forsaken = False
        """The worker is gone for good, the pocket has noted that, and no other worker is dialled
        yet."""
        self.waiting: bool = False
        """A thread waits for a message."""
        self.closed: bool = False
        self.detached: bool = False
        """`close` has come to its end: the control thread has the order to detach this holder."""
        self.gone: str | None = None
        """Why the connection has ended; None while it has not."""
        self.handle: int | None = None
        """The number by which other processes can dial the connection; None before `fd` is
        called."""
        self.redial: tuple[tuple[Any, ...], Sealed] | None = None
        """The fields and the body of the OPEN that dials the connection anew when broker and worker
        are lost together; None where the connection is not to be dialled anew."""
        self.orphan: bool = False
        """The worker is gone, and the next worker has not been heard yet."""
        self.start_at: float = 0.0
        """When START may be sent again, on the monotonic clock."""
        self.unheard_at: float = 0.0
        """When a START without an answer counts as lost, on the monotonic clock."""
        self.consumed: int = 0
        """The value of `Pocket.consumed_at_end` when the object was closed."""

    def begin(self, owner: Connection) -> None:
        """Register the complete `owner` with the client, and tell the worker to serve it."""
        self._owner = weakref.ref(owner)
        self.client.connections.add(owner)
        self._watch_owner()
        self.start()

    def _renew_locks(self) -> None:
        self.lock = threading.RLock()
        self.turn = Turn()
        self.pocket_is_mine = self.lock._is_owned  # type: ignore[attr-defined]

    def _watch_owner(self) -> None:
        """Have the holder detached, under its present name, when the garbage collector takes the
        owner.

        The finalizer may run in any thread, so it only queues an order to the control thread.
        """
        detach, router = self.client.detach, self.route.router
        self.finalizer = weakref.finalize(
            self.owner(), detach, self.key, self.holder_id, self.pocket, router
        )
        self.finalizer.atexit = False

    def owner(self) -> Connection:
        """The `Connection`. A caller is inside one of its methods, which keeps the object alive."""
        owner = self._owner()
        assert owner is not None
        return owner

    # telling the worker

    def start(self) -> None:
        """With the turn held: send START, which tells the worker that this holder can be served.

        Opens the stream to the worker's door if there is a door.
        """
        if self.about.executes:
            return  # a database connection has no stream
        with self.lock:
            pocket = self.pocket
            name, down, had = messages.Name(self.holder_id), pocket.will_be_down(), pocket.had
            start = messages.Start(name, down, had, pocket.envelopes, self.serving)
        self.unsure = True
        if self.route.open_stream():
            self.unheard_at = time.monotonic() + UNHEARD_S
        self.route.send(Kind.START, *start)
        self.unsure = False

    def in_order(self) -> bool:
        """With the turn held: whether the stream socket can be used.

        False after an exception that has interrupted sending or receiving, and in a forked child
        that is no holder yet. Then `ask_to_join` helps.
        """
        route = self.route
        if self.unsure or route.is_torn():
            self.resync = True
            route.mark_stale()
            route.close_stream()
            self.unsure = False
        return not self.resync and route.is_joined

    def ask_to_join(self, deadline: Deadline) -> None:
        """Without the turn: have the control thread join the connection anew. Does not wait for
        that.

        A forked child first starts its own client, within the deadline. BrokerGone when no broker
        can be reached.
        """
        if not self.route.is_joined:
            self.client = process.get(deadline)
            self.client.connections.add(self.owner())
        self.client.rejoin_soon()

    def is_stale(self) -> bool:
        """Whether the broker was lost and this holder has not joined the next one yet."""
        return self.route.is_stale()

    def recall(self, epoch: int, elsewhere: bool) -> tuple[int, int, list[tuple[int, int]], bool]:
        """Called by the control thread: give all unread entries back to the worker.

        `epoch` and `elsewhere` as in `Pocket.recall`. Returns the fields of the RECALLED: the
        number of consumed entries, the number of the ask on which a thread waits (0: no thread
        waits), the messages that the program acknowledges later, and whether this holder wants
        envelopes.
        """
        with self.lock:
            if self.closed:
                return self.consumed, 0, [], False
            pocket = self.pocket
            consumed = pocket.recall(epoch, elsewhere=elsewhere)
            waits_for = pocket.ask() if self.waiting else 0
            return consumed, waits_for, pocket.all_kept(), pocket.envelopes

    # coming and going

    def _attach_again(self, old: RouterRoute | None, hear: Hear) -> RouterRoute | None:
        """In the control thread, with the turn held: become a holder of the connection (again).

        `old` is the socket of the lost broker; None in a forked child. Returns the socket
        in use afterwards. BrokerGone when the broker is lost meanwhile; the control thread tries
        later.
        """
        client = self.client
        router = client.link.new_router_route()
        # The entries that have arrived already count as received in the ATTACH below.
        self._hear_stream(hear)
        with self.lock:
            pocket = self.pocket
            unread = pocket.fresh()
            consumed = 0 if old is None else max(0, pocket.recall(pocket.epoch + 1))
            was = b"" if old is None else self.holder_id
            kept = [] if old is None else pocket.all_kept()
            pocket.give_up_asks()  # the answers may be lost with the former broker
            pairs = [[*pair] for pair in kept]
            attach = messages.Attach(
                client.link.control_id,
                0,
                self.key,
                was,
                pocket.epoch,
                consumed,
                pairs,
                self.serving,
            )
        try:
            router.send(BROKER, Kind.ATTACH, 1, attach)
            _, info = attached(router, Deadline(ATTACH_S), client)
        except (BrokerGone, OperationTimeout) as error:
            router.close()
            raise BrokerGone(str(error)) from None
        except TrunklineError as error:
            router.close()
            why = _told_of_the_end(old) if old is not None else None
            if (
                why is None
                and isinstance(error, DeadHandle)
                and self.redial is not None
                and old is not None
            ):
                return self._dial_anew(client, old, unread)
            self._ended(DeadHandle(why) if why is not None else error, told=why is not None)
            return old
        if old is not None:
            old.close()
            self._find_out_of_loss(int(info["serving"]), unread)
        self.serving = int(info["serving"])
        self.finalizer.detach()
        self.route.join(client.link, router, self.key)
        self.holder_id = router.identity
        self.resync = False
        # A START under the former name may have reached no worker.
        self.start()
        self._watch_owner()
        return router

    def _hear_stream(self, hear: Hear) -> None:
        """With the turn held: take in the entries that have arrived straight from the worker.

        Should the worker be gone, no process could send these entries again.
        """
        while (received := self.route.peek_stream()) is not None:
            hear(received)
            self.route.done()

    def _find_out_of_loss(self, serving: int, unread: Unread) -> None:
        """With the turn held, joined again: find out whether the worker was replaced meanwhile.

        The GONE may have been sent to the former name of this holder. The dead worker cannot send
        again the entries that this holder gave back (`unread`), so they return to the pocket.
        """
        if serving <= self.serving:
            return
        self.route.close_stream()
        self.route.try_door_again()
        self.orphan = True
        with self.lock:
            self.pocket.take_in_again(unread)
            self.pocket.lose(Mark.DOWN, comes_again=self.about.comes_again)

    def _dial_anew(self, client: Client, old: RouterRoute, unread: Unread) -> RouterRoute:
        """With the turn held: replace a worker lost together with its broker, by a new
        dial.

        The entries of the lost worker (`unread`) are read first. Returns the new socket at the
        broker. BrokerGone when the dial fails now; the control thread tries later.
        """
        assert self.redial is not None
        fields, body = self.redial
        router = client.link.new_router_route()
        self.route.close_stream()
        if not self._forsaken:  # once, however many attempts it takes
            with self.lock:
                self.pocket.take_in_again(unread)
                self.pocket.lose(Mark.DOWN, comes_again=self.about.comes_again)
            self._forsaken = True
        # With the former key the broker continues the figures of the lost worker, so that each
        # message counts once.
        former = [self.key, self.holder_id, self.about.comes_again]
        body = _with_former(body, former)
        try:
            router.send(BROKER, Kind.OPEN, 1, (client.link.control_id, *fields), body)
            key, info = attached(router, Deadline(REDIAL_S), client)
        except TrunklineError as error:
            # Without an answer, the broker may yet open a connection that no holder waits for.
            if isinstance(error, (OperationTimeout, BrokerGone)):
                client.abandon(router.identity)
            router.close()
            remember(error)
            raise BrokerGone(str(error)) from None
        old.close()
        self.finalizer.detach()
        self.route.join(client.link, router, key)
        self.holder_id, self.key = router.identity, key
        self.number, self.handle = str(info.get("id", "")), None
        self.serving = int(info.get("serving", 0))
        self.route.renew_requests()
        self.route.try_door_again()
        self.orphan = self.resync = self._forsaken = False
        self.start()
        self._watch_owner()
        log.warning(
            "%s: broker and worker were lost together; it was dialled anew", self.about.peer
        )
        return router

    def _ended(self, error: TrunklineError, *, told: bool = False) -> None:
        """Note that the broker does not know the connection (any more).

        `told`: the broker has said why, and the log shows the reason already.
        """
        remember(error)
        if not told:
            log.warning("%s: %s", self.about.peer, error)
        self.gone = str(error)
        with self.lock:
            self.pocket.lose(Mark.END)

    def rejoin(self, hear: Hear) -> None:
        """Called by the control thread: join the connection anew, if that is due.

        Due after a lost broker, after an interrupted use of the stream socket, and in a forked
        child. A thread that reads gives up the turn within `SLICE_S`, so two slices are enough to
        get it.
        """
        # BrokerGone: the broker is lost again. The control thread calls this method again later.
        with contextlib.suppress(BrokerGone):
            self.turn.run(2 * SLICE_S, partial(self._join_again, hear))

    def _join_again(self, hear: Hear) -> None:
        """With the turn held: join, unless another thread has joined or closed the object
        meanwhile."""
        if not self.is_stale() or self.closed or self.gone is not None:
            return
        self._attach_again(self.route.router, hear)
        self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        """Detach under the new name if another thread has closed the object during the joining.

        `close` has detached the former name only.
        """
        if self.closed:
            self.client.detach(self.key, self.holder_id, self.consumed, None, True)
            self.route.close()

    def after_fork(self) -> None:
        """In a forked child: drop the parent's sockets, locks and pocket.

        The parent goes on using its sockets. The locks may be held by threads that do not exist in
        the child. The child becomes a holder of its own at the first use (`ask_to_join`).
        """
        self.finalizer.detach()
        process.keep(self.route.leave_to_parent())
        self.orphan = False
        self.serving = 0
        self.holder_id = b""
        self.pocket = Pocket()
        self._renew_locks()
        self.waiting = self.unsure = self.resync = self._forsaken = False


def _told_of_the_end(router: RouterRoute) -> str | None:
    """The reason in a GONE that a lost broker has sent; None when it has sent none.

    A broker that is told to end first ends all connections in good order. The control thread may
    notice the broker's end before the holder has read the broker's last messages.
    """
    while (received := router.peek(0)) is not None:
        _, kind, _, fields, _ = received
        if kind is Kind.GONE and not messages.Gone(*fields).goes_on:
            return str(messages.Gone(*fields).reason)
        router.done()
    return None


def _with_former(body: Sealed, former: list[Any]) -> Sealed:
    """The body of an OPEN with the key, the holder's name and `comes_again` of the lost
    connection."""
    try:
        return Sealed(values.pack({**values.unpack(body), "former": former}))
    except BaseException as error:
        failure = without_frames(error)
    raise failure


def attached(
    router: RouterRoute, deadline: Deadline, client: Client
) -> tuple[bytes, dict[str, Any]]:
    """Wait for the broker's answer to an OPEN or ATTACH that was sent on `router`.

    Returns the connection's id and the broker's description of the connection. Raises the error
    that the broker answered, OperationTimeout at the deadline, BrokerGone when the broker is lost.
    """
    while True:
        received = router.receive(max(0.001, min(SLICE_S, deadline.left())))
        if received is None:
            if deadline.expired():
                raise OperationTimeout("the broker did not answer in the time allowed")
            if client.link.left(router.generation):
                raise BrokerGone("the broker was lost meanwhile")
            continue
        _, kind, _, fields, _ = received
        if kind in (Kind.OPENED, Kind.ATTACHED):
            opened = messages.Opened(*fields)  # ATTACHED has the same fields
            return opened.connection, opened.info
        if kind in (Kind.FAILED, Kind.ERROR):
            raise from_wire(messages.Failed(*fields).error)  # as has ERROR
