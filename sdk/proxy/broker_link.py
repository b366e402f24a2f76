"""The link to the broker, shared by all objects of a process: the control socket and a pool of
sockets for requests.

A broker may be lost, and another broker takes over at the same address. `generation` counts the
brokers: a socket of a former generation is thrown away. Only the control thread
(`trunkline.proxy.process`) calls `join` and `replace_broker`, and before it runs, the thread that
makes the client. Any thread may call the other methods.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, from_wire
from trunkline.proxy.launch import broker_address, ensure_broker
from trunkline.proxy.members import Members
from trunkline.proxy.orphans import adopt
from trunkline.proxy.route import SLICE_S, Received, RouterRoute, unanswered, unknown
from trunkline.system.limits import make_context
from trunkline.wire import endpoint, messages
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["ANSWER_S", "BrokerLink"]

log = logging.getLogger("trunkline")

RETRY_S = 0.5
"""Seconds between two attempts to join another broker."""
SETTLE_LOOK_S = 0.02
"""Seconds between two looks of a wait for the control thread or for other threads."""
SPARE_FDS = 128
"""The limit of file descriptors is raised when fewer than so many are free."""
FEW_FDS = 16
"""No further connection is opened when fewer than so many file descriptors are free."""
ANSWER_S = 15.0
"""Seconds for an answer of the broker. A broker answers its own requests at once; a broker that
takes longer hangs."""


class BrokerLink:
    """The link of one process to its broker. `count_objects` tells how many connections the process
    has.

    `open_context` takes the first resources of the operating system; `release` and `end_context`
    give all of them back.
    """

    def __init__(self, count_objects: Callable[[], int]) -> None:
        self._count_objects = count_objects
        self.address: str = broker_address()
        self.generation: int = 0
        self._joined = 0
        """The generation of the broker that knows this process."""
        self.control: RouterRoute | None = None
        """The control socket, used by the control thread."""
        self.broker_fd: int = -1
        """A pidfd, readable after the end of the broker's process; -1 where the system has no
        pidfd."""
        self.heard_at: float = 0.0
        """When the control thread heard the broker last, on the monotonic clock."""
        self.stopped: bool = False
        """`stop` was called: every wait ends soon."""
        self._pause = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._pool: deque[RouterRoute] = deque()
        """Idle sockets for requests. A thread takes a socket for a request and returns the socket
        after the answer."""
        self._routers: Members[RouterRoute] = Members()
        """All living sockets, so that `is_unused` can tell whether a thread is inside one of
        them."""
        self._making: list[object] = []
        """One entry for each thread about to add a socket to `_routers`."""
        self._request_id = 0

    def open_context(self) -> None:
        """Make the ZeroMQ context: the first step on the way to a broker. Raises BrokerGone."""
        try:
            self._context = make_context(further=1)
        except OSError as error:
            raise BrokerGone(f"no connection can be had: {error.strerror}") from None
        self._context.set(zmq.MAX_SOCKETS, 65535)

    def stop(self) -> None:
        """Let every wait end soon, and let no new wait begin."""
        self.stopped = True
        self._pause.set()

    def pause(self, seconds: float) -> None:
        """Wait so many seconds, or until `stop`."""
        self._pause.wait(seconds)

    # sockets and requests, from any thread

    def request(
        self,
        to: bytes,
        kind: Kind,
        *fields: Any,
        body: Sequence[bytes] = (),
        deadline: Deadline,
        part: Callable[[bytes], None] | None = None,
    ) -> list[bytes]:
        """Send a request through the router and return the body of its answer.

        `to`: the id of a connection, or BROKER. `part` takes the parts of the answer that come
        before its end. Raises the other side's error, the error of `unanswered` at the deadline,
        the error of `unknown` when the broker is lost.
        """
        router = self._borrow()
        self._request_id = request_id = (self._request_id + 1) & 0x7FFFFFFF
        try:
            router.send(to, kind, request_id, fields, *body)
            answer = self._await(router, request_id, deadline, kind, part)
        except BaseException:
            router.close()  # so that an answer that comes later is not taken for the next one
            raise
        self._pool.append(router)
        if answer.kind is Kind.ERROR:
            raise from_wire(messages.Error(*answer.fields).error)
        return answer.body

    def _await(
        self,
        router: RouterRoute,
        request_id: int,
        deadline: Deadline,
        kind: Kind,
        part: Callable[[bytes], None] | None,
    ) -> Received:
        """Wait for the answer with this id, in slices, to notice a lost broker."""
        while True:
            received = router.receive(max(0.001, min(SLICE_S, deadline.left())))
            if received is not None:
                if received.request_id != request_id:
                    continue
                if part is None or received.kind is not Kind.PART:
                    return received
                part(received.body[0])
            elif deadline.expired():
                raise unanswered(kind)
            elif router.generation != self.generation or self.stopped:
                raise unknown(kind)

    def _borrow(self) -> RouterRoute:
        """Take an idle socket of the present generation from the pool, or make one."""
        while self._pool:
            with contextlib.suppress(IndexError):
                router = self._pool.pop()
                if router.generation == self.generation:
                    return router
                router.close()
        return self.new_router_route()

    def new_router_route(self) -> RouterRoute:
        """A new socket to the present broker. BrokerGone after `stop`, and without a free file
        descriptor."""
        making = object()
        self._making.append(making)
        try:
            if self.stopped:
                raise BrokerGone("trunkline was shut down in this process")
            assert self._context is not None
            router = RouterRoute(self._context, self.address, self.generation)
            self._routers.add(router)
        finally:
            self._making.remove(making)
        try:
            self._make_room(int(router.socket.getsockopt(zmq.FD)))
        except BaseException:
            router.close()
            raise
        return router

    def is_unused(self, limit: Deadline) -> bool:
        """After `stop`: whether no thread is inside a socket any more, waiting until `limit` at
        most.

        A thread in a dial or a request notices `stopped` within a slice of its wait.
        """
        while True:
            # Read before `_routers`: a thread that is no longer in `_making` has added its socket.
            making = bool(self._making)
            idle = {id(router) for router in (self.control, *list(self._pool))}
            if not making and all(router.closed or id(router) in idle for router in self._routers):
                return True
            if limit.expired():
                return False
            time.sleep(min(SETTLE_LOOK_S, limit.left()))

    def _make_room(self, fd: int) -> None:
        """Raise the process's soft limit of open files when few file descriptors are left.

        Each connection takes a handful of file descriptors, and the usual soft limit is 1024.
        BrokerGone near the hard limit: beyond, ZeroMQ fails to connect without an error.
        """
        # Each object needs a further descriptor for its first request.
        used = fd + self._count_objects()
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
        """Ask the broker. Ask the next broker again when the broker is lost meanwhile.

        For questions that may be asked twice. Raises the broker's error; OperationTimeout or
        BrokerGone at the deadline (default: 15 s).
        """
        deadline = deadline or Deadline(ANSWER_S)
        while True:
            self.settle(deadline)
            try:
                return self.request(BROKER, kind, *fields, deadline=deadline)
            except BrokerGone:
                if deadline.expired() or self.stopped:
                    raise

    @property
    def control_id(self) -> bytes:
        """The name of the control socket at the broker; empty without one."""
        return self.control.identity if self.control is not None else b""

    # which broker it is

    def join(self, deadline: Deadline) -> None:
        """Find or start the broker, and introduce this process to it. Raises BrokerGone."""
        old, self.control = self.control, None
        if old is not None:
            old.close()
        while True:
            ensure_broker(self.address, deadline)
            if started := endpoint.holder(endpoint.folder_of(self.address)):
                adopt(started)  # now, because the broker may be killed before its WELCOME
            self.generation += 1
            control = self.control = self.new_router_route()
            control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))
            welcome = self._await_welcome(control, deadline)
            if welcome is not None:
                break
            # That broker was just ending. The next one does not know this process.
            control.close()
        self.heard_at = time.monotonic()
        pid = int(messages.Welcome(*welcome.fields).pid)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.broker_fd = os.pidfd_open(pid)
        self._joined = self.generation

    def _await_welcome(self, control: RouterRoute, deadline: Deadline) -> Received | None:
        """Return the broker's WELCOME; None when the broker has ended instead. BrokerGone at the
        deadline."""
        while True:
            received = control.receive(min(SLICE_S, deadline.left()))
            if received is not None and received.kind is Kind.WELCOME:
                return received
            if self.stopped:
                raise BrokerGone("trunkline was shut down in this process")
            if deadline.expired():
                raise BrokerGone(
                    f"the broker at {self.address} does not answer; `trunkline doctor` tells more"
                )
            if received is None and not endpoint.alive(self.address):
                return None

    def left(self, generation: int) -> bool:
        """Whether the broker of this generation is lost and cannot answer any more."""
        return self.stopped or generation != self.generation or self.broker_ended()

    def settle(self, deadline: Deadline) -> None:
        """Wait for a broker that knows this process. BrokerGone at the deadline."""
        while self._joined != self.generation or self.broker_ended():
            if self.stopped:
                raise BrokerGone("trunkline was shut down in this process")
            if deadline.expired():
                raise BrokerGone(
                    f"the broker at {self.address} was lost and no other could be reached yet"
                )
            self._pause.wait(min(SETTLE_LOOK_S, deadline.left()))

    def broker_ended(self) -> bool:
        """Whether the present broker's process has ended. True even before the control thread has
        noticed."""
        fd = self.broker_fd
        if fd < 0:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def replace_broker(self, after_join: Callable[[], None]) -> None:
        """Join another broker in place of a lost one, then call `after_join`.

        The workers keep their links and buffers, and join the other broker by themselves. Returns
        when that is done, or after `stop`.
        """
        log.warning("the broker was lost; another one takes over")
        lost_at = time.monotonic()
        # ZeroMQ reconnects the old sockets to the same address, where the next broker listens. The
        # new generation has these sockets thrown away.
        self.generation += 1
        self._close_broker_fd()
        said = ""
        while not self.stopped:
            try:
                self.join(Deadline(5))
                after_join()
                break
            except BrokerGone as error:
                if str(error) != said and not self.stopped:
                    said = str(error)
                    log.error("%s", error)
                self.generation += 1
                self._pause.wait(RETRY_S)
        if not self.stopped:
            log.warning("another broker has taken over after %.1f s", time.monotonic() - lost_at)

    def _close_broker_fd(self) -> None:
        """Close the pidfd. The attribute is cleared first, so that no thread polls a closed
        descriptor's number."""
        fd, self.broker_fd = self.broker_fd, -1
        if fd >= 0:
            os.close(fd)

    def release(self) -> None:
        """Leave the broker and close all sockets. No thread may be inside a socket."""
        self.stopped = True
        self._close_broker_fd()
        if self.control is not None:
            with contextlib.suppress(zmq.ZMQError):
                self.control.send(BROKER, Kind.BYE, 0, ())
            # The linger lets the last messages out: the orders to detach. A broker that has never
            # answered is not waited for.
            self.control.socket.close(linger=300 if self._joined == self.generation else 0)
        while self._pool:
            self._pool.pop().close()

    def end_context(self) -> None:
        """End the ZeroMQ context: the last step. Takes 0.3 s at most."""
        if self._context is not None:
            self._context.destroy(linger=300)
