"""The proxy that a program holds: read, write, exec, query, fd, close.

It stands on `Executing` (statements), which stands on `Reader` (reading), which stands on `Holder` (its
membership in the connection).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, overload

from trunkline.deadline import Deadline
from trunkline.errors import (
    ClosedError,
    DeadHandle,
    TrunklineError,
    Unsupported,
)
from trunkline.message import Message
from trunkline.proxy import reasons
from trunkline.proxy.executing import Executing
from trunkline.proxy.pocket import EMPTY, Hand, Stamped
from trunkline.proxy.process import Client
from trunkline.proxy.reading import Call, data_of
from trunkline.proxy.result import ExecResult
from trunkline.proxy.rows import Rows
from trunkline.proxy.transaction import GRACE_S, Transaction
from trunkline.proxy.turn import Busy
from trunkline.wire import utf8, values
from trunkline.wire.envelope import Kind
from trunkline.wire.outgoing import Outgoing
from trunkline.wire.place import Place
from trunkline.wire.stats import Stats

__all__ = ["Connection", "RaisingConnection", "Transaction"]

log = logging.getLogger("trunkline")

HANDLE_S = 5.0
"""All that `fd` may take."""
SETTLED_S = 2.0
"""How long of that it waits for the worker to hear that the connection is shared now."""
WRITE_MS = 30_000
WITH_NULL = frozenset(("kafka",))
"""Schemes whose messages may have no value at all."""
SETTLE_S = 5.0
LONGEST_NAK_MS = 86_400_000
"""A verdict is carried out at once; this is for a worker that is stopped, or just replaced."""


class Connection(Executing):
    """One dialled connection; made by `Dial`, `connect` and unpickling, not by calling the class.

    Safe to use from several threads, in forked children too (a further holder there), picklable (as its
    handle), a context manager, iterable, and never falsy. Objects of `Dial` answer failure
    with a value (`None`, `""`, 0) and a line in the log; those of `connect` raise.
    """

    # writing

    def write(
        self,
        data: str | bytes | bytearray | memoryview | None,
        timeout_ms: float | None = None,
        *,
        topic: str | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, Any] | None = None,
        expiry_ms: float | None = None,
        reply_to: str | None = None,
        correlation_id: str | bytes | None = None,
    ) -> int:
        """Send one message (on a byte stream: these bytes).

        With a message broker, what is given beside the data holds for this message in place of what the
        address says: `topic` (mqtt, kafka), subject (nats) or routing key (amqp), `key` (kafka), `headers`,
        `expiry_ms` (milliseconds until the broker throws it away: amqp, mqtt version 5), `reply_to` and
        `correlation_id` (nats without the latter, amqp, mqtt version 5). A scheme that has no place for one
        of them refuses it: Unsupported. `data=None` is Kafka's null value.

        Returns the number of bytes the transport took: 0 when the link is down (nothing is sent later)
        and 0 when it took none within `timeout_ms` milliseconds (default 30 s). A message broker's driver
        returns when the broker has confirmed the message, where the protocol has that; 0 also when it refused
        the message, or did not confirm it in time. An object of `connect` raises BrokenError,
        OperationTimeout (Unconfirmed: it may have arrived), RefusedError or ClosedError instead of the 0.
        Of an empty message the 0 says nothing: `last_error()` or an object of `connect` does.
        """
        if data is None and self._scheme not in WITH_NULL:
            raise TypeError("write takes str or bytes, not NoneType")
        outgoing = Outgoing(
            topic, key, headers, expiry_ms, reply_to, correlation_id, null=data is None
        ).checked()
        return self._write(b"" if data is None else data, timeout_ms, outgoing)

    def _write(
        self, data: str | bytes | bytearray | memoryview, timeout_ms: float | None, outgoing: Outgoing
    ) -> int:
        try:
            body, text, limit, deadline = _outgoing(data, timeout_ms, "write")
            at, packed = deadline.at - GRACE_S, outgoing.pack()
            answer = self._request(Kind.WRITE, limit, text, at, packed, body=body, deadline=deadline)
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._raising:
                self._after_close("write")
            return int(self._failed(error, 0, quiet=not isinstance(error, Unsupported)))
        if not body:
            reasons.last(clear=True)  # the 0 that it returns is told from a failure by that
        return int(values.unpack(answer[0]))

    def request(
        self, data: str | bytes | bytearray | memoryview, timeout_ms: float | None = None
    ) -> str | bytes | None:
        """Send a question and wait for its answer, where the protocol has such a thing (`docs/` says which).

        Returns the answer's data as `read` would; None when none came within `timeout_ms` milliseconds
        (default 30 s), when nobody answers there and when the link is down: `last_error()` says which. An
        object of `connect` raises OperationTimeout, RefusedError, BrokenError or ClosedError instead. The
        question may have been received although no answer came.
        """
        try:
            body, text, limit, deadline = _outgoing(data, timeout_ms, "request")
            at = deadline.at - GRACE_S
            answer = self._request(Kind.REQUEST, limit, text, at, body=body, deadline=deadline)
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._raising:
                self._after_close("request")
            return self._failed(error, None, quiet=not isinstance(error, Unsupported))  # type: ignore[no-any-return]
        reply: str | bytes = values.unpack(answer[0])
        return reply

    def seek(
        self,
        offset: int | str | datetime,
        topic: str | None = None,
        partition: int | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> bool:
        """Go on reading at another place of the log, where the message broker keeps one (kafka).

        `offset` is the number of a message, `"earliest"`, `"latest"`, or a time: the first message that is
        not older (a datetime, or text such as `"2026-01-31T12:00:00Z"`). It holds for all partitions that
        this connection reads, or for those of `topic`, or for one `partition`. When it has returned True,
        the next message of these partitions is the one there, for every object that reads from this
        connection; what was on its way is discarded (`stats().skipped`). With a group the place is committed.

        False, and a reason in `last_error()`, when there is no such place, when the link is down, when it
        took longer than `timeout_ms` milliseconds (default 30 s), and where the scheme has no places. An
        object of `connect` raises RefusedError, BrokenError, OperationTimeout, Unsupported or ClosedError.
        """
        place = Place.of(offset, topic, partition)
        try:
            if self._executes:
                raise Unsupported(f"{self._scheme}:// has no seek: use exec")
            limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
            deadline = Deadline(limit / 1000 + GRACE_S)
            self._request(Kind.SEEK, limit, deadline.at - GRACE_S, *place, deadline=deadline)
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._raising:
                self._after_close("seek")
            return bool(self._failed(error, False, quiet=isinstance(error, ClosedError)))
        self._turn.run(0, self._look)  # what is here may be of a worker that has crashed meanwhile
        with self._lock:
            self._pocket.forget_former()
        return True

    # what a `Message` asks of its connection (`trunkline.message.Source`)

    def settle(self, ticket: int | None, verdict: str, delay_ms: float) -> bool:
        """Called by `Message.ack` and its like, which say what is returned and raised."""
        if isinstance(delay_ms, bool) or not isinstance(delay_ms, (int, float)):
            raise TypeError("nak takes the delay as a number of milliseconds, 0 or more")
        if not 0 <= delay_ms <= LONGEST_NAK_MS:
            raise ValueError(f"nak takes a delay from 0 to {LONGEST_NAK_MS} milliseconds (a day)")
        try:
            if ticket is None:
                raise Unsupported(
                    "this message was acknowledged when it was received: take it with receive(ack=False)"
                )
            deadline = Deadline(SETTLE_S)
            self._say_what_waits(deadline)  # that the message is kept
            self._request(Kind.SETTLE, ticket, verdict, delay_ms, deadline=deadline)
        except TrunklineError as error:
            return bool(self._failed(error, False))
        with self._lock:
            self._pocket.unsettled.pop(ticket, None)
        return True

    def answer(
        self,
        message: Message,
        data: str | bytes | bytearray | memoryview,
        timeout_ms: float | None,
        headers: Mapping[str, Any] | None,
    ) -> int:
        """Called by `Message.reply`, which says what is returned and raised."""
        known = message.properties
        correlation = known.get("correlation_id", known.get("correlation_data"))
        outgoing = Outgoing(
            topic=message.reply_to, headers=headers, correlation=correlation, answers=True
        ).checked()
        return self._write(data, timeout_ms, outgoing)

    # sharing

    def fd(self) -> int | None:
        """A handle for `Dial` in any thread or process of this broker; it cannot be guessed.

        Once taken, the connection outlives `close()` until every process that used it is gone, or
        `linger` seconds without a holder, or `trunkline kill`. None (an object of `connect` raises) when
        the connection has ended, or when the broker does not answer within 5 s.
        """
        if self._handle is None:
            deadline = Deadline(HANDLE_S)
            try:
                self._check_open()
                client = self._client_now(deadline)
                answer = client.link.ask_broker(Kind.HANDLE, self._key, deadline=deadline)
            except TrunklineError as error:
                self._failed(error, None)
                return None
            self._handle = int(values.unpack(answer[0]))
            self.await_broker_words(client, deadline)
        return self._handle

    def await_broker_words(self, client: Client, deadline: Deadline) -> None:
        """Called where a connection comes to be shared: return when the worker has heard of that from the
        broker, for the next statement may take a shorter way. No error where it does not answer in time."""
        with contextlib.suppress(TrunklineError):
            patience = Deadline(min(SETTLED_S, deadline.left()))
            client.link.request(self._key, Kind.STATS, deadline=patience)  # by the router, behind those words

    def stats(self) -> Stats:
        """The connection's figures now, as a frozen dataclass. Of a connection whose worker is gone: what
        this object knows. Never raises for the network's sake."""
        self._ack_if_idle()
        try:
            answer = self._request(Kind.STATS, deadline=Deadline(5))
            self._figures = Stats.from_wire(values.unpack(answer[0]))
            return self._figures
        except TrunklineError as error:
            state = "closed" if self._closed else "failed" if self._gone else "down"
            if self._figures is not None:
                return replace(self._figures, state=state, pid=None, last_error=str(error))
            return Stats(
                id=self._number,
                scheme=self._scheme,
                kind="database" if self._executes else "stream",
                lost_is_none=self._lost is None,
                comes_again=self._comes_again,
                peer=self._peer,
                state=state,
                last_error=str(error),
            )

    def close(self) -> None:
        """Detach this object; idempotent, never waits. The connection ends with its last object, unless
        its handle was taken with `fd()`."""
        if self._detached:
            return
        if self._pocket.unsettled:  # DETACH cannot tell what was read behind a message that is kept
            self._turn.run(0, self._say_all_in_turn)
        # Before the rest: a thread that reads gives the stream up as soon as it sees the object closed.
        if not self._client.program_ends:
            self._route.say_last(Kind.CLOSING, self._holder_id)
        with self._lock:
            if not self._closed:
                self._consumed = self._pocket.consumed_at_end()
                self._closed = True
            self._pocket.clear()
        self._route.close_requests()
        router = self._turn.run(0, self._route.give_up)
        if isinstance(router, Busy):
            router = None
            self._route.wake_reader()
        self._client.connections.discard(self)
        if router is not None or self._holder_id:
            self._client.detach(self._key, self._holder_id, self._consumed, router, True)
        self._finalizer.detach()
        self._detached = True  # only now: after a Ctrl-C `close` may be called once more

    def _left(self, limit: Deadline) -> bool:
        """After `close`: whether no thread is in the stream socket any more."""
        return self._turn.run(limit.left(), lambda: True) is True

    # the rest of being an object

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages as they come, waiting for each; outages that are mended are passed over. Ends when the
        link has ended for good or this object is closed."""
        while True:
            hand = Hand()
            try:
                taken = self._take(Call(None, hand))
                data = data_of(taken) if isinstance(taken, (str, bytes, Stamped)) else None
                over = self._pocket.ended or self._closed or taken is EMPTY
            except TrunklineError:
                raise
            except BaseException:
                self._not_returned(hand, None)
                raise
            if data is not None:
                yield data
            elif over:
                return

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        from trunkline.proxy.dial import from_handle

        handle = self.fd()
        if handle is None:
            raise DeadHandle(f"the connection to {self._peer} has ended and cannot be pickled")
        return from_handle, (handle, self._raising, self._client.link.address)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._pocket.ended or self._gone else None
        state = state or ("down" if self._pocket.down else "open")
        return f"<Connection {self._number} {self._peer} {state}>"


class RaisingConnection(Connection):
    """What `connect` returns: a `Connection` whose methods raise instead of answering failure with a value,
    so that what they return is never None for that reason."""

    if TYPE_CHECKING:

        def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> ExecResult: ...
        def executemany(self, sql: str, rows: Iterable[Any], timeout: float | None = None) -> ExecResult: ...
        def query(self, sql: str, *binds: Any, timeout: float | None = None) -> Rows: ...
        def transaction(self, timeout_ms: float = 30_000) -> _RaisingTransaction: ...
        def request(
            self, data: str | bytes | bytearray | memoryview, timeout_ms: float | None = None
        ) -> str | bytes: ...
        @overload
        def read(self, timeout_ms: None = None) -> str | bytes: ...
        @overload
        def read(self, timeout_ms: float | None = None) -> str | bytes | None: ...
        def read(self, timeout_ms: float | None = None) -> str | bytes | None: ...
        @overload
        def receive(self, timeout_ms: None = None, *, ack: bool = True) -> Message: ...
        @overload
        def receive(self, timeout_ms: float | None = None, *, ack: bool = True) -> Message | None: ...
        def receive(self, timeout_ms: float | None = None, *, ack: bool = True) -> Message | None: ...
        def fd(self) -> int: ...


if TYPE_CHECKING:

    class _RaisingTransaction(Transaction):
        def __enter__(self) -> RaisingConnection: ...


def _outgoing(data: object, timeout_ms: float | None, what: str) -> tuple[bytes, bool, float, Deadline]:
    """What is sent: its bytes, whether it was text, the time it may take in ms, and until when to wait.
    TypeError, and RefusedError for text that UTF-8 cannot hold."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{what} takes str or bytes, not {type(data).__name__}")
    limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
    body = utf8.encoded(data, "the text") if isinstance(data, str) else bytes(data)
    return body, isinstance(data, str), limit, Deadline(limit / 1000 + GRACE_S)
