"""Requests to a worker over sockets of their own (`trunkline.actors.process.door` serves the
sockets).

A socket carries one request at a time. Each waiting thread uses a socket of its own. After the
answer the socket is idle, and the next request uses the socket again.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokerGone,
    OperationTimeout,
    OutcomeUnknown,
    Unconfirmed,
    WorkerDied,
    from_wire,
)
from trunkline.proxy.routes.router import SLICE_S
from trunkline.wire import messages
from trunkline.wire.envelope import STATEMENTS, Kind, header, kind_of, parse
from trunkline.wire.framing import Unframer, frame

__all__ = ["NoDoor", "NotTaken", "RequestRoute", "unanswered"]

KEEP = 8
"""The greatest number of idle sockets."""
_SLICE = struct.pack("ll", 0, int(SLICE_S * 1e6))
"""`SLICE_S` as a `struct timeval`: the limit of each wait of a socket, after which the deadline is
checked."""


class NoDoor(Exception):
    """The worker cannot be reached directly (now), and nothing was sent: go through the router."""


class NotTaken(WorkerDied):
    """The worker ended, and certainly had not read the request."""


class RequestRoute:
    """Requests to one worker over the door at `path`. Any thread may call its methods.

    The threads share the idle sockets only. `deque.append` and `deque.pop` are atomic, so no lock
    is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._idle: deque[tuple[socket.socket, Unframer]] = deque()
        self._request_id = 0

    def request(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes,
        deadline: Deadline,
        stop: Callable[[], bool],
        part: Callable[[bytes], None] | None = None,
    ) -> list[bytes]:
        """Send a request and return the body of its answer.

        `stop` says whether the object was closed. `part` takes the parts of the answer before the
        last. Raises the worker's error; NoDoor when nothing could be sent; OperationTimeout,
        Unconfirmed or OutcomeUnknown at the deadline; OutcomeUnknown or WorkerDied when the worker
        ended before it answered.
        """
        self._request_id = request_id = (self._request_id + 1) & 0x7FFFFFFF
        data = frame(header(kind, request_id, *fields), body)
        sock, unframer = self._send(data, deadline)
        try:
            answer = self._await(sock, unframer, request_id, deadline, stop, kind, part)
        except BaseException:
            sock.close()
            raise
        if len(self._idle) < KEEP:
            self._idle.append((sock, unframer))
        else:
            sock.close()
        if stop():
            # Another thread has closed the object meanwhile. It could not see this socket, which
            # was not idle then.
            self.close()
        head, content = answer
        found, _, given = parse(head)
        if found is Kind.ERROR:
            raise from_wire(messages.Error(*given).error)
        return [content]

    def _send(self, data: bytes, deadline: Deadline) -> tuple[socket.socket, Unframer]:
        """Send on an idle socket, else on a new one: the worker may have been replaced. Returns the
        socket."""
        while True:
            try:
                sock, unframer = self._idle.pop()
            except IndexError:
                sock, unframer = self._connect(), Unframer()
                try:
                    _send_all(sock, data, deadline)
                except BaseException:
                    # Half a message may have been sent: the socket cannot be used again.
                    sock.close()
                    raise
                return sock, unframer
            try:
                if _alive(sock):
                    _send_all(sock, data, deadline)
                    return sock, unframer
            except NoDoor:
                pass
            except BaseException:
                sock.close()
                raise
            sock.close()

    def _connect(self) -> socket.socket:
        """Connect to the door. NoDoor when that fails."""
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # no descriptor is left
            raise NoDoor from error
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SLICE)
            # The limit holds for `connect` too, which waits while the door's backlog is full.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SLICE)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise NoDoor from error
        return sock

    def _await(
        self,
        sock: socket.socket,
        unframer: Unframer,
        request_id: int,
        deadline: Deadline,
        stop: Callable[[], bool],
        kind: Kind,
        part: Callable[[bytes], None] | None,
    ) -> tuple[bytes, bytes]:
        """Wait for the answer with this id. Returns its header and its body."""
        sliced = deadline.left() >= SLICE_S
        if not sliced:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(deadline.left()))
        try:
            while True:
                try:
                    chunk = sock.recv(65536)
                except BlockingIOError:
                    if deadline.expired():
                        raise unanswered(kind) from None
                    if stop():
                        raise WorkerDied(
                            "the connection was closed while a request waited"
                        ) from None
                    continue
                except OSError as error:
                    if isinstance(error, ConnectionResetError) and sys.platform == "linux":
                        # On Linux, a closed unix socket with unread bytes resets the connection, so
                        # the worker had not read the whole request.
                        self.close()
                        raise NotTaken("the worker ended before it took the request") from None
                    chunk = b""
                if not chunk:
                    # The kernel closes the sockets of a killed process one by one, so the idle
                    # sockets may still look alive.
                    self.close()
                    raise _died(kind)
                for head, body in unframer.feed(chunk):
                    if parse(head)[1] != request_id:
                        continue
                    if part is None or kind_of(head) != Kind.PART:
                        return head, body
                    part(body)
        finally:
            if not sliced:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SLICE)

    def close(self) -> None:
        """Close the idle sockets. A socket in use is closed by its thread when `stop` says so."""
        while self._idle:
            try:
                self._idle.pop()[0].close()
            except IndexError:
                return

    def __del__(self) -> None:
        try:  # noqa: SIM105 - at the end of the interpreter contextlib may be gone
            self.close()
        except AttributeError:  # Ctrl-C came while it was made
            pass


def _timeval(seconds: float) -> bytes:
    """Seconds as a `struct timeval`: 1 ms at least, for 0 would mean no limit."""
    micros = max(1000, int(seconds * 1e6))
    return struct.pack("ll", micros // 1_000_000, micros % 1_000_000)


def _alive(sock: socket.socket) -> bool:
    """Whether the worker still has its end of an idle socket open. Between requests nothing is
    readable."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _send_all(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send all bytes. NoDoor when nothing could be sent, WorkerDied when the worker took only a
    part."""
    view = memoryview(data)
    began = False
    while view:
        try:
            view = view[sock.send(view) :]
            began = True
        except BlockingIOError:
            if deadline.expired():
                raise OperationTimeout(
                    "the worker did not take the request in the time allowed"
                ) from None
            time.sleep(0)
        except OSError:
            if began:  # a worker never carries out a part of a message
                raise WorkerDied("the worker of this connection is gone") from None
            raise NoDoor from None


def unanswered(kind: Kind) -> OperationTimeout | OutcomeUnknown:
    """The error for a request without an answer at the deadline.

    A stopped worker does not begin a request after its deadline. A worker that had begun
    may have carried the request out.
    """
    if kind in STATEMENTS:
        return OutcomeUnknown(
            "no answer in the time allowed: the statement may or may not have taken effect; "
            "look before you run it again"
        )
    if kind in (Kind.WRITE, Kind.REQUEST):
        return Unconfirmed("no answer in the time allowed: the data may or may not have been sent")
    return OperationTimeout("no answer in the time allowed")


def unknown(kind: Kind) -> BrokerGone | OutcomeUnknown | Unconfirmed:
    """The error for a request on its way through a broker when the broker was lost."""
    if kind in STATEMENTS:
        return OutcomeUnknown(
            "the broker was lost while the statement ran: it may or may not have taken effect; "
            "look before you run it again"
        )
    if kind in (Kind.WRITE, Kind.REQUEST):
        return Unconfirmed("the broker was lost meanwhile: the data may or may not have been sent")
    return BrokerGone("the broker was lost; whether the request was carried out is unknown")


def _died(kind: Kind) -> WorkerDied | OutcomeUnknown:
    """The error for a request whose worker ended before it answered."""
    if kind in STATEMENTS:
        return OutcomeUnknown(
            "the worker ended while the statement ran: it may or may not have taken effect; "
            "look before you run it again"
        )
    return WorkerDied("the worker of this connection ended before it answered")
