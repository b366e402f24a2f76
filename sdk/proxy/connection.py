"""The proxy that a program holds: read, write, exec, query, fd, close.

A `Connection` is composed of parts, and has no base class. The parts are its membership in the
connection (`trunkline.proxy.membership`), its dialogue with the worker about reading (`dialogue`),
its reads (`reading`), its requests (`requesting`), its statements (`statements`), and its answers
to failure (`failures`).

The parts refer to the `Connection` only weakly. So the garbage collector takes a dropped
`Connection` at once, and its membership ends. For the same reason the methods below call the
methods of the parts, instead of being replaced by them: in `Dial(...).read()`, only the running
method keeps the object alive.
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
"""Seconds for `fd` altogether."""
SETTLED_S = 2.0
"""Seconds of these that `fd` waits for the worker to hear that the connection is shared now."""
WRITE_MS = 30_000
"""The default timeout of write, request and seek, in milliseconds."""
WITH_NULL = frozenset(("kafka",))
"""Schemes whose messages may have no value: `write(None)`."""
SETTLE_S = 5.0
"""Seconds for an acknowledgement. The worker carries it out at once; the limit is for a
worker that is stopped or has just been replaced."""
LONGEST_NAK_MS = 86_400_000
"""The longest delay accepted by `nak`."""


class Connection:
    """One dialled connection; made by `Dial`, `connect` and unpickling, not by calling the class.

    A connection is safe to use from several threads and in forked children, where it becomes a
    further holder. It is a context manager and an iterator over its messages, can be pickled (as
    its handle), and is always true. An object of `Dial` answers failure with a value (`None`, `""`,
    0) and a line in the log. An object of `connect` raises.
    """

    make_from_handle: ClassVar[Callable[[int, bool, str], Connection]]
    """The function called by unpickling. `trunkline.proxy.dial`, which this module cannot import,
    sets it."""

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
        """The figures of the worker's last answer to `stats`."""
        self._member.begin(self)

    # reading

    def read(self, timeout_ms: float | None = None) -> str | bytes | None:
        """Return the oldest message, waiting for it as long as `timeout_ms` allows.

        `timeout_ms`:

        * None or 0: wait for data.
        * a positive number: wait so many milliseconds at most.
        * -1: do not wait.
        * less than -1: return the newest message at once and discard the older ones.

        Returns the message: `str` when the data is valid UTF-8, else `bytes`. Returns None when no
        message came in time. Returns `""` when the link is down, or went down at this place in the
        order of messages (tcp, tls, unix and udp: None). An object of `connect` raises BrokenError
        instead of the latter, and ClosedError after `close`.
        """
        return self._reader.read(timeout_ms)

    def receive(self, timeout_ms: float | None = None, *, ack: bool = True) -> Message | str | None:
        """Return the oldest message with its envelope, as a `Message`: topic, key, headers, time
        and so on.

        `timeout_ms` is that of `read`. Where `read` would return None or `""` or raise an error,
        `receive` does the same. The first call asks the worker for the envelopes; a program that
        never calls `receive` does not pay for them.

        `ack=False`, with a message broker waiting for acknowledgements: `receive` does not
        acknowledge the message. The program does its work and then calls `message.ack()`, `nak()`,
        `reject()` or `term()`. If the program ends before that, the message is read again, by
        another holder or after the next Dial. Where the scheme has no acknowledgements, `receive`
        returns None and keeps a reason for `last_error()` (an object of `connect` raises
        Unsupported).
        """
        return self._reader.receive(timeout_ms, ack=ack)

    def watch(self) -> tuple[bool, int | None, object]:
        """Say whether a read would return at once, for a caller waiting for several connections.

        Returns three values:

        * whether a read would return at once;
        * the file descriptor that becomes readable when more has come; None: look again later;
        * a mark. The mark changes when the connection was read from, and when something came while
          the link was known to be down.

        Takes no message. Waits only for a worker that does not stream and has to be asked for its
        figures. A closed object is never ready. `EventLoop` is such a caller.
        """
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
        """Send one message; on a byte stream, send these bytes.

        With a message broker, the arguments beside the data hold for this message, in place of the
        values in the address: `topic` (mqtt, kafka), subject (nats) or routing key (amqp), `key`
        (kafka), `headers`, `expiry_ms` (milliseconds until the message broker throws the message
        away: amqp, mqtt version 5), `reply_to` and `correlation_id` (nats without the latter, amqp,
        mqtt version 5). A scheme that cannot carry an argument refuses the message: Unsupported.
        `data=None` is Kafka's null value.

        `timeout_ms`: milliseconds to wait (default 30 s).

        Returns the number of bytes taken by the transport. Returns 0 when the link is down
        (nothing is sent later), and when the transport took nothing in time. A message broker's
        driver returns when the message broker has confirmed the message, where the protocol has
        confirmations. It returns 0 when the message broker refused the message, or did not confirm
        it in time. An object of `connect` raises BrokenError, OperationTimeout (Unconfirmed: the
        message may have arrived), RefusedError or ClosedError instead of the 0. For an empty
        message the 0 alone says nothing: `last_error()` is None after success.
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
        """Send the bytes and the envelope of one message, and answer failure as the object's form
        says."""
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
            # The result 0 of an empty message means success where `last_error()` is None.
            reasons.last(clear=True)
        return int(values.unpack(answer[0]))

    def request(
        self, data: str | bytes | bytearray | memoryview, timeout_ms: float | None = None
    ) -> str | bytes | None:
        """Send a question and return its answer, where the protocol has requests (see the scheme's
        page).

        `timeout_ms`: milliseconds to wait for the answer (default 30 s). Returns the answer's data
        as `read` would. Returns None when no answer came in time, when no peer answers there, and
        when the link is down; `last_error()` tells them apart. An object of `connect` raises
        OperationTimeout, RefusedError, BrokenError or ClosedError instead. The question may have
        been received although no answer came.
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
        """Go on reading at another place of the message broker's log (kafka).

        `offset` is the number of a message, `"earliest"`, `"latest"`, or a time (a datetime, or
        text such as `"2026-01-31T12:00:00Z"`). A time means the first message that is not older.
        The call holds for all partitions read by this connection, or for those of `topic`, or
        for one `partition`. With a group, the place is committed.

        Returns True when done. Then the next message of these partitions is the one at `offset`,
        for every object that reads from this connection. Messages on their way are discarded
        (`stats().skipped`).

        Returns False, with a reason in `last_error()`, when the log has no such place, when the
        link is down, when `timeout_ms` milliseconds (default 30 s) were not enough, and where the
        scheme has no places. An object of `connect` raises RefusedError, BrokenError,
        OperationTimeout, Unsupported or ClosedError instead.
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
        # The worker has recalled its entries. Entries of a worker that crashed meanwhile, and
        # entries put back, are discarded here.
        self._member.turn.run(0, self._reader.look)
        with self._member.lock:
            self._member.pocket.forget_former()
        return True

    # statements

    def exec(self, sql: str, *binds: Any, timeout: float | None = None) -> ExecResult | None:
        """Run a statement on a database connection.

        `binds` are the values of the placeholders in order, or one list or tuple of values, or one
        mapping from names to values. A list for the placeholder of `IN (?)` is written out. For any
        other placeholder a list is allowed only where the column holds lists, or as `Json(...)`.
        `timeout`: milliseconds.

        Returns `{"columns": [...], "values": [[...], ...]}`. The result also has `affected` and
        `last_id` where the driver knows them, `matched` (rows that an UPDATE found) on MySQL, and
        `more`, a list of further result sets (of a procedure, or of several statements). Returns
        None on failure, with the reason in the log and in `last_error()`. An object of `connect`
        raises StatementError, OperationTimeout or OutcomeUnknown instead.
        """
        try:
            return self._statements.execute(sql, binds_of(binds), timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def executemany(
        self, sql: str, rows: Iterable[Any], timeout: float | None = None
    ) -> ExecResult | None:
        """Run a statement once for each row of values, in one message and at the database's best
        speed.

        `rows` are lists or tuples with one value for each placeholder, or mappings where the
        database has named placeholders. `timeout` is in milliseconds, for all rows together. Where
        the database has transactions, all rows are written or none. Returns `{"columns": [],
        "values": [], "affected": rows}`, without `affected` where the driver cannot know the
        number. Fails as `exec` does.
        """
        try:
            return self._statements.executemany(sql, rows, timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def query(self, sql: str, *binds: Any, timeout: float | None = None) -> Rows | None:
        """Run a statement and iterate over its rows in bounded memory, however many rows it
        returns.

        Arguments as for `exec`. `timeout` is in milliseconds, for the first rows and then for each
        further batch. Returns `Rows`, an iterator with `.columns` and `.close()`. Returns None on
        failure; an object of `connect` raises. Outside of a transaction some databases run the
        query on a link of its own: see the database's page in docs/.
        """
        try:
            return self._statements.query(sql, binds_of(binds), timeout, self._statements.token())
        except TrunklineError as error:
            return self._failures.failed(error, None)  # type: ignore[no-any-return]

    def transaction(self, timeout_ms: float = 30_000) -> Transaction:
        """Hold a shared database connection exclusively, for a block: `with conn.transaction():`.

        The block's end commits. The transaction is rolled back when the block raises, when its
        process dies, and when the server is lost. In the latter case the remaining statements fail
        with code "TRANSACTION_OVER", and the end of the block raises. Other holders wait meanwhile.
        However the block is left, by Ctrl-C too, it locks no other holder out.

        `timeout_ms`: milliseconds to wait for the connection, then OperationTimeout. The end of the
        block may take 2 s in any case.

        A failed block cannot be passed over, so an object of `Dial` raises too: StatementError when
        the commit was refused (the transaction is rolled back then), OutcomeUnknown when no answer
        to the commit came. The transaction belongs to the thread that entered the block.
        """
        return Transaction(self, timeout_ms)

    # what a `Message` asks of its connection (`trunkline.message.Source`)

    def settle(self, ticket: int | None, verdict: str, delay_ms: float) -> bool:
        """Acknowledge, return or reject a message, by its ticket. Called by `Message.ack` and its
        like.

        `verdict`: "ack", "nak" or "reject". `delay_ms`: of "nak", in milliseconds. Returns True, or
        False on failure; an object of `connect` raises.
        """
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
            # The worker has to hear the ticket (KEEP) first, and KEEP goes by the stream.
            self._dialogue.say_what_waits(deadline)
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
        """Write an answer to a message. Called by `Message.reply`, which describes result and
        errors."""
        known = message.properties
        correlation = known.get("correlation_id", known.get("correlation_data"))
        outgoing = Outgoing(
            topic=message.reply_to, headers=headers, correlation=correlation, answers=True
        ).checked()
        return self._write(data, timeout_ms, outgoing)

    # sharing

    def fd(self) -> int | None:
        """Return a handle: a number by which `Dial` attaches to this connection in any thread or
        process of this broker. The number cannot be guessed.

        After `fd`, the connection outlives `close()`. It ends when every process that used it is
        gone, when it had no holder for `linger` seconds, or by `trunkline kill`. Returns None (an
        object of `connect` raises) when the connection has ended, or when the broker does not
        answer within 5 s.
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
        """Return when the worker has heard from the broker that the connection is shared now.

        Called before the first statement that another holder could expect to see: a statement takes
        the shorter way to the worker, and could overtake the broker's message. No error where the
        worker does not answer in time.
        """
        with contextlib.suppress(TrunklineError):
            patience = Deadline(min(SETTLED_S, deadline.left()))
            # A request by the router arrives behind the broker's message, on the same socket.
            client.link.request(self._member.key, Kind.STATS, deadline=patience)

    def stats(self) -> Stats:
        """Return the connection's figures as of now, as a frozen dataclass.

        When the worker is gone, returns the last figures known to this object. Never raises for
        the network's sake.
        """
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
        """Detach this object; idempotent, never waits.

        The connection ends with its last object, unless its handle was taken with `fd()`.
        """
        member = self._member
        if member.detached:
            return
        # DETACH tells one number, which stops before the first message that is not acknowledged. So
        # acknowledge the messages behind that one now.
        if member.pocket.unsettled:
            member.turn.run(0, self._dialogue.say_all_in_turn)
        # First, because a thread that reads closes the stream as soon as it sees `closed`.
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
            # Another thread reads: end its wait. That thread closes the sockets.
            router = None
            member.route.wake_reader()
        member.client.connections.discard(self)
        if router is not None or member.holder_id:
            member.client.detach(member.key, member.holder_id, member.consumed, router, True)
        member.finalizer.detach()
        # Last: after a Ctrl-C in the lines above, `close` may be called once more and goes through.
        member.detached = True

    def _left(self, limit: Deadline) -> bool:
        """After `close`: whether no thread uses the stream socket any more, waiting until `limit`
        at most."""
        return self._member.turn.run(limit.left(), lambda: True) is True

    def _after_fork(self) -> None:
        """In a forked child: drop all of the parent's state, its locks included."""
        self._member.after_fork()
        self._statements.after_fork()

    def redial_with(self, fields: tuple[Any, ...], body: Sealed) -> None:
        """Keep the fields and the body of the OPEN that dials this connection anew. Called by
        `Dial`.

        Used when broker and worker are lost together.
        """
        self._member.redial = (fields, body)

    # the rest of being an object

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over the messages, waiting for each.

        Mended outages are passed over. The iteration ends when the link has ended for good
        or this object is closed.
        """
        # A generator method of this object, so that the running iteration keeps the object alive.
        yield from self._reader.messages()

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
    """The connection that `connect` returns: its methods raise where those of `Connection` return a
    value for failure. So their results are never None for failure."""

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
    """Check the data of a write or request. Returns its bytes, whether it was text, the time limit
    in milliseconds, and the deadline for the answer. TypeError for other types; RefusedError for
    text that UTF-8 cannot encode."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{what} takes str or bytes, not {type(data).__name__}")
    limit = WRITE_MS if not timeout_ms or timeout_ms < 0 else timeout_ms
    body = utf8.encoded(data, "the text") if isinstance(data, str) else bytes(data)
    return body, isinstance(data, str), limit, Deadline(limit / 1000 + GRACE_S)
