"""The proxy that a program holds: read, write, exec, query, fd, close.

A `Connection` has parts and no base class: its membership in the connection (`trunkline.proxy.membership`),
what it says to the worker about reading (`dialogue`), its reads (`reading`), its requests (`requesting`), its
statements (`statements`), and how it answers failure (`failures`).

No part refers to the `Connection` other than weakly, so that the membership of an object ends as soon as the
program drops the object. For the same reason the methods here call those of the parts and are not replaced by
them: a call of `Dial(...).read()` keeps the object until it returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from trunkline.deadline import Deadline
from trunkline.errors import ClosedError, DeadHandle, TrunklineError, Unsupported
from trunkline.frames import Sealed
from trunkline.message import Message
from trunkline.proxy import reasons
from trunkline.proxy.about import About
from trunkline.proxy.dialogue import Dialogue
from trunkline.proxy.failures import Failures
from trunkline.proxy.membership import Membership
from trunkline.proxy.process import Client
from trunkline.proxy.reading import Reader
from trunkline.proxy.requesting import GRACE_S, Requests
from trunkline.proxy.result import ExecResult
from trunkline.proxy.route import RouterRoute
from trunkline.proxy.rows import Rows
from trunkline.proxy.statements import Statements, binds_of
from trunkline.proxy.transaction import Transaction
from trunkline.proxy.turn import Busy
from trunkline.wire import utf8, values
from trunkline.wire.envelope import Kind
from trunkline.wire.outgoing import Outgoing
from trunkline.wire.place import Place
from trunkline.wire.stats import Stats

__all__ = ["Connection", "RaisingConnection", "Transaction"]

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


class Connection:
    """One dialled connection; made by `Dial`, `connect` and unpickling, not by calling the class.

    Safe to use from several threads, in forked children too (a further holder there), picklable (as its
    handle), a context manager, iterable, and never falsy. Objects of `Dial` answer failure
    with a value (`None`, `""`, 0) and a line in the log; those of `connect` raise.
    """

    make_from_handle: ClassVar[Callable[[int, bool, str], Connection]]
    """What unpickling calls. `trunkline.proxy.dial`, which makes the connections, puts its function here:
    this module cannot import that one."""

    def __init__(
        self,
        client: Client,
        router: RouterRoute,
        key: bytes,
        info: Mapping[str, Any],
        *,
        raising: bool,
    ) -> None:
        self._about = About.of(info, raising=raising)
        number = str(info.get("id", info.get("number", "")))
        self._member = Membership(
            client, router, key, self._about, number, int(info.get("serving", 0))
        )
        self._failures = Failures(self._about)
        self._dialogue = Dialogue(self._member)
        self._reader = Reader(self._member, self._dialogue, self._failures)
        self._requests = Requests(self._member)
        self._statements = Statements(self._member, self._requests)
        self._figures: Stats | None = None
        """The last that were asked for."""
        self._member.begin(self)

    # reading

    def read(self, timeout_ms: float | None = None) -> str | bytes | None:
        """The oldest message, as SPEC 3's table says.

        `timeout_ms`: None or 0 waits for data; -1 does not wait; less than -1 gives the newest message at
        once and discards the rest; otherwise milliseconds to wait. Returns the message (`str`
        when it is valid UTF-8, else `bytes`), None when there was none in time, and when the link is or
        was lost here in the order: `""` (tcp, tls, unix and udp: None). An object of
        `connect` raises BrokenError instead of the latter, ClosedError after `close`.
        """
        return self._reader.read(timeout_ms)

    def receive(self, timeout_ms: float | None = None, *, ack: bool = True) -> Message | str | None:
        """What `read` would return, as a `Message`: with its topic, key, headers, time and so on.

        `timeout_ms` and what comes instead of a message (None, `""`, the errors of `connect`) are those of
        `read`. The first call asks the worker for the envelopes; before it nobody pays for them.

        `ack=False`, where a message broker waits for acknowledgements: the message is not acknowledged yet.
        The program does its work and then calls `message.ack()`, `nak()`, `reject()` or `term()`. A message
        whose program ends before that is read again, by another holder or after the next Dial. Where the
        scheme has no acknowledgements, None and a reason (an object of `connect` raises Unsupported).
        """
        return self._reader.receive(timeout_ms, ack=ack)

    def watch(self) -> tuple[bool, int | None, object]:
        """For whoever waits for several connections (`EventLoop`): whether a read would return at once, the
        descriptor that becomes readable when more has come (None: look again later), and a mark that differs
        when the connection was read from, or when something came while the link was known to be down. Takes
        no message; never waits but for a worker's figures. An object that was closed is never ready."""
        return self._reader.watch(self.stats)

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
        if data is None and self._about.scheme not in WITH_NULL:
            raise TypeError("write takes str or bytes, not NoneType")
        outgoing = Outgoing(
            topic, key, headers, expiry_ms, reply_to, correlation_id, null=data is None
        ).checked()
        return self._write(b"" if data is None else data, timeout_ms, outgoing)

    def _write(
        self,
        data: str | bytes | bytearray | memoryview,
        timeout_ms: float | None,
        outgoing: Outgoing,
    ) -> int:
        try:
            body, text, limit, deadline = _outgoing(data, timeout_ms, "write")
            at, packed = deadline.at - GRACE_S, outgoing.pack()
            answer = self._requests.request(
                Kind.WRITE, limit, text, at, packed, body=body, deadline=deadline
            )
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._about.raising:
                self._failures.after_close("write", program_ends=self._member.client.program_ends)
            return int(self._failures.failed(error, 0, quiet=not isinstance(error, Unsupported)))
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
            answer = self._requests.request(
                Kind.REQUEST, limit, text, at, body=body, deadline=deadline
            )
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._about.raising:
                self._failures.after_close("request", program_ends=self._member.client.program_ends)
            return self._failures.failed(error, None, quiet=not isinstance(error, Unsupported))  # type: ignore[no-any-return]
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
            if self._about.executes:
                raise Unsupported(f"{self._about.scheme}:// has no seek: use exec")
            limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
            deadline = Deadline(limit / 1000 + GRACE_S)
            self._requests.request(
                Kind.SEEK, limit, deadline.at - GRACE_S, *place, deadline=deadline
            )
        except TrunklineError as error:
            if isinstance(error, ClosedError) and not self._about.raising:
                self._failures.after_close("seek", program_ends=self._member.client.program_ends)
            return bool(self._failures.failed(error, False, quiet=isinstance(error, ClosedError)))
        self._member.turn.run(
            0, self._reader.look
        )  # what is here may be of a worker that has crashed meanwhile
        with self._member.lock:
            self._member.pocket.forget_former()
        return True

    # statements

    def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> ExecResult | None:
        """Run a statement on a database connection.

        `binds` are its values in order, or one list or tuple of them, or one mapping of names. A list for the
        placeholder of `IN (?)` is written out; anywhere else one value takes a list only where its column
        does, or as `Json(...)`. `timeout` in milliseconds. Returns
        `{"columns": [...], "values": [[...], ...]}`, with `affected` and `last_id` where the driver knows
        them, `matched` (rows that an UPDATE found) on MySQL, and `more`, a list of result sets, where there
        is more than one (a procedure, several statements); None on failure, with the reason in the log and in
        `last_error()`. An object of `connect` raises StatementError, OperationTimeout, OutcomeUnknown.
        """
        try:
            return self._statements.execute(sql, binds_of(binds), timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def executemany(
        self, sql: str, rows: Iterable[Any], timeout: float | None = None
    ) -> ExecResult | None:
        """Run a statement once for each row of values, in one message and at the database's best speed.

        `rows` are lists or tuples, one value for each placeholder (mappings where the database has named
        placeholders); `timeout` in milliseconds is for all of them together. All rows are written or none,
        where the database has transactions. Returns `{"columns": [], "values": [], "affected": rows}`,
        without `affected` where the driver cannot know it; fails as `exec` does.
        """
        try:
            return self._statements.executemany(sql, rows, timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def query(self, sql: str, *binds: Any, timeout: float | None = None) -> Rows | None:
        """Run a statement and iterate over its rows in bounded memory, whatever their number.

        As `exec`; `timeout` in milliseconds is for the first rows and then for each further batch. Returns
        `Rows`, an iterator with `.columns` and `.close()`; None on failure (an object of `connect` raises).
        Outside of a transaction some databases (see their pages in docs/) run it on a link of its own.
        """
        try:
            return self._statements.query(sql, binds_of(binds), timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def transaction(self, timeout_ms: float = 30_000) -> Transaction:
        """`with conn.transaction():` holds a shared database connection exclusively.

        Commits at the end, rolls back when the block raises, when its process dies and when the server is
        lost: then its statements fail with code "TRANSACTION_OVER", and the block's end raises. Others wait.
        `timeout_ms`: how long to wait for one's turn; then OperationTimeout. The end may take 2 s in any
        case, and however the block is left (Ctrl-C, too), it locks nobody out. Raises for objects of `Dial`
        too, for a block cannot be passed over: StatementError when the commit is refused (it is rolled back
        then), OutcomeUnknown when its answer never came. Belongs to the thread that entered it.
        """
        return Transaction(self, timeout_ms)

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
            self._dialogue.say_what_waits(deadline)  # that the message is kept
            self._requests.request(Kind.SETTLE, ticket, verdict, delay_ms, deadline=deadline)
        except TrunklineError as error:
            return bool(self._failures.failed(error, False))
        with self._member.lock:
            self._member.pocket.unsettled.pop(ticket, None)
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
        if self._member.handle is None:
            deadline = Deadline(HANDLE_S)
            try:
                self._requests.check_open()
                client = self._requests.client_now(deadline)
                answer = client.link.ask_broker(Kind.HANDLE, self._member.key, deadline=deadline)
            except TrunklineError as error:
                self._failures.failed(error, None)
                return None
            self._member.handle = int(values.unpack(answer[0]))
            self.await_broker_words(client, deadline)
        return self._member.handle

    def await_broker_words(self, client: Client, deadline: Deadline) -> None:
        """Called where a connection comes to be shared: return when the worker has heard of that from the
        broker, for the next statement may take a shorter way. No error where it does not answer in time."""
        with contextlib.suppress(TrunklineError):
            patience = Deadline(min(SETTLED_S, deadline.left()))
            client.link.request(
                self._member.key, Kind.STATS, deadline=patience
            )  # by the router, behind those words

    def stats(self) -> Stats:
        """The connection's figures now, as a frozen dataclass. Of a connection whose worker is gone: what
        this object knows. Never raises for the network's sake."""
        self._dialogue.acknowledge_if_idle()
        try:
            answer = self._requests.request(Kind.STATS, deadline=Deadline(5))
            self._figures = Stats.from_wire(values.unpack(answer[0]))
            return self._figures
        except TrunklineError as error:
            state = "closed" if self._member.closed else "failed" if self._member.gone else "down"
            if self._figures is not None:
                return replace(self._figures, state=state, pid=None, last_error=str(error))
            return Stats(
                id=self._member.number,
                scheme=self._about.scheme,
                kind="database" if self._about.executes else "stream",
                lost_is_none=self._about.lost is None,
                comes_again=self._about.comes_again,
                peer=self._about.peer,
                state=state,
                last_error=str(error),
            )

    def close(self) -> None:
        """Detach this object; idempotent, never waits. The connection ends with its last object, unless
        its handle was taken with `fd()`."""
        member = self._member
        if member.detached:
            return
        if (
            member.pocket.unsettled
        ):  # DETACH cannot tell what was read behind a message that is kept
            member.turn.run(0, self._dialogue.say_all_in_turn)
        # Before the rest: a thread that reads gives the stream up as soon as it sees the object closed.
        if not member.client.program_ends:
            member.route.say_last(Kind.CLOSING, member.holder_id)
        with member.lock:
            if not member.closed:
                member.consumed = member.pocket.consumed_at_end()
                member.closed = True
            member.pocket.clear()
        member.route.close_requests()
        router = member.turn.run(0, member.route.give_up)
        if isinstance(router, Busy):
            router = None
            member.route.wake_reader()
        member.client.connections.discard(self)
        if router is not None or member.holder_id:
            member.client.detach(member.key, member.holder_id, member.consumed, router, True)
        member.finalizer.detach()
        member.detached = True  # only now: after a Ctrl-C `close` may be called once more

    def _left(self, limit: Deadline) -> bool:
        """After `close`: whether no thread is in the stream socket any more."""
        return self._member.turn.run(limit.left(), lambda: True) is True

    def _after_fork(self) -> None:
        """In a forked child: nothing of the parent's object may be used here, its locks neither."""
        self._member.after_fork()
        self._statements.after_fork()

    def redial_with(self, fields: tuple[Any, ...], body: Sealed) -> None:
        """Called by `Dial`: how to open the connection anew when broker and worker are lost together."""
        self._member.redial = (fields, body)

    # the rest of being an object

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages as they come, waiting for each; outages that are mended are passed over. Ends when the
        link has ended for good or this object is closed."""
        yield from self._reader.messages()  # a generator of this object: it keeps the object

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        handle = self.fd()
        if handle is None:
            raise DeadHandle(
                f"the connection to {self._about.peer} has ended and cannot be pickled"
            )
        return type(self).make_from_handle, (
            handle,
            self._about.raising,
            self._member.client.link.address,
        )

    def __repr__(self) -> str:
        member = self._member
        if member.closed:
            state = "closed"
        elif member.pocket.ended or member.gone:
            state = "ended"
        else:
            state = "down" if member.pocket.down else "open"
        return f"<Connection {member.number} {self._about.peer} {state}>"


class RaisingConnection(Connection):
    """What `connect` returns: a `Connection` whose methods raise instead of answering failure with a value,
    so that what they return is never None for that reason."""

    if TYPE_CHECKING:

        def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> ExecResult: ...
        def executemany(
            self, sql: str, rows: Iterable[Any], timeout: float | None = None
        ) -> ExecResult: ...
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
        def receive(
            self, timeout_ms: float | None = None, *, ack: bool = True
        ) -> Message | None: ...
        def receive(
            self, timeout_ms: float | None = None, *, ack: bool = True
        ) -> Message | None: ...
        def fd(self) -> int: ...


if TYPE_CHECKING:

    class _RaisingTransaction(Transaction):
        def __enter__(self) -> RaisingConnection: ...


def _outgoing(
    data: object, timeout_ms: float | None, what: str
) -> tuple[bytes, bool, float, Deadline]:
    """What is sent: its bytes, whether it was text, the time it may take in ms, and until when to wait.
    TypeError, and RefusedError for text that UTF-8 cannot hold."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{what} takes str or bytes, not {type(data).__name__}")
    limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
    body = utf8.encoded(data, "the text") if isinstance(data, str) else bytes(data)
    return body, isinstance(data, str), limit, Deadline(limit / 1000 + GRACE_S)
