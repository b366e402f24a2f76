"""The client: this process's connections, its control thread `trunkline-io`, its forks and its end.

The control thread keeps the process's promises while a program is busy or sleeps:

* every second, tell the broker that the process lives;
* give entries back when a worker recalls them;
* write the workers' messages into the log;
* detach objects closed by the program or taken by the garbage collector;
* when the broker is lost, find or start another one (`trunkline.proxy.broker_link`).

Once the control thread runs, no other thread uses the control socket. The control thread uses a
holder's stream socket only with that holder's turn, so never while a user's thread does.
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
"""Seconds between two beats. The beats tell the broker of a living process."""
SAID_S = 15.0
"""Seconds for which a sent order to detach is kept, for the next broker."""
LEAVE_S = 1.0
"""Seconds at the end of the program for a broker that is alive and silent."""
LEAVING = 1
"""The request id of the last HELLO."""
GOODBYE_S = 4.0
"""Seconds for a broker's confirmation at the end of the program, however many brokers are lost
meanwhile."""
HEARD_OUT_LOOK_S = 0.02
"""Seconds between two looks for the confirmation."""
MISSES = 3
"""The broker counts as lost after `MISSES + 1` beats without a message from the broker."""
GIVE_UP_S = 2.0
"""Seconds for the control thread to end after a failed `open`."""
JOIN_S = 0.4
"""The least time in seconds that a new client gives the broker for its WELCOME. A first Dial with a
short timeout may have to start the broker, too."""


class Client:
    """The client of this process. Made by `get()`, once per process.

    `__init__` opens at most the standard descriptors. `open` takes sockets, pipe and thread, and
    gives all of them back if a signal handler raises meanwhile (Ctrl-C).

    The user's threads and finalizers put orders into the queues `_detached` and `_sayings` and wake
    the control thread. Only the control thread carries the orders out. Appending to a deque is
    atomic.
    """

    def __init__(self) -> None:
        _occupy_standard_descriptors()
        self.connections: Members[Connection] = Members()
        self.link: BrokerLink = BrokerLink(self.connections.__len__)
        self.claims: Claims = Claims()
        self._detached: deque[
            tuple[bytes, bytes, int | Pocket | None, RouterRoute | None, bool]
        ] = deque()
        """Orders to detach: connection, holder, number of consumed entries (or the pocket that
        knows the number), the holder's socket to close, and whether the program called
        `close()`."""
        self._sayings: deque[tuple[bytes, Kind, tuple[Any, ...]]] = deque()
        """Messages to workers without an answer: connection, kind, fields."""
        self._said: deque[tuple[float, tuple[bytes, bytes, int | None, bool]]] = deque(maxlen=1024)
        """Orders to detach that were sent, with their times on the monotonic clock, the newest
        last."""
        self._wake_r = self._wake_w = -1
        """The two ends of a pipe that wakes the control thread from its poll; -1 while there is no
        pipe."""
        self._leaving = False
        self.program_ends: bool = False
        """Connections detached from now on were not closed by the program, but by its
        end."""
        self._asked_leave = 0
        """The generation of the broker to which the last HELLO was sent."""
        self._heard_out = threading.Event()
        """Set by the broker's answer to the last HELLO: the broker has heard all orders."""
        self._rejoin = False
        """The control thread has to look for connections to join, without waiting for the next
        beat."""
        self._thread: threading.Thread | None = None

    def open(self, deadline: Deadline) -> None:
        """Join the broker and start the control thread. Starts a broker if there is none. Raises
        BrokerGone."""
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
        """Undo `open`, however far `open` has come."""
        self.link.stop()
        self._wake()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(GIVE_UP_S)
            if self._thread.is_alive():
                # The thread is still inside a socket, so the socket must not be closed. Sockets and
                # thread end with the process.
                return
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
        """Have the control thread detach a holder from its connection. Safe in finalizers: only
        queues an order.

        `consumed`: the number of consumed entries, or the pocket with the number. `router`: the
        holder's socket at the broker, to be closed. `closed`: the program called `close()`;
        otherwise the garbage collector has taken the object.
        """
        self._detached.append((key, holder, consumed, router, closed and not self.program_ends))
        self._wake()

    def abandon(self, holder: bytes) -> None:
        """Tell the broker that no caller waits any more for an OPEN or ATTACH of this holder name.

        The id of the connection is unknown in this process. Only queues an order.
        """
        self.detach(b"", holder, None, None)

    def lately_closed(self) -> list[bytes]:
        """The detached holders of this process that the broker may still count as attached."""
        waiting = [holder for _, holder, *_ in list(self._detached)]
        return waiting + [holder for _, holder, *_ in self._said_lately()]

    def tell(self, key: bytes, kind: Kind, fields: tuple[Any, ...]) -> None:
        """Send a connection's worker a message without an answer. Safe in finalizers: only queues
        an order."""
        self._sayings.append((key, kind, fields))
        self._wake()

    def rejoin_soon(self) -> None:
        """Have the control thread join every connection that is due for joining, at once."""
        self._rejoin = True
        self._wake()

    # the thread

    def _wake(self) -> None:
        """Wake the control thread. The pipe does not block: a full pipe wakes the thread as
        well."""
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    def _run(self) -> None:
        """The control thread: repeat `_turn` until the client stops."""
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
        """Serve the control socket until the client stops or another broker takes over."""
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
                return  # another broker has taken over: `_run` comes back with the new socket
            if self._wake_r in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            self._send_detached()
            if self._leaving and self._asked_leave != self.link.generation:
                self._asked_leave = self.link.generation
                # One socket keeps the order: the broker answers this HELLO only after it has heard
                # everything that was sent before.
                control.send(BROKER, Kind.HELLO, LEAVING, (os.getpid(),))
            while (received := control.receive(0)) is not None:
                self.link.heard_at = time.monotonic()
                self._handle(control, received)
            # Where the system has no pidfd, or the broker hangs, only its silence tells.
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
        """Have each holder acknowledge the messages read before a long pause.

        A method of its own because the local variables of `_turn` live on during the poll. A
        variable there would keep a dropped `Connection` from the garbage collector.
        """
        for connection in list(self.connections):
            connection._dialogue.acknowledge_when_idle(control)

    def _send_detached(self) -> None:
        """In the control thread: carry out the orders of the two queues."""
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
            # Only now: at any moment `lately_closed` finds the order in one of the two queues.
            self._detached.popleft()
            with contextlib.suppress(zmq.ZMQError):
                control.send(BROKER, Kind.DETACH, 0, order)
            if router is not None:
                router.close()

    def _handle(self, control: RouterRoute, received: Received) -> None:
        """In the control thread: carry out a message of the broker or of a worker."""
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
        """Send the newest orders to detach again, for the broker that has replaced a lost one."""
        control = self.link.control
        assert control is not None
        for order in self._said_lately():
            control.send(BROKER, Kind.DETACH, 0, order)

    def _said_lately(self) -> list[tuple[bytes, bytes, int | None, bool]]:
        """The orders to detach of the last `SAID_S` seconds. A broker lost now may not have carried
        them out."""
        return [order for when, order in list(self._said) if time.monotonic() - when < SAID_S]

    def _rejoin_all(self) -> None:
        """In the control thread: join every connection that is due for joining."""
        for connection in list(self.connections):
            if self.link.stopped or self.link.broker_ended():
                return  # the next turn sees it
            if connection._member.is_stale():
                connection._member.rejoin(connection._dialogue.handle)
            # Joining may have taken long, and this thread has not listened meanwhile: the broker's
            # silence does not count.
            self.link.heard_at = time.monotonic()

    def shutdown(self, *, closed: bool) -> None:
        """Detach all connections of this process and leave the broker. Takes a few seconds at most.

        `closed`: the program asked for the end, and peers are told of an orderly end. False: the
        program ends without having closed its connections.
        """
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
        # Otherwise a thread is still inside a socket, and closing the socket there would crash
        # ZeroMQ. The sockets end with the process.

    def _take_leave(self) -> None:
        """Wait for a broker's confirmation that all detached holders are gone.

        The present broker may be lost at this very moment. Its workers then wait for another broker
        as long as a process that used them lives. So the next broker has to hear of the leaving,
        too. BrokerGone when no broker can be reached within `GOODBYE_S`.
        """
        self._leaving = True
        until, patience, generation = Deadline(GOODBYE_S), Deadline(0), -1
        while not self._heard_out.is_set():
            self.link.settle(until)
            if generation != self.link.generation:
                generation, patience = self.link.generation, Deadline(LEAVE_S)
                self._wake()
            elif patience.expired():
                return  # the broker is stopped perhaps: it hears what was sent when it goes on
            self._heard_out.wait(HEARD_OUT_LOOK_S)

    def _release(self) -> None:
        """Close the pipe and all sockets. No thread may be inside a socket any more."""
        self.link.release()
        pipe = self._wake_r, self._wake_w
        # First, because a finalizer that runs late must not write into a file that got the number.
        self._wake_r = self._wake_w = -1
        for fd in pipe:
            if fd >= 0:
                os.close(fd)
        self.link.end_context()


def _occupy_standard_descriptors() -> None:
    """Open /dev/null for every standard descriptor (0 to 2) that the program has closed.

    Otherwise a socket of this package could get the number. The output of child processes and C
    libraries would then go into the socket.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


_client: Client | None = None
"""The client of this process; None before the first call of `get` and after `shutdown`."""
_program_ends = False
"""The interpreter is ending: `shutdown` was called by the interpreter's end, not by the program."""
_lock = Turn()
"""Guards the making and the retiring of the client."""
_retired: tuple[Client, ...] = ()
"""Clients in the middle of `shutdown`. Ctrl-C may interrupt a `shutdown`, and the next one goes
on."""


def get(deadline: Deadline | None = None) -> Client:
    """The client of this process. The first call makes the client, and starts a broker if
    necessary.

    Raises BrokerGone, at the latest by the deadline where a broker is running and does not answer.
    """
    global _client
    client = _client
    if client is not None:
        return client
    if sys.is_finalizing():  # Python starts no thread any more, so no control thread would run
        raise BrokerGone("nothing can be dialled any more: the program has ended")
    deadline = deadline or Deadline(ANSWER_S)
    made = _lock.run(deadline.left(), partial(_make, deadline))
    if isinstance(made, Busy):
        raise BrokerGone(
            "another thread waits for the broker to start; it was not ready in the time allowed"
        )
    return made


def _make(deadline: Deadline) -> Client:
    """With the lock held: make the client, unless another thread has just made the client."""
    global _client
    client = _client
    if client is None:
        client = Client()
        client.open(deadline)
        _client = client
    return client


def current() -> Client | None:
    """The client of this process, as it is now; None without a client."""
    return _client


def is_cut_off() -> bool:
    """Whether the program is ending and the calling thread is a daemon thread.

    Python does not wait for daemon threads, so failures of their last calls are not logged.
    """
    return _program_ends and threading.current_thread().daemon


def shutdown(*, closed: bool = True) -> None:
    """Detach all connections of this process and leave the broker. The broker ends with its last
    client.

    `closed`: as after `close()` of each connection. False: as when the program dies (an MQTT broker
    publishes the will).
    """
    global _retired, _program_ends
    _program_ends = not closed
    _lock.run(FOREVER, _retire)
    for client in _retired:
        client.shutdown(closed=closed)
        _retired = tuple(each for each in _retired if each is not client)


def _retire() -> None:
    """With the lock held: take the client out of use. The next `get` makes a new client."""
    global _client, _retired
    if _client is not None:
        retired = (*_retired, _client)
        # ALL OR NOTHING, see trunkline.proxy.pocket
        _retired = retired
        _client = None


_MAIN = type(threading.main_thread())
"""The class of the main thread's object. In a child forked by another thread, the first thread's
object has another class."""


def _only_we_are_left() -> bool:
    """Whether only threads of this package are left in a child forked by a thread.

    The operating system ends such a child with its last thread. The control thread never returns by
    itself, so the control thread has to end the process.
    """
    first = threading.main_thread()  # the thread that has forked
    if isinstance(first, _MAIN) or first.is_alive():
        return False
    return all(thread.name.startswith("trunkline-") for thread in threading.enumerate())


def _after_fork() -> None:
    """In a forked child: forget the parent's client, whose sockets and control thread belong to the
    parent.

    The connections become further holders when the child uses them.
    """
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
    """Keep an object of the parent process alive for ever in this process.

    Otherwise finalizers, of the object or of objects behind it, would touch the parent's sockets,
    or warn of open sockets at the end of the interpreter.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


os.register_at_fork(after_in_child=_after_fork)


leave_at_exit(lambda: shutdown(closed=False))
