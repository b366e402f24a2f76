"""Which way a message goes between a program and its worker; no other module knows.

There are three ways. The router: every object has a socket to the broker, which passes messages on
and tells of the worker's end. The stream: a socket straight to the worker, for the messages that
are read. Requests: sockets straight to the worker, one for each thread that waits for an answer.
Where the worker's door cannot be used (another machine, a full disk), everything goes through the
router, with the same results.

The stream and the router's socket are used by one thread at a time, the one that has the holder's
turn. `say_last`, `wake_reader`, `request`, `try_request` and `close_requests` may be called by any
thread.
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
"""Takes a part of an answer that comes before its end."""


class Broker(Protocol):
    """The part of the client that a route uses."""

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
    """The ways from one object to its worker. `router` is the object's socket at the router of
    `client`'s broker, `key` the id of its connection."""

    __slots__ = ("_client", "_goes_by_router", "_key", "_requests", "_router", "_source", "_stream")

    def __init__(self, client: Broker, router: RouterRoute, key: bytes) -> None:
        self._client = client
        self._router: RouterRoute | None = router
        self._key = key
        self._requests = RequestRoute(endpoint.door(client.address, key))
        self._stream: StreamRoute | None = None
        self._source: StreamRoute | RouterRoute | None = None
        """Where the message came from that `peek` gave last."""
        self._goes_by_router = False
        """The worker's door could not be used when it was tried last."""

    # joining and leaving

    def join(self, client: Broker, router: RouterRoute, key: bytes) -> None:
        """Use another socket at the router: of another broker, or in a forked child. The stream
        stays."""
        self._client, self._key, self._router = client, key, router

    def renew_requests(self) -> None:
        """Send requests to the worker of the key that was joined last."""
        self._requests.close()
        self._requests = RequestRoute(endpoint.door(self._client.address, self._key))

    @property
    def router(self) -> RouterRoute | None:
        """The socket at the router, to hand it to the client when the object leaves; None in a
        forked child that has not joined yet, and after the end."""
        return self._router

    @property
    def is_joined(self) -> bool:
        """Whether there is a socket at the router, of a former broker perhaps."""
        return self._router is not None

    def is_stale(self) -> bool:
        """Whether the broker of the socket was lost, and the object has not joined the next one
        yet."""
        router = self._router
        return router is None or router.generation != self._client.generation

    def mark_stale(self) -> None:
        """Have the control thread join the connection anew when it looks next."""
        router = self._router
        if router is not None:
            router.generation = -1

    def is_torn(self) -> bool:
        """Whether an exception has broken off sending or receiving: part of a message may be
        lost."""
        stream, router = self._stream, self._router
        return (stream is not None and stream.torn) or (router is not None and router.torn)

    def give_up(self) -> RouterRoute | None:
        """Close the stream, and return the socket at the router, which is not closed."""
        router, self._router = self._router, None
        self.close_stream()
        return router

    def close(self) -> None:
        """Close the stream and the socket at the router."""
        router = self.give_up()
        if router is not None:
            router.close()

    def leave_to_parent(self) -> RouterRoute | None:
        """In a forked child: close this process's copies. Returns the parent's socket at the
        router, which must not be closed here."""
        self._requests.close()
        self._goes_by_router = False
        return self.give_up()

    # the stream

    def open_stream(self) -> bool:
        """Connect to the worker's door unless that is done; whether there is a stream now that was
        not before. Without a door, the router is used until `try_door_again`."""
        if self._stream is not None:
            return False
        try:
            self._stream = StreamRoute(endpoint.door(self._client.address, self._key), self._key)
        except (OSError, BrokerGone):
            self._goes_by_router = True
            return False
        return True

    def close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def try_door_again(self) -> None:
        """Another worker takes over: it may have a door."""
        self._goes_by_router = False

    @property
    def has_stream(self) -> bool:
        return self._stream is not None

    @property
    def is_chosen(self) -> bool:
        """Whether it is known which way the stream takes: over a socket of its own or through the
        router."""
        return self._stream is not None or self._goes_by_router

    def fileno(self) -> int | None:
        """The descriptor that becomes readable when something has come; None where there is no
        stream."""
        stream = self._stream
        return stream.fileno() if stream is not None else None

    # messages

    def send(self, kind: Kind, *fields: Any) -> None:
        """Tell the worker something that it does not answer. Never waits. Dropped where neither way
        is open: who joins anew says all that matters again."""
        stream, router = self._stream, self._router
        if stream is not None:
            stream.send(kind, fields)
        elif router is not None and not self.is_stale():
            router.send(self._key, kind, 0, fields)

    def flush(self) -> None:
        """Send what a busy worker has not taken yet, as far as it takes it now."""
        stream = self._stream
        if stream is not None:
            stream.flush()

    def has_unsent(self) -> bool:
        """Whether something that was sent is still here: the worker has not taken it yet."""
        stream = self._stream
        return stream is not None and stream.unsent

    def say_last(self, kind: Kind, *fields: Any) -> None:
        """Tell the worker something although this process may end next; only where there is a
        stream."""
        stream = self._stream
        if stream is not None:
            stream.last_word(kind, fields)

    def wake_reader(self) -> None:
        """End the wait of the thread that is in `peek`, where there is a stream."""
        stream = self._stream
        if stream is not None:
            stream.shut()

    def peek(self, timeout_s: float) -> Received | None:
        """The next message from the worker, or from the broker about it, after at most so many
        seconds; None when there is none. It stays the next one until `done`: what an exception
        breaks off is done again."""
        stream = self._stream
        if stream is not None:
            self._source = stream
            try:
                return stream.peek(timeout_s)
            except EOFError:
                self._stream = None
                stream.close()
        router = self._router
        if router is None or self.is_stale():
            return None
        self._source = router
        return router.peek(timeout_s)

    def done(self) -> None:
        """What `peek` gave was dealt with, unless that has put an end to where it came from."""
        source = self._source
        if source is not None and (source is self._stream or source is self._router):
            source.done()

    def peek_stream(self) -> Received | None:
        """What has come over the stream and not through the router; None where the stream has ended
        or was torn."""
        stream = self._stream
        if stream is None or stream.torn:
            return None
        received = self.peek(0)
        return received if self._source is stream else None

    def is_quiet(self) -> bool:
        """Whether surely nothing has come; False also where only `peek` can tell."""
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
        """Send a request and return the body of its answer. `stop` says whether the object was
        closed.

        Raises what the worker answered; OperationTimeout at the deadline; WorkerDied,
        OutcomeUnknown or BrokerGone when worker or broker are lost meanwhile.
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
        """As `request`, but None where it is certain that no worker has begun with the request, as
        between a crashed worker and the next one, and `patience` is not over. `part` takes what of
        the answer comes before its end. `can_redial`: a connection that the broker does not know
        may come again."""
        try:
            return self._requests.request(kind, fields, body, deadline, stop, part)
        except NoDoor as error:
            # The socket of a worker that is gone; the router may not know it yet and lose the
            # request.
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
        except DeadHandle:  # of a broker that took over from one that was lost with the worker
            if not can_redial or patience.expired():
                raise
        return None

    def close_requests(self) -> None:
        """Close the sockets for requests that no thread uses now."""
        self._requests.close()
