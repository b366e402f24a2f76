"""What this process has of Trunkline: its connections, the control thread `trunkline-io`, and what happens at
a fork and at the end.

The thread is what lets a busy or sleeping strategy keep its promises: it beats, gives back messages when
another reader wants them (RECALL), writes the worker's words into the log, detaches objects that
were closed or collected, and finds or starts another broker when this one is lost
(`trunkline.proxy.broker_link`). It never touches a socket that a user's thread is using.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, BrokerGone
from trunkline.proxy.broker_link import ANSWER_S, BrokerLink
from trunkline.proxy.claims import Claims
from trunkline.proxy.leaving import leave_at_exit, leave_with_child
from trunkline.proxy.members import Members
from trunkline.proxy.pocket import Pocket
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import Received, RouterRoute
from trunkline.proxy.turn import FOREVER, Busy, Turn
from trunkline.system.limits import NO_THREAD
from trunkline.wire import messages
from trunkline.wire.envelope import BROKER, Kind

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Client", "current", "get", "is_cut_off", "keep", "shutdown"]

log = logging.getLogger("trunkline")

BEAT_S = 1.0
SAID_S = 15.0
LEAVE_S = 1.0
LEAVING = 1
"""The request id of the last HELLO."""
GOODBYE_S = 4.0
HEARD_OUT_LOOK_S = 0.02
MISSES = 3
GIVE_UP_S = 2.0
JOIN_S = 0.4
"""So long a new client waits for the broker's welcome at least: its first dial may have to start one."""


class Client:
    """See the module. Made by `get()`, once per process. What it takes of the system it takes in `open`, so
    that it can be given back if a signal handler raises meanwhile (Ctrl-C)."""

    def __init__(self) -> None:
        _occupy_standard_descriptors()
        self.connections: Members[Connection] = Members()
        self.link: BrokerLink = BrokerLink(self.connections.__len__)
        self.claims: Claims = Claims()
        self._detached: deque[
            tuple[bytes, bytes, int | Pocket | None, RouterRoute | None, bool]
        ] = deque()
        self._sayings: deque[tuple[bytes, Kind, tuple[Any, ...]]] = deque()
        self._said: deque[tuple[float, tuple[bytes, bytes, int | None, bool]]] = deque(maxlen=1024)
        self._wake_r = self._wake_w = -1
        self._leaving = False
        self.program_ends: bool = False
        """Connections that are detached from now on were not closed by the program."""
        self._asked_leave = 0
        """The generation whose broker was asked whether it has heard everything."""
        self._heard_out = threading.Event()
        self._rejoin = False
        self._thread: threading.Thread | None = None

    def open(self, deadline: Deadline) -> None:
        """Join the broker, which is started if there is none, and begin to serve. Raises BrokerGone."""
        try:
            self.link.open_context()
            self._wake_r, self._wake_w = os.pipe()
            os.set_blocking(self._wake_r, False)
            os.set_blocking(self._wake_w, False)
            self.link.join(Deadline(max(JOIN_S, min(ANSWER_S, deadline.left()))))
            leave_with_child()
            thread = threading.Thread(target=self._run, name="trunkline-io", daemon=True)
            self._thread = thread
            thread.start()
        except RuntimeError:
            self._thread = None
            self._release()
            raise BrokerGone(f"no connection can be had: {NO_THREAD}") from None
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Undo `open`, wherever it was broken off."""
        self.link.stop()
        self._wake()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(GIVE_UP_S)
            if self._thread.is_alive():
                return  # it is in a socket that cannot be closed then; it ends with the process
        self._release()

    # orders to the control thread, from any thread

    def detach(
        self,
        key: bytes,
        holder: bytes,
        consumed: int | Pocket | None,
        router: RouterRoute | None,
        closed: bool = False,
    ) -> None:
        """Take an object off its connection. `consumed`: what it has read in total, or what knows. `closed`:
        the program called `close()`; else the object was collected. Safe in finalizers: only queues the
        order."""
        self._detached.append((key, holder, consumed, router, closed and not self.program_ends))
        self._wake()

    def abandon(self, holder: bytes) -> None:
        """Nobody waits any more for what was asked of the broker under this name: an OPEN or ATTACH, whose
        connection is not known here. Only queues the order."""
        self.detach(b"", holder, None, None)

    def lately_closed(self) -> list[bytes]:
        """The holders that this process has closed and that the broker may not have heard of yet."""
        waiting = [holder for _, holder, *_ in list(self._detached)]
        return waiting + [holder for _, holder, *_ in self._said_lately()]

    def tell(self, key: bytes, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Say something to a connection's worker that it does not answer. Safe in finalizers: only queues."""
        self._sayings.append((key, kind, fields))
        self._wake()

    def rejoin_soon(self) -> None:
        """Have the control thread look at once which connections have to be joined (again)."""
        self._rejoin = True
        self._wake()

    # the thread

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    def _run(self) -> None:
        while not self.link.stopped:
            try:
                self._turn()
            except Exception as error:
                log.error(
                    "an error in the control thread: %s: %s",
                    type(error).__name__,
                    error,
                    exc_info=error,
                )
                self.link.pause(0.1)
        self._send_detached()

    def _turn(self) -> None:
        control = self.link.control
        assert control is not None
        poller = zmq.Poller()
        poller.register(control.socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        if self.link.broker_fd >= 0:
            poller.register(self.link.broker_fd, zmq.POLLIN)
        beat_at = time.monotonic() + BEAT_S
        while not self.link.stopped:
            events = dict(poller.poll(max(0, int((beat_at - time.monotonic()) * 1000))))
            if control is not self.link.control:
                return
            if self._wake_r in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            self._send_detached()
            if self._leaving and self._asked_leave != self.link.generation:
                self._asked_leave = self.link.generation
                # answered when all that was sent before it has been heard
                control.send(BROKER, Kind.HELLO, LEAVING, (os.getpid(),))
            while (received := control.receive(0)) is not None:
                self.link.heard_at = time.monotonic()
                self._handle(control, received)
            is_silent = time.monotonic() - self.link.heard_at > BEAT_S * (MISSES + 1)
            is_lost = self.link.broker_fd in events or is_silent
            if is_lost and not self.link.stopped:
                self.link.replace_broker(self._detach_again)
                self._rejoin_all()
                return
            if self._rejoin:
                self._rejoin = False
                self._rejoin_all()
            if time.monotonic() >= beat_at:
                if _only_we_are_left():
                    os._exit(0)
                control.send(BROKER, Kind.BEAT, 0, ())
                beat_at = time.monotonic() + BEAT_S
                self._rejoin_all()
                self._acknowledge_idle(control)
                for holder in self.claims.forsaken():
                    if holder not in self.lately_closed():
                        self.abandon(holder)

    def _acknowledge_idle(self, control: RouterRoute) -> None:
        """Apart from `_turn`, whose variables live on: one of them would keep an object from its end."""
        for connection in list(self.connections):
            connection._dialogue.acknowledge_when_idle(control)

    def _send_detached(self) -> None:
        control = self.link.control
        while self._sayings and control is not None:
            key, kind, fields = self._sayings.popleft()
            with contextlib.suppress(zmq.ZMQError):
                control.send(key, kind, 0, fields)
        while self._detached and control is not None:
            key, holder, consumed, router, closed = self._detached[0]
            if isinstance(consumed, Pocket):
                consumed = consumed.consumed_at_end()
            order = (key, holder, consumed, closed)
            self._said.append((time.monotonic(), order))
            self._detached.popleft()  # not before: at any moment it is found in one of the two
            with contextlib.suppress(zmq.ZMQError):
                control.send(BROKER, Kind.DETACH, 0, order)
            if router is not None:
                router.close()

    def _handle(self, control: RouterRoute, received: Received) -> None:
        sender, kind, request_id, fields, _ = received
        if kind is Kind.RECALL:
            holder, epoch, elsewhere = messages.Recall(*fields)
            for connection in list(self.connections):
                if connection._member.holder_id == holder:
                    given = connection._member.recall(epoch, elsewhere)
                    control.send(sender, Kind.RECALLED, 0, (holder, epoch, *given))
        elif kind is Kind.LOG:
            said = messages.Log(*fields)
            level = getattr(logging, str(said.level).upper(), logging.WARNING)
            log.log(level, "%s", said.text)
            if level >= logging.ERROR:
                remember(BrokenError(str(said.text)))
        elif kind is Kind.WELCOME and request_id == LEAVING:
            self._heard_out.set()
        elif kind is Kind.REREGISTER:
            control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))

    def _detach_again(self) -> None:
        """What was closed just before the broker was lost: it may not have heard it."""
        control = self.link.control
        assert control is not None
        for order in self._said_lately():
            control.send(BROKER, Kind.DETACH, 0, order)

    def _said_lately(self) -> list[tuple[bytes, bytes, int | None, bool]]:
        """The orders to detach that a broker lost just now may not have carried out."""
        return [order for when, order in list(self._said) if time.monotonic() - when < SAID_S]

    def _rejoin_all(self) -> None:
        for connection in list(self.connections):
            if self.link.stopped or self.link.broker_ended():
                return  # the next turn sees it
            if connection._member.is_stale():
                connection._member.rejoin(connection._dialogue.handle)
            self.link.heard_at = (
                time.monotonic()
            )  # it may have taken long, with nobody listening here

    def shutdown(self, *, closed: bool) -> None:
        """Detach all that this process has open here; ends within a few seconds. `closed`: the program asked
        for it, so that peers are told of a good end; False: it ends without having closed them."""
        self.program_ends = not closed
        connections = list(self.connections)
        for connection in connections:
            connection.close()
        if connections or self._detached or self._said_lately():
            with contextlib.suppress(BrokerGone):
                self._take_leave()
        self.link.stop()
        self._wake()
        assert self._thread is not None
        self._thread.join(5)
        limit = Deadline(LEAVE_S)
        if (
            not self._thread.is_alive()
            and all(connection._left(limit) for connection in connections)
            and self.link.is_unused(limit)
        ):
            self._release()
        # else a thread is still in a socket, and to close it there would crash: it ends with the process

    def _take_leave(self) -> None:
        """Wait until a broker has heard what was closed. The one we know may be lost at this very moment, and
        workers without a broker wait for a process that lives: they must hear from the next one that we have
        left. BrokerGone when there is none in time."""
        self._leaving = True
        until, patience, generation = Deadline(GOODBYE_S), Deadline(0), -1
        while not self._heard_out.is_set():
            self.link.settle(until)
            if generation != self.link.generation:
                generation, patience = self.link.generation, Deadline(LEAVE_S)
                self._wake()
            elif patience.expired():
                return  # it lives and is silent: what was sent it hears when it goes on
            self._heard_out.wait(HEARD_OUT_LOOK_S)

    def _release(self) -> None:
        self.link.release()
        pipe = self._wake_r, self._wake_w
        self._wake_r = (
            self._wake_w
        ) = -1  # a finalizer that comes late must not write into another's file
        for fd in pipe:
            if fd >= 0:
                os.close(fd)
        self.link.end_context()


def _occupy_standard_descriptors() -> None:
    """Where the program has closed its standard input or output, the next file would get that number, and
    what children and C libraries print would go into a socket of ours."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


_client: Client | None = None
_program_ends = False
_lock = Turn()
_retired: tuple[Client, ...] = ()
"""Those that have been told to leave and have not done so yet: a Ctrl-C may break that off."""


def get(deadline: Deadline | None = None) -> Client:
    """The client of this process; made (and the broker started) at the first call. Raises BrokerGone, by the
    deadline where the broker is there and does not answer."""
    global _client
    client = _client
    if client is not None:
        return client
    if sys.is_finalizing():  # a finalizer at the very end: no thread of ours would ever run
        raise BrokerGone("nothing can be dialled any more: the program has ended")
    deadline = deadline or Deadline(ANSWER_S)
    made = _lock.run(deadline.left(), partial(_make, deadline))
    if isinstance(made, Busy):
        raise BrokerGone(
            "another thread waits for the broker to start; it was not ready in the time allowed"
        )
    return made


def _make(deadline: Deadline) -> Client:
    global _client
    client = _client
    if client is None:
        client = Client()
        client.open(deadline)
        _client = client
    return client


def current() -> Client | None:
    """The client of this process if it has one."""
    return _client


def is_cut_off() -> bool:
    """Whether the program ends and this is a daemon thread, which it does not wait for: nobody has to hear
    that its calls fail."""
    return _program_ends and threading.current_thread().daemon


def shutdown(*, closed: bool = True) -> None:
    """Detach all connections of this process and leave the broker, which ends with its last client. `closed`:
    as by `close()`; False: as when the program dies (an MQTT broker publishes the will)."""
    global _retired, _program_ends
    _program_ends = not closed
    _lock.run(FOREVER, _retire)
    for client in _retired:
        client.shutdown(closed=closed)
        _retired = tuple(each for each in _retired if each is not client)


def _retire() -> None:
    global _client, _retired
    if _client is not None:
        retired = (*_retired, _client)
        # ALL OR NOTHING, see trunkline.proxy.pocket
        _retired = retired
        _client = None


_MAIN = type(threading.main_thread())


def _only_we_are_left() -> bool:
    """Whether this is a child that a thread has forked, and that thread and all others have returned: the
    system ends such a process with its last thread, which must not be ours."""
    first = threading.main_thread()  # the thread that has forked
    if isinstance(first, _MAIN) or first.is_alive():
        return False
    return all(thread.name.startswith("trunkline-") for thread in threading.enumerate())


def _after_fork() -> None:
    """In a forked child: the parent's sockets and thread are not ours. Its connections become further
    holders when they are used here."""
    global _client, _lock, _program_ends, _retired
    _program_ends = False
    parents = [*_retired, *([] if _client is None else [_client])]
    _client, _retired = None, ()
    _lock = Turn()
    for parent in parents:
        keep(parent)
        for connection in list(parent.connections):
            connection._after_fork()


def keep(thing: object) -> None:
    """Let something of a parent process live for ever in this one: its finalizer, and those of all it refers
    to, would touch sockets that are not ours (or, when the interpreter ends, warn that they are open)."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


os.register_at_fork(after_in_child=_after_fork)


leave_at_exit(lambda: shutdown(closed=False))
