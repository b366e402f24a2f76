"""The interface that drivers implement: a small class, whose objects serve one link each.

The results of statements (`Result`, `Rows`) are defined in `trunkline.actors.results`, the
functions for the end of a socket in `trunkline.actors.net.socket_ends`. Drivers import both from
this module.

A driver object lives for **one** attempt to dial and the link that follows. The worker makes a new
object for each attempt, so a driver never cleans up the state of an earlier link. The worker does
everything that all schemes have in common: backoff, payload replay, buffering, marks of lost links,
deadlines, statistics, compression.

Threads: a `StreamDriver` is asyncio code on the worker's event loop. A blocking client library runs
in a thread of the driver, which reports to the loop with `call_soon_threadsafe`. An `ExecDriver` is
blocking code: the worker makes all calls of one object from one thread.

Errors: raise `FatalError` where another attempt seldom helps (bad certificate, refused
credentials, 404), and an error of `transient` where another attempt can help. Both end the first
dial. A link that had worked is dialled again after both, after a FatalError with the longest wait
(`maxInterval`). Where the peer says for how long it wants no other attempt, pass the seconds as
`retry_after_s`. The text is shown to users: say what happened and what to do, and never quote a
secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_ends import break_socket, hung_up, reset_at_close
from trunkline.actors.results import FIRST_ROWS, Result, ResultRows, Rows
from trunkline.address import Address
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import DialError, StatementError, Unsupported
from trunkline.wire.outgoing import Outgoing
from trunkline.wire.place import Place

__all__ = [
    "FIRST_ROWS",
    "Delivery",
    "Driver",
    "Ending",
    "ExecDriver",
    "FatalError",
    "Outgoing",
    "Overflow",
    "PeerClosed",
    "Place",
    "Result",
    "Rows",
    "Sink",
    "StreamDriver",
    "Traffic",
    "break_socket",
    "hung_up",
    "reset_at_close",
]


class FatalError(DialError):
    """The link is refused for a lasting reason: a login, a certificate, an option.

    Like every error, a FatalError ends the first dial. While reconnecting, the longest wait
    follows."""


class PeerClosed(ConnectionError):
    """The peer closed the link by a close frame with this `code` and `reason`."""

    def __init__(self, code: int | None, reason: str) -> None:
        shown = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
        said = " ".join(part for part in ("" if code is None else str(code), shown) if part)
        super().__init__(f"closed by the peer: {said or 'no code'}")
        self.code = code
        self.reason = reason


class Overflow(Enum):
    """The behaviour of a full buffer: drop the oldest messages, or stop taking from the peer."""

    DROP_OLDEST = "drop-oldest"
    BACK_PRESSURE = "back-pressure"


class Ending(Enum):
    """Why the worker ends a link that is open."""

    CLOSED = "closed"
    """The program closed the connection. The peer is told of a good end."""
    ABANDONED = "abandoned"
    """The program died or ended without `close()`. No program will return to this connection."""
    LOST = "lost"
    """The worker takes the link for lost (option `idle`). Another link may follow."""


class Delivery(NamedTuple):
    """A message with its envelope, and with the token for its acknowledgement.

    The fields from `topic` to `properties` appear in `trunkline.Message`; None where the protocol
    has no such field.
    """

    data: str | bytes
    topic: str | None = None
    """Topic, subject or routing key."""
    key: str | bytes | None = None
    headers: dict[str, Any] | None = None
    """Header values that `trunkline.wire.values` can carry. A repeated name has a list of
    values."""
    timestamp: float | None = None
    """When the message was written, by the writer's or the message broker's clock: wall clock s."""
    offset: int | None = None
    """Kafka's offset, JetStream's stream sequence, AMQP's delivery tag."""
    partition: int | None = None
    redelivered: bool = False
    """The message broker says that the message may have been delivered before."""
    reply_to: str | None = None
    """Where the writer waits for an answer: NATS's reply subject, AMQP's reply_to, MQTT's response
    topic."""
    properties: dict[str, Any] | None = None
    """Further values of the protocol: AMQP's message_id and content_type, MQTT's qos and retain,
    ..."""
    token: Any = None
    """The worker passes the token to `StreamDriver.settle` when a reader has the message.
    None for a message without acknowledgement."""
    identity: Hashable = None
    """A value by which the worker recognises the message when the message broker sends it again
    over the next link: partition and offset, stream sequence, ... None where the protocol has
    none."""


class Sink(Protocol):
    """Takes messages and reports from a stream driver. All calls come on the worker's event
    loop."""

    def message(self, data: str | bytes) -> None:
        """Take one message. A `str` is valid text. `bytes` may become text by option `decode`."""

    def messages(self, batch: Sequence[str | bytes]) -> None:
        """Take several messages in order: cheaper than one call for each message."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Take several messages in order, with their envelopes."""

    def lost(self, reason: BaseException | None) -> None:
        """Note that the link is gone.

        `reason`: a `PeerClosed` where the peer's close frame gives a reason; None where the peer
        ended the link in good order and the protocol has no close frame. The first call counts."""

    def warn(self, text: str) -> None:
        """Write a line into the user's log about an event that did not end the link."""

    def dropped(self, count: int) -> None:
        """Count messages that the library or the kernel threw away before the driver had them."""


class Driver(ABC):
    """The part of the interface that all drivers have."""

    schemes: ClassVar[tuple[str, ...]]
    """The schemes that this driver serves."""
    transient: ClassVar[tuple[type[BaseException], ...]] = (
        OSError,
        EOFError,
        TimeoutError,
        DialError,
    )
    """Errors of `open`, FatalError excepted, after which another attempt may well succeed.

    After such an error a stream dials again after the waits of `interval`, and a statement waits
    for the link. After any other error a stream waits as long as after a FatalError. A statement
    fails with that error, and the next statement dials again."""
    extra: ClassVar[str | None] = None
    """The extra that installs the library (`pip install trunkline[extra]`); None for the core."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def peer(self) -> str:
        """The other end of the link, for `ps` and logs. Holds no secret."""
        return join_host_port(str(self.address.host), self.address.port)


class StreamDriver(Driver):
    """A driver of a connection that is read and written. Methods run on the worker's event loop."""

    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST
    lost_is_none: ClassVar[bool] = False
    """True: a lost link reads as None (tcp, tls, unix, udp). False: as "" (ws, message brokers)."""
    byte_stream: ClassVar[bool] = False
    """True: messages are pieces of one byte stream. A character may be split between two
    messages."""
    confirms: ClassVar[bool] = False
    """True: `send` waits for the peer's confirmation. Several calls may wait at the same time,
    and the messages go out in the order of the calls."""
    addressing: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Outgoing` that `send_to` takes."""
    verdicts: ClassVar[frozenset[str]] = frozenset()
    """Verdicts that `refuse` carries out: `nak` (give the message back to the peer), `reject`
    (the peer must never send the message again). Without `nak` the worker gives the message to
    the next reader."""

    seeks: ClassVar[bool] = False
    """True: reading can go on at another place of the peer's log (`Connection.seek`)."""

    had_link: bool = False
    """The connection had a link before this attempt, perhaps in a worker that has died since.

    A queue or a topic that `Dial` creates on a server is created for the first link alone. For
    later links the driver waits until the queue or topic exists."""

    inherited: Mapping[str, Any] = MappingProxyType({})
    """Values by `bequeath` of the former worker's driver, where that worker was killed."""

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address)
        self.sink = sink

    @classmethod
    def acknowledges(cls, address: Address) -> bool:
        """Whether the peer waits for `settle`, so that programs may use `receive(ack=False)`."""
        return cls.redelivers(address)

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        """The overflow rule of an address. Overridden where the rule depends on the address."""
        return cls.overflow

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        """Whether the peer keeps each message until `settle`, and sends it again after a lost link.

        Then messages in a crashed worker are not lost. Programs do not read them from its
        remains."""
        return False

    @abstractmethod
    async def open(self, deadline: Deadline) -> None:
        """Open the link by the deadline, or raise. Messages may arrive before `open` returns."""

    @abstractmethod
    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Hand `data` to the transport and return the number of bytes taken.

        Returns 0 when no byte was taken by the deadline. No data may stay queued until after an
        outage. Raises OSError when the link is gone."""

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """Write one message with an envelope. Returns and raises as `send`.

        `outgoing`: the envelope; its given fields are all in `addressing`. `data`: None for a
        message without a value (field `null`). Raises RefusedError where a value cannot be
        sent."""
        raise Unsupported(f"{self.address.scheme}:// has no envelope to write")

    def would_wait(self, size: int) -> bool:
        """Whether `send` of `size` bytes might have to wait.

        After False the worker calls `send` without a task. A task is a third of the cost of a small
        write."""
        return True

    @abstractmethod
    async def close(self) -> None:
        """Close the link in good order within about a second. Idempotent. Allowed after a failed
        `open`."""

    async def end(self, ending: Ending) -> None:
        """End the link as `close` does.

        A driver overrides this method where the protocol can tell the peer whether the program
        closed the connection or died."""
        await self.close()

    async def seek(self, place: Place, deadline: Deadline) -> Callable[[Any], bool]:
        """Go on reading at `place`, where `seeks` is true.

        Returns a function of a token: True where the token's message is from before the seek and
        must not be read any more. The worker settles such tokens. Raises RefusedError for an
        impossible place, TimeoutError at the deadline. After both, reading goes on at the old
        place."""
        raise Unsupported(f"{self.address.scheme}:// has no seek")

    def pause(self) -> None:
        """Stop taking from the peer (back pressure), because the buffer is full."""

    def resume(self) -> None:
        """Go on taking from the peer."""

    def settle(self, tokens: Sequence[Any]) -> None:
        """Acknowledge messages by token, after readers have read or discarded them. Must not wait.

        All tokens are of this link, in the order in which readers took the messages."""

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        """Carry out a verdict (one of `verdicts`) on a message whose work failed. Must not wait.

        `delay_ms`: after `nak`, milliseconds before the peer sends the message again."""
        raise Unsupported(f"{self.address.scheme}:// has no {verdict}")

    def lag(self) -> int | None:
        """The message broker's last count of messages for this connection that no reader has taken.

        Delivered messages that are not settled count too. None where the count is unknown. For
        `stats().lag`. Must not wait."""
        return None

    def bequeath(self) -> dict[str, Any]:
        """A few plain values for the next worker's drivers (`inherited`). Must not wait.

        Used when this worker is killed. Called each second, and when the link opens or is lost."""
        return {}

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        """Send a request and return its answer. TimeoutError at the deadline.

        Overridden where the protocol has requests (`Connection.request`)."""
        raise Unsupported(f"{self.address.scheme}:// has no request: use write and read")

    async def ping(self) -> None:
        """Send the protocol's own keepalive (option `pingType=control`).

        Overridden where the protocol has a keepalive."""

    def traffic(self) -> Traffic | None:
        """How many bytes have gone over the link (see `trunkline.actors.net.socket_traffic`).

        By this count the worker finds a dead peer after `ping`. None: the worker counts whole
        messages, and the driver itself has to notice that its pings are not answered."""
        return None


class ExecDriver(Driver):
    """A driver of a connection that executes statements.

    All calls of one object come from one thread, `interrupt` and `abort` excepted."""

    dialect: ClassVar[str] = "standard"
    """The SQL rules for strings, comments and the ends of statements: `sqlite`, `mysql`,
    `postgres`, `clickhouse`, or `standard` for standard SQL."""
    queries_apart: ClassVar[bool] = False
    """True: until all rows of a `query` are fetched, the link can do nothing else. Then the
    worker makes a driver object, with a link of its own, for each query outside of a
    transaction."""
    interrupt_waits: ClassVar[bool] = False
    """True: `interrupt` asks the server and may take a while, so the worker calls it on a
    thread."""

    warn: Callable[[str], None] = staticmethod(lambda text: None)
    """Writes a line into the user's log. The worker sets the function before `open`."""

    @abstractmethod
    def open(self, deadline: Deadline) -> None:
        """Connect and apply the session settings of the address by the deadline, or raise."""

    @abstractmethod
    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        """Run one statement. Raises `StatementError` (with the server's code) when the statement is
        refused, `ConnectionError` when the server is gone."""

    def query(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Rows:
        """Run one statement whose rows are fetched in bounded memory. Errors as `execute`."""
        return ResultRows(self.execute(sql, binds))

    @classmethod
    def joins(cls, sql: str) -> bool:
        """Whether a statement is a short write that may share a commit with other callers'
        writes."""
        return False

    def execute_together(
        self, statements: Sequence[tuple[str, Sequence[Any] | Mapping[str, Any]]]
    ) -> Sequence[Result | StatementError | ConnectionError]:
        """Run statements that wait at the same time, each of which `joins`, with one commit.

        Each caller sees the outcome as if the statement had run alone: a refused statement does
        not affect the other statements, and a `Result` means that the statement is committed.
        Returns the outcome of each statement. A ConnectionError means that the outcome is
        unknown. Where fewer outcomes are returned, the remaining statements were not run, and the
        worker runs each of them alone. Raises as `execute` when no statement was run."""
        return []

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
        """Run one statement once for each row of values. Errors as `execute`.

        Either all or none take effect, if the database has transactions and none is open before.
        The result's `affected` is the sum."""
        inside = self.in_transaction()
        if not inside:
            self.begin()
        try:
            counts = [self.execute(sql, row).affected for row in rows]
            if not inside:
                self.commit()
        except ConnectionError:
            raise
        except Exception:
            if not inside and self.in_transaction():
                self.rollback()
            raise
        return Result(affected=None if None in counts else sum(count or 0 for count in counts))

    @abstractmethod
    def interrupt(self) -> None:
        """Tell the server to stop the running `execute` or `fetch`, which then raises an error
        soon.

        Called from another thread, perhaps more than once. The next statement begins after
        `interrupt` has returned."""

    def abort(self) -> None:
        """Break the link because the server does not react to `interrupt`.

        The running call ends with ConnectionError. Called from another thread."""

    def alive(self) -> bool:
        """Whether the server still holds the link, judged without I/O to the server (see
        `hung_up`).

        Called before each statement. After False the worker opens another link and runs the
        statement there, which was never sent."""
        return True

    def reset(self) -> bool:
        """Bring the session back to its state after `open`. False where the worker must open
        another.

        Called on the link of a query before the next query uses the link: settings and locks of one
        caller's statement must not affect another caller's."""
        return False

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection."""

    @abstractmethod
    def begin(self) -> None: ...

    def begin_as(self, how: str) -> None:
        """Begin a transaction in a mode of the database: SQL behind BEGIN, such as `READ ONLY`.

        StatementError where the database has no modes."""
        raise StatementError(f"{self.address.scheme}:// cannot begin a transaction as {how}")

    @abstractmethod
    def commit(self) -> None:
        """Commit the open transaction. StatementError when it was not committed."""

    @abstractmethod
    def rollback(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent."""
