"""The way to the broker that all objects of this process share: the control socket, a few sockets
for requests, and which broker it is.

A broker may be lost and another one take over, at the same address. `generation` counts them: a
socket of a former generation is thrown away. `join` and `replace_broker` are for the control thread
(`trunkline.proxy.process`), and for the thread that makes the client; the rest may be called by any
thread.
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
SETTLE_LOOK_S = 0.02
SPARE_FDS = 128
FEW_FDS = 16
ANSWER_S = 15.0
"""The broker answers its own requests at once; more than this is a broker that hangs."""


class BrokerLink:
    """See the module. `count_objects` tells how many connections the process has.

    Nothing is taken of the system before `open_context`; `release` and `end_context` give all of it
    back."""

    def __init__(self, count_objects: Callable[[], int]) -> None:
        self._count_objects = count_objects
        self.address: str = broker_address()
        self.generation: int = 0
        self._joined = 0
        """The generation of the broker that knows this process."""
        self.control: RouterRoute | None = None
        """The control socket: the control thread's."""
        self.broker_fd: int = -1
        """Becomes readable when the broker's process ends; -1 where the system has no such
        descriptor."""
        self.heard_at: float = 0.0
        """When the control thread heard the broker last, on the monotonic clock."""
        self.stopped: bool = False
        self._pause = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._pool: deque[RouterRoute] = deque()
        self._routers: Members[RouterRoute] = Members()
        self._making: list[object] = []
        """One entry for each thread that is about to add to `_routers`."""
        self._request_id = 0

    def open_context(self) -> None:
        """The first step of the process's way to a broker. Raises BrokerGone."""
        try:
            self._context = make_context(further=1)
        except OSError as error:
            raise BrokerGone(f"no connection can be had: {error.strerror}") from None
        self._context.set(zmq.MAX_SOCKETS, 65535)

    def stop(self) -> None:
        """Every wait ends soon, and nothing new begins."""
        self.stopped = True
        self._pause.set()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until `stop`."""
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
        """Send a request and return the body of its answer; `part` takes what of it comes before.
        Raises what the other side answered, OperationTimeout at the deadline, BrokerGone when the
        broker is lost meanwhile."""
        router = self._borrow()
        self._request_id = request_id = (self._request_id + 1) & 0x7FFFFFFF
        try:
            router.send(to, kind, request_id, fields, *body)
            answer = self._await(router, request_id, deadline, kind, part)
        except BaseException:
            router.close()  # whatever still comes is for nobody
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
        while self._pool:
            with contextlib.suppress(IndexError):
                router = self._pool.pop()
                if router.generation == self.generation:
                    return router
                router.close()
        return self.new_router_route()

    def new_router_route(self) -> RouterRoute:
        """A new socket to the present broker."""
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
        """After `stop`: whether no thread is in a socket any more. A thread that dials
        or asks sees the stop at its next look."""
        while True:
            making = bool(
                self._making
            )  # looked at first: what was made until then is among the routers
            idle = {id(router) for router in (self.control, *list(self._pool))}
            if not making and all(router.closed or id(router) in idle for router in self._routers):
                return True
            if limit.expired():
                return False
            time.sleep(min(SETTLE_LOOK_S, limit.left()))

    def _make_room(self, fd: int) -> None:
        """Each connection takes a handful of descriptors, and the usual soft limit is 1024: raise
        it, step by step, when it comes near. BrokerGone at the hard limit, where ZeroMQ fails to
        connect, silently."""
        used = fd + self._count_objects()  # each of which needs another one for its first request
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
        """One question to the broker; asked again when it was lost meanwhile, for they can be.
        Raises what it answered; OperationTimeout or BrokerGone at the deadline (default: 15 s)."""
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
        return self.control.identity if self.control is not None else b""

    # which broker it is

    def join(self, deadline: Deadline) -> None:
        """Find or start the broker and introduce this process to it."""
        old, self.control = self.control, None
        if old is not None:
            old.close()
        while True:
            ensure_broker(self.address, deadline)
            if started := endpoint.holder(endpoint.folder_of(self.address)):
                adopt(started)  # before its welcome: it may be killed before that
            self.generation += 1
            control = self.control = self.new_router_route()
            control.send(BROKER, Kind.HELLO, 0, (os.getpid(),))
            welcome = self._await_welcome(control, deadline)
            if welcome is not None:
                break
            control.close()  # one that was just ending: the next one has not heard of us
        self.heard_at = time.monotonic()
        pid = int(messages.Welcome(*welcome.fields).pid)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self.broker_fd = os.pidfd_open(pid)
        self._joined = self.generation

    def _await_welcome(self, control: RouterRoute, deadline: Deadline) -> Received | None:
        """The broker's answer; None when it has ended instead."""
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
        """Whether the broker of this generation is lost: nothing will be answered by it."""
        return self.stopped or generation != self.generation or self.broker_ended()

    def settle(self, deadline: Deadline) -> None:
        """Wait until there is a broker that knows this process. BrokerGone at the deadline."""
        while self._joined != self.generation or self.broker_ended():
            if self.stopped:
                raise BrokerGone("trunkline was shut down in this process")
            if deadline.expired():
                raise BrokerGone(
                    f"the broker at {self.address} was lost and no other could be reached yet"
                )
            self._pause.wait(min(SETTLE_LOOK_S, deadline.left()))

    def broker_ended(self) -> bool:
        """Whether the present broker's process is gone, before the control thread has acted on
        it."""
        fd = self.broker_fd
        if fd < 0:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def replace_broker(self, after_join: Callable[[], None]) -> None:
        """The broker was lost: join another one, and call `after_join` then; the workers do the
        same and keep what they have. Returns when that is done, or after `stop`."""
        log.warning("the broker was lost; another one takes over")
        lost_at = time.monotonic()
        self.generation += 1  # no socket of the lost broker may come to speak with the next one
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
        fd, self.broker_fd = self.broker_fd, -1
        if fd >= 0:
            os.close(fd)

    def release(self) -> None:
        """Leave the broker, and close all sockets. No thread may be in one of them."""
        self.stopped = True
        self._close_broker_fd()
        if self.control is not None:
            with contextlib.suppress(zmq.ZMQError):
                self.control.send(BROKER, Kind.BYE, 0, ())
            # The last words: what was detached. A broker that has never answered is not waited for.
            self.control.socket.close(linger=300 if self._joined == self.generation else 0)
        while self._pool:
            self._pool.pop().close()

    def end_context(self) -> None:
        """The last step; ends within 0.3 s."""
        if self._context is not None:
            self._context.destroy(linger=300)
