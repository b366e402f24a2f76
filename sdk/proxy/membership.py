"""One object's membership in a connection: its sockets, how it gets in, comes back and goes.

Locks: `lock` guards the pocket and is held for moments only; `turn` is the right to use the stream
socket, held by the thread that waits for data. A thread that takes both takes `turn` first.

An exception of a signal handler (Ctrl-C) may break off the work with the stream socket anywhere. Then it is
out of order (`in_order`), and the control thread, where no handler runs, joins the connection anew: the
worker sends again what has not been consumed.
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
REDIAL_S = 2.5
UNHEARD_S = 5.0
"""How long a worker that takes over may leave a START unanswered before the object joins anew."""


Hear = Callable[[Received], bool]
"""Takes in one message of the stream (`trunkline.proxy.dialogue.Dialogue.handle`)."""


class Membership:
    """What the worker and the broker know of an object, the `owner`, and what it holds of them.

    Refers to its owner weakly: a program that drops the object ends its membership.
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
        """The object's name at the broker and the worker."""
        self.key = key
        """The connection's id."""
        self.about = about
        self.number = number
        """The connection's number, as users see it."""
        self.serving = serving
        """Of which worker the pocket tells: the incarnation that serves this object, or will."""
        self.pocket: Pocket = Pocket()
        self.lock: threading.RLock
        self.turn: Turn
        self.pocket_is_mine: Callable[[], bool]
        """Whether a signal handler asks that has interrupted this very thread while it changes the pocket."""
        self._renew_locks()
        self.unsure: bool = False
        """Something is being said to the worker; where nobody has the turn, that was broken off."""
        self.resync: bool = False
        """The control thread has to join the connection anew before anything can be read."""
        self._forsaken = False
        """Its worker is gone for good and another was not dialled yet: the pocket knows it."""
        self.waiting: bool = False
        """A thread waits for a message."""
        self.closed: bool = False
        self.detached: bool = False
        """It was closed, and that was said."""
        self.gone: str | None = None
        """Why the connection has ended, where it has."""
        self.handle: int | None = None
        """The number by which other processes can dial it, where that was asked for."""
        self.redial: tuple[tuple[Any, ...], Sealed] | None = None
        """How to open the connection anew when broker and worker are lost together."""
        self.orphan: bool = False
        """The worker is gone, and the worker that takes over has not been heard yet."""
        self.start_at: float = 0.0
        """When START may be said again, on the monotonic clock."""
        self.unheard_at: float = 0.0
        """When a START without an answer is taken for lost."""
        self.consumed: int = 0
        """What was read in total, when it was closed."""

    def begin(self, owner: Connection) -> None:
        """The object is complete: let the client know it, and tell the worker."""
        self._owner = weakref.ref(owner)
        self.client.connections.add(owner)
        self._watch_owner()
        self.start()

    def _renew_locks(self) -> None:
        self.lock = threading.RLock()
        self.turn = Turn()
        self.pocket_is_mine = self.lock._is_owned  # type: ignore[attr-defined]

    def _watch_owner(self) -> None:
        """Detach the owner when the garbage collector takes it, under its present name."""
        detach, router = self.client.detach, self.route.router
        self.finalizer = weakref.finalize(
            self.owner(), detach, self.key, self.holder_id, self.pocket, router
        )
        self.finalizer.atexit = False

    def owner(self) -> Connection:
        """The object. Whoever calls a method of it keeps it."""
        owner = self._owner()
        assert owner is not None
        return owner

    # telling the worker

    def start(self) -> None:
        """With the turn held: tell the worker that this object can be served."""
        if self.about.executes:
            return
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
        """With the turn held: whether the stream socket can be used; else `ask_to_join`."""
        route = self.route
        if self.unsure or route.is_torn():
            self.resync = True
            route.mark_stale()
            route.close_stream()
            self.unsure = False
        return not self.resync and route.is_joined

    def ask_to_join(self, deadline: Deadline) -> None:
        """Without the turn: have the control thread join the connection (anew); in a forked child too, where
        that thread and the broker may have to be found first. BrokerGone when there is none in time."""
        if not self.route.is_joined:
            self.client = process.get(deadline)
            self.client.connections.add(self.owner())
        self.client.rejoin_soon()

    def is_stale(self) -> bool:
        """The broker was lost and this object has not joined the next one yet."""
        return self.route.is_stale()

    def recall(self, epoch: int, elsewhere: bool) -> tuple[int, int, list[tuple[int, int]], bool]:
        """Called by the control thread: give back what has not been consumed; `elsewhere`: see
        `Pocket.recall`. Returns what was consumed, the number of the ask for a message that a thread waits
        for (0: none), which messages are acknowledged later, and whether this object wants envelopes."""
        with self.lock:
            if self.closed:
                return self.consumed, 0, [], False
            pocket = self.pocket
            consumed = pocket.recall(epoch, elsewhere=elsewhere)
            waits_for = pocket.ask() if self.waiting else 0
            return consumed, waits_for, pocket.all_kept(), pocket.envelopes

    # coming and going

    def _attach_again(self, old: RouterRoute | None, hear: Hear) -> RouterRoute | None:
        """In the control thread, with the turn held: become a holder (again): with the broker that took over,
        or, without an `old` socket, in a forked child. BrokerGone when the broker is lost meanwhile; then
        later again."""
        client = self.client
        router = client.link.new_router_route()
        self._hear_stream(hear)
        with self.lock:
            pocket = self.pocket
            unread = pocket.fresh()
            consumed = 0 if old is None else max(0, pocket.recall(pocket.epoch + 1))
            was = b"" if old is None else self.holder_id
            kept = [] if old is None else pocket.all_kept()
            pocket.give_up_asks()  # the answers to those that were out may be lost
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
        self.start()  # a worker that is new may not have heard the one before, which had our former name
        self._watch_owner()
        return router

    def _hear_stream(self, hear: Hear) -> None:
        """With the turn held: take in what has come straight from the worker. Should the worker be gone,
        nobody sends that again."""
        while (received := self.route.peek_stream()) is not None:
            hear(received)
            self.route.done()

    def _find_out_of_loss(self, serving: int, unread: Unread) -> None:
        """With the turn held, joined again. The word that our worker is gone may have been on its way to our
        former name. Then nobody sends again what we gave back: `unread`, which is still ours."""
        if serving <= self.serving:
            return
        self.route.close_stream()
        self.route.try_door_again()
        self.orphan = True
        with self.lock:
            self.pocket.take_in_again(unread)
            self.pocket.lose(Mark.DOWN, comes_again=self.about.comes_again)

    def _dial_anew(self, client: Client, old: RouterRoute, unread: Unread) -> RouterRoute:
        """With the turn held: as a worker that crashed is replaced, so is one that was lost with its broker;
        what it had sent us is read first. BrokerGone when it cannot be dialled now; then later again."""
        assert self.redial is not None
        fields, body = self.redial
        router = client.link.new_router_route()
        self.route.close_stream()
        if not self._forsaken:  # with its link down, too: the next worker counts from zero
            with self.lock:
                self.pocket.take_in_again(unread)
                self.pocket.lose(Mark.DOWN, comes_again=self.about.comes_again)
            self._forsaken = True
        # So that the figures go on from those of the worker that was lost, and every message is counted once.
        former = [self.key, self.holder_id, self.about.comes_again]
        body = _with_former(body, former)
        try:
            router.send(BROKER, Kind.OPEN, 1, (client.link.control_id, *fields), body)
            key, info = attached(router, Deadline(REDIAL_S), client)
        except TrunklineError as error:
            if isinstance(
                error, (OperationTimeout, BrokerGone)
            ):  # the broker may open it yet, for nobody
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
        """The broker knows nothing of the connection (any more). `told`: it has said why, in the log too."""
        remember(error)
        if not told:
            log.warning("%s: %s", self.about.peer, error)
        self.gone = str(error)
        with self.lock:
            self.pocket.lose(Mark.END)

    def rejoin(self, hear: Hear) -> None:
        """Called by the control thread after a lost broker, for objects that nobody is using; and for those
        whose use was broken off."""
        with contextlib.suppress(BrokerGone):  # lost again: the control thread comes back
            self.turn.run(2 * SLICE_S, partial(self._join_again, hear))

    def _join_again(self, hear: Hear) -> None:
        if not self.is_stale() or self.closed or self.gone is not None:
            return
        self._attach_again(self.route.router, hear)
        self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        """It may have been closed while it was joined anew: then nobody has told the broker of the new
        name."""
        if self.closed:
            self.client.detach(self.key, self.holder_id, self.consumed, None, True)
            self.route.close()

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's object may be used here, its locks neither."""
        self.finalizer.detach()
        process.keep(self.route.leave_to_parent())
        self.orphan = False
        self.serving = 0
        self.holder_id = b""
        self.pocket = Pocket()
        self._renew_locks()
        self.waiting = self.unsure = self.resync = self._forsaken = False


def _told_of_the_end(router: RouterRoute) -> str | None:
    """Why the connection has ended, where a broker that is gone has said so: it ends all connections in good
    order when it is told to end, and its own end may be noticed before its words."""
    while (received := router.peek(0)) is not None:
        _, kind, _, fields, _ = received
        if kind is Kind.GONE and not messages.Gone(*fields).goes_on:
            return str(messages.Gone(*fields).reason)
        router.done()
    return None


def _with_former(body: Sealed, former: list[Any]) -> Sealed:
    """What asks the broker for a connection, with what is known of the one that was lost."""
    try:
        return Sealed(values.pack({**values.unpack(body), "former": former}))
    except BaseException as error:
        failure = without_frames(error)
    raise failure


def attached(
    router: RouterRoute, deadline: Deadline, client: Client
) -> tuple[bytes, dict[str, Any]]:
    """Wait for the answer to OPEN or ATTACH: the connection's id and what is known of it; or raise what was
    answered, OperationTimeout, or BrokerGone when the broker is lost meanwhile."""
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
