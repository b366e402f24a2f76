"""One object's membership in a connection: its sockets, how it gets in, comes back and goes.

Locks: `_lock` guards the pocket and is held for moments only; `_turn` is the right to use the stream
socket, held by the thread that waits for data. Whoever takes both takes `_turn` first.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from trunkline import client as clients
from trunkline import runtime
from trunkline.channel import SLICE_S, Channel, Received
from trunkline.client import Client
from trunkline.deadline import Deadline
from trunkline.direct import Direct
from trunkline.errors import BrokerGone, DeadHandle, OperationTimeout, TrunklineError, from_wire
from trunkline.pipe import Pipe
from trunkline.pocket import Pocket
from trunkline.reasons import remember
from trunkline.wire.envelope import BROKER, Kind, Mark
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.connection import Connection

__all__ = ["Holder", "attached"]

log = logging.getLogger("trunkline")

ATTACH_S = 10.0
REDIAL_S = 2.5


class Holder:
    """What the worker and the broker know of an object; the base of `Connection`."""

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
        self._comes_again = bool(info.get("comes_again"))
        self._acknowledges = bool(info.get("acknowledges"))
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
        self._query_numbers = itertools.count(1)
        self._direct = Direct(runtime.door(client.address, key))
        self._redial: tuple[tuple[Any, ...], bytes] | None = None
        self._pipe: Pipe | None = None
        self._routed = False
        self._orphan = False
        self._start_at = 0.0
        self._told: set[str] = set()
        self._consumed = 0
        client.connections.add(self._itself())
        self._finalizer = weakref.finalize(self, client.detach, key, channel.identity, self._pocket, channel)
        self._finalizer.atexit = False
        self._start()

    def _itself(self) -> Connection:
        """Nobody makes a bare Holder: it is a Connection that the client keeps."""
        return cast("Connection", self)

    # the two ways to the worker

    def _start(self) -> None:
        """With `_turn` held: tell the worker that we can be served, over a pipe of our own if it has a door
        for us, else through the router."""
        if self._executes:
            return
        with self._lock:
            pocket = self._pocket
            fields = (self._holder_id, pocket.will_be_down(), pocket.had, pocket.envelopes)
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

    def _recall(self, epoch: int) -> tuple[int, bool, list[tuple[int, int]]]:
        """Called by the control thread: give back what has not been consumed. Returns what was, whether a
        thread waits for a message, and which messages are acknowledged later."""
        with self._lock:
            if self._closed:
                return self._consumed, False, []
            return self._pocket.recall(epoch), self._waiting, self._pocket.all_kept()

    # coming and going

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
            self._client.connections.add(self._itself())
        client = self._client
        channel = client.channel()
        with self._lock:
            pocket = self._pocket
            consumed = 0 if old is None else max(0, pocket.recall(pocket.epoch + 1))
            was = b"" if old is None else self._holder_id
            kept = [] if old is None else pocket.all_kept()
            fields = (client.control_id, 0, self._key, was, pocket.epoch, consumed, kept)
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
                self._pocket.lose(Mark.DOWN, comes_again=self._comes_again)
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
