"""The one interface to the ways between a program and its worker. No other module knows the way.

There are three ways:

* The router: every holder has a socket to the broker. The broker passes messages on, and tells of
  the worker's end.
* The stream: a socket straight to the worker's door, for the messages to be read.
* Requests: sockets straight to the worker's door, one for each thread waiting for an answer.

Where the worker's door cannot be used (another machine, a full disk), every message goes through
the router, with the same results.

Only the thread with the holder's turn uses the stream and the router's socket. Any thread may call
`say_last`, `wake_reader`, `request`, `try_request` and `close_requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone, DeadHandle, WorkerDied
from trunkline.proxy.routes.requests import NoDoor, NotTaken, RequestRoute, unanswered, unknown
from trunkline.proxy.routes.router import SLICE_S, Received, RouterRoute
from trunkline.proxy.routes.stream import StreamRoute
from trunkline.wire import endpoint
from trunkline.wire.envelope import Kind

__all__ = ["SLICE_S", "NotTaken", "Received", "Route", "RouterRoute", "unanswered", "unknown"]

Part = Callable[[bytes], None]
"""A callback for a part of an answer that comes before the answer's end."""


class Broker(Protocol):
    """The part of the client (`trunkline.proxy.broker_link`) used by a route."""

    address: str
    generation: int

    def request(
        self,
        to: bytes,
        kind: Kind,
        *fields: Any,
        body: Sequence[bytes] = (),
        deadline: Deadline,
        part: Part | None = None,
    ) -> list[bytes]: ...


class Route:
    """The ways from one holder to its worker.

    `router` is the holder's socket at the router of `client`'s broker, `key` the id of the
    connection.
    """

    __slots__ = ("_client", "_goes_by_router", "_key", "_requests", "_router", "_source", "_stream")

    def __init__(self, client: Broker, router: RouterRoute, key: bytes) -> None:
        self._client = client
        self._router: RouterRoute | None = router
        self._key = key
        self._requests = RequestRoute(endpoint.door(client.address, key))
        self._stream: StreamRoute | None = None
        self._source: StreamRoute | RouterRoute | None = None
        """The way of the message returned by the last `peek`."""
        self._goes_by_router = False
        """The worker's door could not be used when it was tried last."""

    # joining and leaving

    def join(self, client: Broker, router: RouterRoute, key: bytes) -> None:
        """Use another socket at the router: of another broker, or in a forked child. The stream
        stays open."""
        self._client, self._key, self._router = client, key, router

    def renew_requests(self) -> None:
        """Send requests to the worker of the connection joined last."""
        self._requests.close()
        self._requests = RequestRoute(endpoint.door(self._client.address, self._key))

    @property
    def router(self) -> RouterRoute | None:
        """The socket at the router, for the client to close when the holder leaves.

        None in a forked child that has not joined yet, and after the end.
        """
        return self._router

    @property
    def is_joined(self) -> bool:
        """Whether there is a socket at the router, perhaps at the router of a lost broker: see
        `is_stale`."""
        return self._router is not None

    def is_stale(self) -> bool:
        """Whether the socket's broker was lost and the holder has not joined the next broker
        yet."""
        router = self._router
        return router is None or router.generation != self._client.generation

    def mark_stale(self) -> None:
        """Have the control thread join the connection anew at its next look."""
        router = self._router
        if router is not None:
            router.generation = -1

    def is_torn(self) -> bool:
        """Whether an exception has interrupted sending or receiving: part of a message may be
        lost."""
        stream, router = self._stream, self._router
        return (stream is not None and stream.torn) or (router is not None and router.torn)

    def give_up(self) -> RouterRoute | None:
        """Close the stream. Returns the socket at the router, which stays open."""
        router, self._router = self._router, None
        self.close_stream()
        return router

    def close(self) -> None:
        """Close the stream and the socket at the router."""
        router = self.give_up()
        if router is not None:
            router.close()

    def leave_to_parent(self) -> RouterRoute | None:
        """In a forked child: close this process's copies of the sockets.

        Returns the parent's socket at the router, which must not be closed in the child: ZeroMQ's
        sockets do not survive a fork.
        """
        self._requests.close()
        self._goes_by_router = False
        return self.give_up()

    # the stream

    def open_stream(self) -> bool:
        """Connect to the worker's door, unless that is done.

        Returns True when a stream was opened. Without a door, returns False, and the router is used
        until `try_door_again`.
        """
        if self._stream is not None:
            return False
        try:
            self._stream = StreamRoute(endpoint.door(self._client.address, self._key), self._key)
        except (OSError, BrokerGone):
            self._goes_by_router = True
            return False
        return True

    def close_stream(self) -> None:
        """Close the stream. Messages then go through the router until a stream is opened again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def try_door_again(self) -> None:
        """Forget that there was no door: another worker takes over, and may have one."""
        self._goes_by_router = False

    @property
    def has_stream(self) -> bool:
        """Whether a stream is open."""
        return self._stream is not None

    @property
    def is_chosen(self) -> bool:
        """Whether the way of the stream is decided: a socket of its own, or the router."""
        return self._stream is not None or self._goes_by_router

    def fileno(self) -> int | None:
        """The stream's file descriptor, which becomes readable when a message has come. None
        without a stream."""
        stream = self._stream
        return stream.fileno() if stream is not None else None

    # messages

    def send(self, kind: Kind, *fields: Any) -> None:
        """Send the worker a message without an answer. Never waits.

        The message is dropped where neither way is open: a holder that joins anew sends all that
        matters again.
        """
        stream, router = self._stream, self._router
        if stream is not None:
            stream.send(kind, fields)
        elif router is not None and not self.is_stale():
            router.send(self._key, kind, 0, fields)

    def flush(self) -> None:
        """Send what a busy worker has not taken before, as far as the worker takes it now."""
        stream = self._stream
        if stream is not None:
            stream.flush()

    def has_unsent(self) -> bool:
        """Whether this process still keeps bytes not yet taken by the worker."""
        stream = self._stream
        return stream is not None and stream.unsent

    def say_last(self, kind: Kind, *fields: Any) -> None:
        """Send the worker a last message before this process ends. Only where there is a stream;
        any thread."""
        stream = self._stream
        if stream is not None:
            stream.last_word(kind, fields)

    def wake_reader(self) -> None:
        """End the wait of the thread that is inside `peek`, where there is a stream. For any
        thread."""
        stream = self._stream
        if stream is not None:
            stream.shut()

    def peek(self, timeout_s: float) -> Received | None:
        """The next message from the worker, or from the broker about the worker.

        `timeout_s`: seconds to wait. None when no message has come. The message stays the next one
        until `done` is called, so an interrupted caller finds the message again.
        """
        stream = self._stream
        if stream is not None:
            self._source = stream
            try:
                return stream.peek(timeout_s)
            except EOFError:
                # The worker has ended. The broker tells on the router's socket how it goes on.
                self._stream = None
                stream.close()
        router = self._router
        if router is None or self.is_stale():
            return None
        self._source = router
        return router.peek(timeout_s)

    def done(self) -> None:
        """Drop the message of the last `peek`, after dealing with it.

        Does nothing when dealing with the message has closed the way by which it came.
        """
        source = self._source
        if source is not None and (source is self._stream or source is self._router):
            source.done()

    def peek_stream(self) -> Received | None:
        """The next message that has come over the stream, without waiting. Ignores the router's
        socket.

        None when no message has come, and when the stream has ended or was torn.
        """
        stream = self._stream
        if stream is None or stream.torn:
            return None
        received = self.peek(0)
        return received if self._source is stream else None

    def is_quiet(self) -> bool:
        """Whether surely no message has come. False also where only `peek` can tell."""
        stream = self._stream
        return stream is not None and not stream.torn and stream.quiet()

    # requests

    def request(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes | None,
        deadline: Deadline,
        stop: Callable[[], bool],
    ) -> list[bytes]:
        """Send a request and return the body of its answer. For any thread.

        `stop` says whether the object was closed. Raises the worker's error; OperationTimeout at
        the deadline; WorkerDied, OutcomeUnknown or BrokerGone when worker or broker are lost.
        """
        try:
            return self._requests.request(kind, fields, body or b"", deadline, stop)
        except NoDoor:
            pass
        bodies = () if body is None else (body,)
        return self._client.request(self._key, kind, *fields, body=bodies, deadline=deadline)

    def try_request(
        self,
        kind: Kind,
        fields: tuple[Any, ...],
        body: bytes,
        deadline: Deadline,
        stop: Callable[[], bool],
        part: Part | None,
        *,
        patience: Deadline,
        can_redial: bool,
    ) -> list[bytes] | None:
        """As `request`, but returns None where certainly no worker has begun with the request.

        Such is the time between a crashed worker and the next one. The caller may then send the
        request again. After `patience` has expired, raises the error instead. `part` takes the
        parts of the answer before the last. `can_redial`: a connection that the broker
        does not know may be dialled anew.
        """
        try:
            return self._requests.request(kind, fields, body, deadline, stop, part)
        except NoDoor as error:
            # A refused connection is the door of a dead worker. The broker may not know of the
            # death yet, and would lose a request that went through the router.
            is_dead = isinstance(error.__cause__, ConnectionRefusedError)
        except WorkerDied:
            is_dead = True
        if is_dead and not patience.expired():
            return None
        try:
            return self._client.request(
                self._key, kind, *fields, body=(body,), deadline=deadline, part=part
            )
        except WorkerDied:
            if patience.expired():
                raise
        except DeadHandle:
            # The broker was lost together with the worker, and its successor does not know the
            # connection. The control thread may dial anew.
            if not can_redial or patience.expired():
                raise
        return None

    def close_requests(self) -> None:
        """Close the sockets for requests that no thread uses now."""
        self._requests.close()
