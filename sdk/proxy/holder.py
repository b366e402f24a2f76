"""One object's membership in a connection: its sockets, how it gets in, comes back and goes.

Locks: `_lock` guards the pocket and is held for moments only; `_turn` is the right to use the stream
socket, held by the thread that waits for data. Whoever takes both takes `_turn` first.

An exception of a signal handler (Ctrl-C) may break off the work with the stream socket anywhere. Then it is
out of order (`_in_order`), and the control thread, where no handler runs, joins the connection anew: the
worker sends again what has not been consumed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, DeadHandle, OperationTimeout, TrunklineError, from_wire
from trunkline.frames import Sealed, without_frames
from trunkline.proxy import process
from trunkline.proxy.pocket import Pocket, Unread
from trunkline.proxy.process import Client
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import SLICE_S, Received, Route, RouterRoute
from trunkline.proxy.turn import Turn
from trunkline.wire import messages, values
from trunkline.wire.envelope import BROKER, Kind, Mark
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Holder", "attached"]

log = logging.getLogger("trunkline")

ATTACH_S = 10.0
REDIAL_S = 2.5
UNHEARD_S = 5.0
"""How long a worker that takes over may leave a START unanswered before the object joins anew."""


class Holder:
    """What the worker and the broker know of an object; the base of `Connection`."""

    def __init__(
        self, client: Client, router: RouterRoute, key: bytes, info: Mapping[str, Any], *, raising: bool
    ) -> None:
        self._client = client
        self._route = Route(client.link, router, key)
        self._holder_id = router.identity
        self._key = key
        self._scheme = str(info.get("scheme", ""))
        self._executes = info.get("kind") == "database"
        self._lost = None if info.get("lost_is_none") else ""
        self._comes_again = bool(info.get("comes_again"))
        self._acknowledges = bool(info.get("acknowledges"))
        self._peer = str(info.get("peer", ""))
        self._number = str(info.get("id", info.get("number", "")))
        self._serving = int(info.get("serving", 0))
        """Of which worker the pocket tells: the incarnation that serves this object, or will."""
        self._raising = raising
        self._pocket = Pocket()
        self._lock = threading.RLock()
        self._turn = Turn()
        self._unsure = False
        """Something is being said to the worker; where nobody has the turn, that was broken off."""
        self._resync = False
        """The control thread has to join the connection anew before anything can be read."""
        self._forsaken = False
        """Its worker is gone for good and another was not dialled yet: the pocket knows it."""
        self._waiting = False
        self._closed = False
        self._detached = False
        self._gone: str | None = None
        self._local = threading.local()
        self._handle: int | None = None
        self._figures: Stats | None = None
        """The last that were asked for."""
        self._bare = False
        self._query_numbers = itertools.count(1)
        self._redial: tuple[tuple[Any, ...], Sealed] | None = None
        self._orphan = False
        self._start_at = 0.0
        self._unheard_at = 0.0
        self._told: set[str] = set()
        self._consumed = 0
        client.connections.add(self._itself())
        self._finalizer = weakref.finalize(self, client.detach, key, router.identity, self._pocket, router)
        self._finalizer.atexit = False
        self._start()

    def _itself(self) -> Connection:
        """Nobody makes a bare Holder: it is a Connection that the client keeps."""
        return cast("Connection", self)

    # telling the worker

    def _start(self) -> None:
        """With `_turn` held: tell the worker that this object can be served."""
        if self._executes:
            return
        with self._lock:
            pocket = self._pocket
            name, down, had = messages.Name(self._holder_id), pocket.will_be_down(), pocket.had
            start = messages.Start(name, down, had, pocket.envelopes, self._serving)
        self._unsure = True
        if self._route.open_stream():
            self._unheard_at = time.monotonic() + UNHEARD_S
        self._route.send(Kind.START, *start)
        self._unsure = False

    def _in_order(self) -> bool:
        """With `_turn` held: whether the stream socket can be used; else `_ask_to_join`."""
        route = self._route
        if self._unsure or route.is_torn():
            self._resync = True
            route.mark_stale()
            route.close_stream()
            self._unsure = False
        return not self._resync and route.is_joined

    def _ask_to_join(self, deadline: Deadline) -> None:
        """Without the turn: have the control thread join the connection (anew); in a forked child too, where
        that thread and the broker may have to be found first. BrokerGone when there is none in time."""
        if not self._route.is_joined:
            self._client = process.get(deadline)
            self._client.connections.add(self._itself())
        self._client.rejoin_soon()

    def _stale(self) -> bool:
        """The broker was lost and this object has not joined the next one yet."""
        return self._route.is_stale()

    def _recall(self, epoch: int, elsewhere: bool) -> tuple[int, int, list[tuple[int, int]], bool]:
        """Called by the control thread: give back what has not been consumed; `elsewhere`: see
        `Pocket.recall`. Returns what was consumed, the number of the ask for a message that a thread waits
        for (0: none), which messages are acknowledged later, and whether this object wants envelopes."""
        with self._lock:
            if self._closed:
                return self._consumed, 0, [], False
            pocket = self._pocket
            consumed = pocket.recall(epoch, elsewhere=elsewhere)
            waits_for = pocket.ask() if self._waiting else 0
            return consumed, waits_for, pocket.all_kept(), pocket.envelopes

    # coming and going

    def _attach_again(self, old: RouterRoute | None) -> RouterRoute | None:
        """In the control thread, with `_turn` held: become a holder (again): with the broker that took over,
        or, without an `old` socket, in a forked child. BrokerGone when the broker is lost meanwhile; then
        later again."""
        client = self._client
        router = client.link.new_router_route()
        self._hear_stream()
        with self._lock:
            pocket = self._pocket
            unread = pocket.fresh()
            consumed = 0 if old is None else max(0, pocket.recall(pocket.epoch + 1))
            was = b"" if old is None else self._holder_id
            kept = [] if old is None else pocket.all_kept()
            pocket.give_up_asks()  # the answers to those that were out may be lost
            pairs = [[*pair] for pair in kept]
            attach = messages.Attach(
                client.link.control_id, 0, self._key, was, pocket.epoch, consumed, pairs, self._serving
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
            if why is None and isinstance(error, DeadHandle) and self._redial is not None and old is not None:
                return self._dial_anew(client, old, unread)
            self._ended(DeadHandle(why) if why is not None else error, told=why is not None)
            return old
        if old is not None:
            old.close()
            self._find_out_of_loss(int(info["serving"]), unread)
        self._serving = int(info["serving"])
        self._finalizer.detach()
        self._route.join(client.link, router, self._key)
        self._holder_id = router.identity
        self._resync = False
        self._start()  # a worker that is new may not have heard the one before, which had our former name
        self._finalizer = weakref.finalize(self, client.detach, self._key, router.identity, pocket, router)
        self._finalizer.atexit = False
        return router

    def _hear_stream(self) -> None:
        """With `_turn` held: take in what has come straight from the worker. Should the worker be gone,
        nobody sends that again."""
        while (received := self._route.peek_stream()) is not None:
            self._handle_stream(received)
            self._route.done()

    def _handle_stream(self, received: Received) -> bool:
        raise NotImplementedError

    def _find_out_of_loss(self, serving: int, unread: Unread) -> None:
        """With `_turn` held, joined again. The word that our worker is gone may have been on its way to our
        former name. Then nobody sends again what we gave back: `unread`, which is still ours."""
        if serving <= self._serving:
            return
        self._route.close_stream()
        self._route.try_door_again()
        self._orphan = True
        with self._lock:
            self._pocket.take_in_again(unread)
            self._pocket.lose(Mark.DOWN, comes_again=self._comes_again)

    def redial_with(self, fields: tuple[Any, ...], body: Sealed) -> None:
        """Called by `Dial`: how to open the connection anew when broker and worker are lost together."""
        self._redial = (fields, body)

    def _dial_anew(self, client: Client, old: RouterRoute, unread: Unread) -> RouterRoute:
        """With `_turn` held: as a worker that crashed is replaced, so is one that was lost with its broker;
        what it had sent us is read first. BrokerGone when it cannot be dialled now; then later again."""
        assert self._redial is not None
        fields, body = self._redial
        router = client.link.new_router_route()
        self._route.close_stream()
        if not self._forsaken:  # with its link down, too: the next worker counts from zero
            with self._lock:
                self._pocket.take_in_again(unread)
                self._pocket.lose(Mark.DOWN, comes_again=self._comes_again)
            self._forsaken = True
        # So that the figures go on from those of the worker that was lost, and every message is counted once.
        former = [self._key, self._holder_id, self._comes_again]
        body = _with_former(body, former)
        try:
            router.send(BROKER, Kind.OPEN, 1, (client.link.control_id, *fields), body)
            key, info = attached(router, Deadline(REDIAL_S), client)
        except TrunklineError as error:
            if isinstance(error, (OperationTimeout, BrokerGone)):  # the broker may open it yet, for nobody
                client.abandon(router.identity)
            router.close()
            remember(error)
            raise BrokerGone(str(error)) from None
        old.close()
        self._finalizer.detach()
        self._route.join(client.link, router, key)
        self._holder_id, self._key = router.identity, key
        self._number, self._handle = str(info.get("id", "")), None
        self._serving = int(info.get("serving", 0))
        self._route.renew_requests()
        self._route.try_door_again()
        self._orphan = self._resync = self._forsaken = False
        self._start()
        self._finalizer = weakref.finalize(self, client.detach, key, router.identity, self._pocket, router)
        self._finalizer.atexit = False
        log.warning("%s: broker and worker were lost together; it was dialled anew", self._peer)
        return router

    def _ended(self, error: TrunklineError, *, told: bool = False) -> None:
        """The broker knows nothing of the connection (any more). `told`: it has said why, in the log too."""
        remember(error)
        if not told:
            log.warning("%s: %s", self._peer, error)
        self._gone = str(error)
        with self._lock:
            self._pocket.lose(Mark.END)

    def _rejoin(self) -> None:
        """Called by the control thread after a lost broker, for objects that nobody is using; and for those
        whose use was broken off."""
        with contextlib.suppress(BrokerGone):  # lost again: the control thread comes back
            self._turn.run(2 * SLICE_S, self._join_again)

    def _join_again(self) -> None:
        if not self._stale() or self._closed or self._gone is not None:
            return
        self._attach_again(self._route.router)
        self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        """It may have been closed while it was joined anew: then nobody has told the broker of the new
        name."""
        if self._closed:
            self._client.detach(self._key, self._holder_id, self._consumed, None, True)
            self._route.close()

    def _after_fork(self) -> None:
        """In a forked child: nothing of the parent's object may be used here, its locks neither."""
        self._finalizer.detach()
        process.keep(self._route.leave_to_parent())
        self._orphan = False
        self._serving = 0
        self._holder_id = b""
        self._pocket = Pocket()
        self._lock = threading.RLock()
        self._turn = Turn()
        self._local = threading.local()
        self._bare = self._waiting = self._unsure = self._resync = self._forsaken = False


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


def attached(router: RouterRoute, deadline: Deadline, client: Client) -> tuple[bytes, dict[str, Any]]:
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
            return fields[0], fields[1]
        if kind in (Kind.FAILED, Kind.ERROR):
            raise from_wire(fields[0])
