"""This process's side of the broker: one context, one control socket with its thread, and a
few request sockets. Long because finding, losing and finding a broker again is one story.

The thread is what lets a busy or sleeping strategy keep its promises: it beats, gives back messages when
another reader wants them (RECALL), writes the worker's words into the log, detaches objects that
were closed or collected, and finds or starts another broker when this one is lost. It never touches a
socket that a user's thread is using.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import zmq

from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, BrokerGone, from_wire
from trunkline.proxy.claims import Claims
from trunkline.proxy.launch import broker_address, ensure_broker
from trunkline.proxy.leaving import leave_at_exit, leave_with_child
from trunkline.proxy.orphans import adopt
from trunkline.proxy.pocket import Pocket
from trunkline.proxy.reasons import remember
from trunkline.proxy.route import SLICE_S, Channel, Received, unanswered, unknown
from trunkline.proxy.turn import FOREVER, Busy, Turn
from trunkline.system.limits import NO_THREAD, make_context
from trunkline.wire import endpoint, messages
from trunkline.wire.envelope import BROKER, Kind

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Client", "current", "get", "is_cut_off", "keep", "shutdown"]

log = logging.getLogger("trunkline")

T = TypeVar("T")

BEAT_S = 1.0
RETRY_S = 0.5
SAID_S = 15.0
LEAVE_S = 1.0
LEAVING = 1
"""The request id of the last HELLO."""
GOODBYE_S = 4.0
SETTLE_LOOK_S = 0.02
MISSES = 3
SPARE_FDS = 128
FEW_FDS = 16
GIVE_UP_S = 2.0
JOIN_S = 0.4
"""So long a new client waits for the broker's welcome at least: its first dial may have to start one."""
ANSWER_S = 15.0
"""The broker answers its own requests at once; more than this is a broker that hangs."""


def _make_context() -> zmq.Context[zmq.Socket[bytes]]:
    try:
        return make_context(further=1)
    except OSError as error:
        raise BrokerGone(f"no connection can be had: {error.strerror}") from None


class _Members(Generic[T]):
    """Living objects of this process. Any thread adds and looks, a finalizer takes out: each is one
    step (a WeakSet that is added to while another thread looks through it raises)."""

    def __init__(self) -> None:
        self._members: dict[int, weakref.ref[T]] = {}

    def add(self, member: T) -> None:
        key, members = id(member), self._members

        def gone(reference: object) -> None:
            if members.get(key) is reference:  # else another object has got that id
                del members[key]

        members[key] = weakref.ref(member, gone)

    def discard(self, member: T) -> None:
        self._members.pop(id(member), None)

    def __iter__(self) -> Iterator[T]:
        return iter([each for reference in list(self._members.values()) if (each := reference()) is not None])

    def __len__(self) -> int:
        return len(self._members)


class Client:
    """See the module. Made by `get()`, once per process. What it takes of the system it takes in `open`, so
    that it can be given back if a signal handler raises meanwhile (Ctrl-C)."""

    def __init__(self) -> None:
        _occupy_standard_descriptors()
        self.address: str = broker_address()
        self.generation: int = 0
        self._joined = 0
        self.connections: _Members[Connection] = _Members()
        self._channels: _Members[Channel] = _Members()
        self._making: list[object] = []
        """One entry for each thread that is about to add to `_channels`."""
        self.claims: Claims = Claims()
        self.context: Any
        self._pool: deque[Channel] = deque()
        self._detached: deque[tuple[bytes, bytes, int | Pocket | None, Channel | None, bool]] = deque()
        self._sayings: deque[tuple[bytes, Kind, tuple[Any, ...]]] = deque()
        self._said: deque[tuple[float, tuple[bytes, bytes, int | None, bool]]] = deque(maxlen=1024)
        self._request_id = 0
        self._wake_r = self._wake_w = -1
        self._stopped = False
        self._leaving = False
        self.program_ends: bool = False
        """Connections that are detached from now on were not closed by the program."""
        self._asked_leave = 0
        """The generation whose broker was asked whether it has heard everything."""
        self._heard_out = threading.Event()
        self._rejoin = False
        self._heard = 0.0
        self._broker_fd = -1
        self._pause = threading.Event()
        self.control: Channel | None = None
        self._thread: threading.Thread | None = None

    def open(self, deadline: Deadline) -> None:
        """Join the broker, which is started if there is none, and begin to serve. Raises BrokerGone."""
        try:
            self.context = _make_context()
            self.context.set(zmq.MAX_SOCKETS, 65535)
            self._wake_r, self._wake_w = os.pipe()
            os.set_blocking(self._wake_r, False)
            os.set_blocking(self._wake_w, False)
            self._join_broker(Deadline(max(JOIN_S, min(ANSWER_S, deadline.left()))))
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
        self._stopped = True
        self._wake()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(GIVE_UP_S)
            if self._thread.is_alive():
                return  # it is in a socket that cannot be closed then; it ends with the process
        self._release()

    # requests, from any thread

    def request(
        self,
        to: bytes,
        kind: Kind,
        *fields: Any,
        body: Sequence[bytes] = (),
        deadline: Deadline,
        part: Callable[[bytes], None] | None = None,
    ) -> list[bytes]:
        """Send a request and return the body of its answer; `part` takes what of it comes before. Raises what
        the other side answered, OperationTimeout at the deadline, BrokerGone when the broker is lost
        meanwhile."""
        channel = self._borrow()
        self._request_id = request_id = (self._request_id + 1) & 0x7FFFFFFF
        try:
            channel.send(to, kind, request_id, fields, *body)
            answer = self._await(channel, request_id, deadline, kind, part)
        except BaseException:
            channel.close()  # whatever still comes is for nobody
            raise
        self._pool.append(channel)
        if answer[1] is Kind.ERROR:
            raise from_wire(answer[3][0])
        return answer[4]

    def _await(
        self,
        channel: Channel,
        request_id: int,
        deadline: Deadline,
        kind: Kind,
        part: Callable[[bytes], None] | None,
    ) -> Received:
        while True:
            received = channel.receive(max(0.001, min(SLICE_S, deadline.left())))
            if received is not None:
                if received[2] != request_id:
                    continue
                if part is None or received[1] is not Kind.PART:
                    return received
                part(received[4][0])
            elif deadline.expired():
                raise unanswered(kind)
            elif channel.generation != self.generation or self._stopped:
                raise unknown(kind)

    def _borrow(self) -> Channel:
        while self._pool:
            with contextlib.suppress(IndexError):
                channel = self._pool.pop()
                if channel.generation == self.generation:
                    return channel
                channel.close()
        return self.channel()

    def channel(self) -> Channel:
        """A new socket to the present broker."""
        making = object()
        self._making.append(making)
        try:
            if self._stopped:
                raise BrokerGone("trunkline was shut down in this process")
            channel = Channel(self.context, self.address, self.generation)
            self._channels.add(channel)
        finally:
            self._making.remove(making)
        try:
            self._make_room(int(channel.socket.getsockopt(zmq.FD)))
        except BaseException:
            channel.close()
            raise
        return channel

    def _unused(self, limit: Deadline) -> bool:
        """When this client has stopped: whether no thread is in a socket of it any more. A thread that dials
        or asks sees the stop at its next look."""
        while True:
            making = bool(self._making)  # looked at first: what was made until then is among the channels
            idle = {id(channel) for channel in (self.control, *list(self._pool))}
            if not making and all(channel.closed or id(channel) in idle for channel in self._channels):
                return True
            if limit.expired():
                return False
            time.sleep(min(SETTLE_LOOK_S, limit.left()))

    def _make_room(self, fd: int) -> None:
        """Each connection takes a handful of descriptors, and the usual soft limit is 1024: raise it, step
        by step, when it comes near. BrokerGone at the hard limit, where ZeroMQ fails to connect, silently."""
        used = fd + len(self.connections)  # each of which needs another one for its first request
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or used + SPARE_FDS < soft:
            return
        if soft != hard:
            wanted = max(2 * soft, used + 4 * SPARE_FDS)
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if used + FEW_FDS >= soft:
            raise BrokerGone(
                f"this process has used up its {soft} descriptors; close connections or raise `ulimit -n`"
            )

    def ask_broker(self, kind: Kind, *fields: Any, deadline: Deadline | None = None) -> list[bytes]:
        """One question to the broker; asked again when it was lost meanwhile, for they can be. Raises what
        it answered; OperationTimeout or BrokerGone at the deadline (default: 15 s)."""
        deadline = deadline or Deadline(ANSWER_S)
        while True:
            self.settle(deadline)
            try:
                return self.request(BROKER, kind, *fields, deadline=deadline)
            except BrokerGone:
                if deadline.expired() or self._stopped:
                    raise

    def detach(
        self,
        key: bytes,
        holder: bytes,
        consumed: int | Pocket | None,
        channel: Channel | None,
        closed: bool = False,
    ) -> None:
        """Take an object off its connection. `consumed`: what it has read in total, or what knows. `closed`:
        the program called `close()`; else the object was collected. Safe in finalizers: only queues the
        order."""
        self._detached.append((key, holder, consumed, channel, closed and not self.program_ends))
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

    @property
    def control_id(self) -> bytes:
        return self.control.identity if self.control is not None else b""

    # the thread

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"x")

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except Exception as error:
                log.error(
                    "an error in the control thread: %s: %s", type(error).__name__, error, exc_info=error
                )
                self._pause.wait(0.1)
        self._send_detached()

    def _turn(self) -> None:
        control = self.control
        assert control is not None
        poller = zmq.Poller()
        poller.register(control.socket, zmq.POLLIN)
        poller.register(self._wake_r, zmq.POLLIN)
        if self._broker_fd >= 0:
            poller.register(self._broker_fd, zmq.POLLIN)
        beat_at = time.monotonic() + BEAT_S
        while not self._stopped:
            events = dict(poller.poll(max(0, int((beat_at - time.monotonic()) * 1000))))
            if control is not self.control:
                return
            if self._wake_r in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            self._send_detached()
            if self._leaving and self._asked_leave != self.generation:
                self._asked_leave = self.generation
                # answered when all that was sent before it has been heard
                control.send(BROKER, Kind.HELLO, LEAVING, (os.getpid(),))
            while (received := control.receive(0)) is not None:
                self._heard = time.monotonic()
                self._handle(control, received)
            lost = self._broker_fd in events or time.monotonic() - self._heard > BEAT_S * (MISSES + 1)
            if lost and not self._stopped:
                self._broker_lost()
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

    def _acknowledge_idle(self, control: Channel) -> None:
        """Apart from `_turn`, whose variables live on: one of them would keep an object from its end."""
        for connection in list(self.connections):
            connection._idle_ack(control)

    def _send_detached(self) -> None:
        control = self.control
        while self._sayings and control is not None:
            key, kind, fields = self._sayings.popleft()
            with contextlib.suppress(zmq.ZMQError):
                control.send(key, kind, 0, fields)
        while self._detached and control is not None:
            key, holder, consumed, channel, closed = self._detached[0]
            if isinstance(consumed, Pocket):
                consumed = consumed.consumed_at_end()
            order = (key, holder, consumed, closed)
            self._said.append((time.monotonic(), order))
            self._detached.popleft()  # not before: at any moment it is found in one of the two
            with contextlib.suppress(zmq.ZMQError):
                control.send(BROKER, Kind.DETACH, 0, order)
            if channel is not None:
                channel.close()

    def _handle(self, control: Channel, received: Received) -> None:
        sender, kind, request_id, fields, _ = received
        if kind is Kind.RECALL:
            holder, epoch, elsewhere = messages.Recall(*fields)
            for connection in list(self.connections):
                if connection._holder_id == holder:
                    given = connection._recall(epoch, elsewhere)
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

    # the broker

    def _join_broker(self, deadline: Deadline) -> None:
        """Find or start the broker and introduce this process to it."""
        old, self.control = self.control, None
        if old is not None:
            old.close()
        while True:
            ensure_broker(self.address, deadline)
            if started := endpoint.holder(endpoint.folder_of(self.address)):
                adopt(started)  # before its welcome: it may be killed before that
            self.generation += 1
            control = self.control = self.channel()
            control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))
            welcome = self._await_welcome(control, deadline)
            if welcome is not None:
                break
            control.close()  # one that was just ending: the next one has not heard of us
        self._heard = time.monotonic()
        pid = int(welcome[3][0])
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._broker_fd = os.pidfd_open(pid)
        self._joined = self.generation

    def _await_welcome(self, control: Channel, deadline: Deadline) -> Received | None:
        """The broker's answer; None when it has ended instead."""
        while True:
            received = control.receive(min(SLICE_S, deadline.left()))
            if received is not None and received[1] is Kind.WELCOME:
                return received
            if self._stopped:
                raise BrokerGone("trunkline was shut down in this process")
            if deadline.expired():
                raise BrokerGone(
                    f"the broker at {self.address} does not answer; `trunkline doctor` tells more"
                )
            if received is None and not endpoint.alive(self.address):
                return None

    def left(self, generation: int) -> bool:
        """Whether the broker of this generation is lost: nothing will be answered by it."""
        return self._stopped or generation != self.generation or self.broker_ended()

    def settle(self, deadline: Deadline) -> None:
        """Wait until there is a broker that knows this process. BrokerGone at the deadline."""
        while self._joined != self.generation or self.broker_ended():
            if self._stopped:
                raise BrokerGone("trunkline was shut down in this process")
            if deadline.expired():
                raise BrokerGone(f"the broker at {self.address} was lost and no other could be reached yet")
            self._pause.wait(min(SETTLE_LOOK_S, deadline.left()))

    def broker_ended(self) -> bool:
        """Whether the present broker's process is gone, before the control thread has acted on it."""
        fd = self._broker_fd
        if fd < 0:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def _broker_lost(self) -> None:
        """Start over with another broker; the workers do the same and keep what they have."""
        log.warning("the broker was lost; another one takes over")
        lost_at = time.monotonic()
        self.generation += 1  # no socket of the lost broker may come to speak with the next one
        self._close_broker_fd()
        said = ""
        while not self._stopped:
            try:
                self._join_broker(Deadline(5))
                self._detach_again()
                break
            except BrokerGone as error:
                if str(error) != said and not self._stopped:
                    said = str(error)
                    log.error("%s", error)
                self.generation += 1
                self._pause.wait(RETRY_S)
        if not self._stopped:
            log.warning("another broker has taken over after %.1f s", time.monotonic() - lost_at)
        self._rejoin_all()

    def _detach_again(self) -> None:
        """What was closed just before the broker was lost: it may not have heard it."""
        control = self.control
        assert control is not None
        for order in self._said_lately():
            control.send(BROKER, Kind.DETACH, 0, order)

    def _said_lately(self) -> list[tuple[bytes, bytes, int | None, bool]]:
        """The orders to detach that a broker lost just now may not have carried out."""
        return [order for when, order in list(self._said) if time.monotonic() - when < SAID_S]

    def _rejoin_all(self) -> None:
        for connection in list(self.connections):
            if self._stopped or self.broker_ended():
                return  # the next turn sees it
            if connection._stale():
                connection._rejoin()
            self._heard = time.monotonic()  # it may have taken long, with nobody listening here

    def _close_broker_fd(self) -> None:
        fd, self._broker_fd = self._broker_fd, -1
        if fd >= 0:
            os.close(fd)

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
        self._stopped = True
        self._pause.set()
        self._wake()
        assert self._thread is not None
        self._thread.join(5)
        limit = Deadline(LEAVE_S)
        if (
            not self._thread.is_alive()
            and all(connection._left(limit) for connection in connections)
            and self._unused(limit)
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
            self.settle(until)
            if generation != self.generation:
                generation, patience = self.generation, Deadline(LEAVE_S)
                self._wake()
            elif patience.expired():
                return  # it lives and is silent: what was sent it hears when it goes on
            self._heard_out.wait(SETTLE_LOOK_S)

    def _release(self) -> None:
        self._stopped = True
        self._close_broker_fd()
        if self.control is not None:
            with contextlib.suppress(zmq.ZMQError):
                self.control.send(BROKER, Kind.BYE, 0, ())
            # The last words: what was detached. A broker that has never answered is not waited for.
            self.control.socket.close(linger=300 if self._joined == self.generation else 0)
        while self._pool:
            self._pool.pop().close()
        pipe = self._wake_r, self._wake_w
        self._wake_r = self._wake_w = -1  # a finalizer that comes late must not write into another's file
        for fd in pipe:
            if fd >= 0:
                os.close(fd)
        if hasattr(self, "context"):
            self.context.destroy(linger=300)


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
        raise BrokerGone("another thread waits for the broker to start; it was not ready in the time allowed")
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
