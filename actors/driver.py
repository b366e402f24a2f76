"""The interface a driver implements. One file, one small class, one link.

What a statement gives (`Result`, `Rows`) is defined in `trunkline.actors.results`, the functions for the end
of a socket in `trunkline.actors.net.socket_ends`; drivers import all of them from here.

A driver object lives for **one** attempt at a link: the worker makes a new one for each attempt, so a
driver never has to clean up after its former self. What is common to all schemes (backoff, payload
replay, buffering, `""` markers, deadlines, statistics, compression) is the worker's and is not repeated
here.

Streams (`StreamDriver`) are asyncio code on the worker's loop; a blocking client goes into
one thread of its own and talks to the loop with `call_soon_threadsafe`. Executors (`ExecDriver`) are
plain blocking code: the worker calls them from one thread that is theirs alone.

Errors: raise `FatalError` where trying again seldom helps (bad certificate, refused credentials, 404),
anything in `transient` where it can. Either ends the first dial. A link that had worked is dialled again
after both: after the longest wait (`maxInterval`) where it was a FatalError. Where the peer says how long it
wants no other attempt, give that as `retry_after_s`. The text is shown to users: say what happened and what
to do, and never quote a secret.
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
    """The link is refused for a reason that seldom goes away by itself (a login, a certificate, an option).

    It ends the first dial, as every error does. While reconnecting it means the longest wait."""


class PeerClosed(ConnectionError):
    """The peer closed the link by a close frame, whose `code` and `reason` these are."""

    def __init__(self, code: int | None, reason: str) -> None:
        shown = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
        said = " ".join(part for part in ("" if code is None else str(code), shown) if part)
        super().__init__(f"closed by the peer: {said or 'no code'}")
        self.code = code
        self.reason = reason


class Overflow(Enum):
    """What happens when the buffer is full."""

    DROP_OLDEST = "drop-oldest"
    BACK_PRESSURE = "back-pressure"


class Ending(Enum):
    """Why the worker ends a link that is open."""

    CLOSED = "closed"
    """The program closed the connection: the peer is told of a good end."""
    ABANDONED = "abandoned"
    """The program died, or ended without `close()`: nobody will come back for this connection."""
    LOST = "lost"
    """The worker takes the link for lost (option `idle`); another link of this connection may follow."""


class Delivery(NamedTuple):
    """A message with what came with it: its envelope, and how it is acknowledged.

    The fields from `topic` to `properties` are what `trunkline.Message` shows; None where the protocol has
    no such thing.
    """

    data: str | bytes
    topic: str | None = None
    """Topic, subject or routing key."""
    key: str | bytes | None = None
    headers: dict[str, Any] | None = None
    """Values as `trunkline.wire.values` can carry them; a name that is there more than once has a list."""
    timestamp: float | None = None
    """When it was written, by the clock of the writer or the broker: wall clock seconds."""
    offset: int | None = None
    """Kafka's offset, JetStream's stream sequence, AMQP's delivery tag."""
    partition: int | None = None
    redelivered: bool = False
    """The broker says that it may have been delivered before."""
    reply_to: str | None = None
    """Where the writer waits for an answer: NATS's reply subject, AMQP's reply_to, MQTT's response topic."""
    properties: dict[str, Any] | None = None
    """What else the protocol gives: AMQP's message_id and content_type, MQTT's qos and retain, and so on."""
    token: Any = None
    """Given back to `StreamDriver.settle` when a reader has the message; None: nobody waits for that."""
    identity: Hashable = None
    """By what the same message is known again when the broker sends it a second time, after a lost link, to
    this connection (partition and offset, stream sequence, ...); None: it cannot be known."""


class Sink(Protocol):
    """Where a stream driver puts what it receives. All methods are called on the worker's loop."""

    def message(self, data: str | bytes) -> None:
        """One message. `str` promises valid text; `bytes` may still become text (option `decode`)."""

    def messages(self, batch: Sequence[str | bytes]) -> None:
        """Several messages in order; cheaper than one by one."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Several messages in order, with their envelopes."""

    def lost(self, reason: BaseException | None) -> None:
        """The link is gone; `PeerClosed` where the peer has said why, None where the peer ended it in good
        order and the protocol has no words for that. Called once, at the latest."""

    def warn(self, text: str) -> None:
        """One line for the user's log about something that did not end the link."""

    def dropped(self, count: int) -> None:
        """Messages the library or the kernel threw away before we had them."""


class Driver(ABC):
    """What every driver declares."""

    schemes: ClassVar[tuple[str, ...]]
    """The schemes it answers to."""
    transient: ClassVar[tuple[type[BaseException], ...]] = (
        OSError,
        EOFError,
        TimeoutError,
        DialError,
    )
    """Errors of `open` after which another attempt may well succeed, but for a `FatalError`. It follows after
    the waits of `interval`, and while a statement waits for the link. After any other error the next attempt
    of a stream waits as long as after a FatalError; a statement ends with it, and the next one tries
    again."""
    extra: ClassVar[str | None] = None
    """The extra that brings the library (`pip install trunkline[extra]`), None for the core."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def peer(self) -> str:
        """Who is at the other end, for `ps` and logs; no secret."""
        return join_host_port(str(self.address.host), self.address.port)


class StreamDriver(Driver):
    """A driver whose connection can be read from and written to."""

    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST
    lost_is_none: ClassVar[bool] = False
    """True: a lost link reads as None (tcp, tls, unix, udp); False: as "" (ws and message brokers)."""
    byte_stream: ClassVar[bool] = False
    """True: messages are pieces of one stream of bytes, so a character may be split between two."""
    confirms: ClassVar[bool] = False
    """True: `send` waits for the peer's word that it has the message. Several may wait at the same time; the
    messages go out in the order of the calls."""
    addressing: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Outgoing` that `send_to` takes."""
    verdicts: ClassVar[frozenset[str]] = frozenset()
    """What `refuse` can do: `nak` (give the message back to the peer), `reject` (the peer is never to send it
    again). Without `nak` the worker gives the message to the next reader itself."""

    seeks: ClassVar[bool] = False
    """Reading can go on at another place of the peer's log (`Connection.seek`)."""

    had_link: bool = False
    """This connection had a link before this attempt, perhaps in a worker that has died since. What `Dial`
    makes on a server (a queue, a topic) is made for the first link only; after that it is waited for."""

    inherited: Mapping[str, Any] = MappingProxyType({})
    """What a driver of the worker before this one has bequeathed, where that worker was killed."""

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address)
        self.sink = sink

    @classmethod
    def acknowledges(cls, address: Address) -> bool:
        """Whether the peer waits for `settle`, so that `receive(ack=False)` makes sense."""
        return cls.redelivers(address)

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        """What happens when the buffer is full, where that depends on the address."""
        return cls.overflow

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        """Whether the peer keeps a message until it is settled, and sends it again to whoever comes after a
        link that broke. Then what a crashed worker had is not lost, and is not read from its remains."""
        return False

    @abstractmethod
    async def open(self, deadline: Deadline) -> None:
        """Establish the link or raise, by the deadline. Messages may arrive before it returns."""

    @abstractmethod
    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Hand `data` to the transport and return the bytes it took: 0 when it took none by the
        deadline. Nothing may stay queued for after an outage. Raise OSError when the link is gone."""

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """As `send`, for a message with an address of its own: the fields of `outgoing` that are given are
        among `addressing`. `data` is None for a message without a value (field `null`). Raise RefusedError
        where a value cannot be sent."""
        raise Unsupported(f"{self.address.scheme}:// has no envelope to write")

    def would_wait(self, size: int) -> bool:
        """Whether `send` of so many bytes might have to wait. A driver that can say no is asked for such a
        send without a task of its own, which is a third of a small write's cost."""
        return True

    @abstractmethod
    async def close(self) -> None:
        """Close the link in good order within about a second. Idempotent; also after a failed open."""

    async def end(self, ending: Ending) -> None:
        """End the link as `close` does. Where the protocol can tell the peer whether the program closed the
        connection or died, the driver overrides this and tells it."""
        await self.close()

    async def seek(self, place: Place, deadline: Deadline) -> Callable[[Any], bool]:
        """Go on reading at `place` (`seeks`). What is returned tells of a token whether its message is from
        before and is to be given to nobody any more; such tokens are settled. RefusedError where there is no
        such place, TimeoutError: both leave reading where it was."""
        raise Unsupported(f"{self.address.scheme}:// has no seek")

    def pause(self) -> None:
        """Stop taking from the peer (back-pressure); the buffer is full."""

    def resume(self) -> None:
        """Go on taking from the peer."""

    def settle(self, tokens: Sequence[Any]) -> None:
        """Readers have the messages with these tokens (in the order in which they took them): acknowledge.
        Only tokens of this link come here. Must not wait."""

    def refuse(self, token: Any, verdict: str, delay_ms: float) -> None:
        """The reader of the message with this token has not done its work: one of `verdicts`. `delay_ms`: the
        peer is to send a `nak` message again no sooner than that. Must not wait."""
        raise Unsupported(f"{self.address.scheme}:// has no {verdict}")

    def lag(self) -> int | None:
        """How many messages the message broker has for this connection that no reader has taken, those that
        were delivered and not settled included, as the broker last said (`stats().lag`); None where that is
        not known. Must not wait."""
        return None

    def bequeath(self) -> dict[str, Any]:
        """What the drivers of the next worker are to know should this one be killed (`inherited`): a few
        plain values. Asked for each second, and when the link opens or is lost. Must not wait."""
        return {}

    async def request(self, data: str | bytes, deadline: Deadline) -> Delivery:
        """Send a question and return its answer (`Connection.request`), where the protocol has such a thing.
        TimeoutError when none came by the deadline."""
        raise Unsupported(f"{self.address.scheme}:// has no request: use write and read")

    async def ping(self) -> None:
        """Send the protocol's own keepalive, where it has one (option `pingType=control`)."""

    def traffic(self) -> Traffic | None:
        """How many bytes have gone over the link (see `trunkline.actors.net.socket_traffic`). With it the
        worker finds a dead peer after `ping`; None: whole messages are all it counts, and the driver itself
        has to find that its own pings are not answered."""
        return None


class ExecDriver(Driver):
    """A driver whose connection executes statements. Called from one thread, but for `interrupt` and
    `abort`."""

    dialect: ClassVar[str] = "standard"
    """By whose rules a text is cut into strings, comments and statements: `sqlite`, `mysql`, `postgres`,
    `clickhouse`, or `standard`, SQL as its standard has it."""
    queries_apart: ClassVar[bool] = False
    """True: while rows of `query` are not all fetched, the connection can do nothing else. Then a query
    outside of transactions gets a driver object, so a link to the server, of its own."""
    interrupt_waits: ClassVar[bool] = False
    """True: `interrupt` asks the server, so it may take a while; it is called on a thread for that."""

    warn: Callable[[str], None] = staticmethod(lambda text: None)
    """One line for the user's log; replaced by the worker before `open`."""

    @abstractmethod
    def open(self, deadline: Deadline) -> None:
        """Connect and apply the address's session settings, or raise, by the deadline."""

    @abstractmethod
    def execute(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Result:
        """Run one statement. Raise `StatementError` (with the server's code) when it is refused and
        `ConnectionError` when the server is gone."""

    def query(self, sql: str, binds: Sequence[Any] | Mapping[str, Any]) -> Rows:
        """Run one statement whose rows are fetched in bounded memory. Errors as `execute`."""
        return ResultRows(self.execute(sql, binds))

    @classmethod
    def joins(cls, sql: str) -> bool:
        """Whether a statement is a short write that may be committed together with those of others."""
        return False

    def execute_together(
        self, statements: Sequence[tuple[str, Sequence[Any] | Mapping[str, Any]]]
    ) -> Sequence[Result | StatementError | ConnectionError]:
        """Run statements that wait at the same time, each of which `joins`, with one commit.

        Returns what each of them gave, or fewer: the others were not run, and each is to be run alone. To
        whoever sent one it is as if it had run alone: one that is refused leaves the others alone, and an
        answer says that it is committed. A ConnectionError says that the outcome of a statement is not known.
        Raises what `execute` raises when none was run."""
        return []

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Result:
        """Run one statement once for each row of values: all or none, where the database has transactions and
        none is open already. `affected` is the sum. Errors as `execute`."""
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
        """Make a running `execute` or `fetch` end soon with an error, by telling the server. Called from
        another thread, perhaps more than once; the next statement begins only after it has returned."""

    def abort(self) -> None:
        """Break the link, because the server does not even react to `interrupt`: the running call ends with
        ConnectionError. Called from another thread."""

    def alive(self) -> bool:
        """Whether the server still holds the link, as far as can be known without a word to it (see
        `hung_up`). Asked before each statement: one that has ended meanwhile is opened anew, and the
        statement, which was never sent, is run there."""
        return True

    def reset(self) -> bool:
        """Bring the session back to what `open` made of it; False: there is no way, open another link.

        Asked of the link of a query before it serves the next one: whatever a statement has set or locked on
        it must not meet somebody else's."""
        return False

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection."""

    @abstractmethod
    def begin(self) -> None: ...

    def begin_as(self, how: str) -> None:
        """Begin a transaction with modes of the database's own, which stand behind BEGIN in its SQL (`READ
        ONLY`). StatementError where it has none."""
        raise StatementError(f"{self.address.scheme}:// cannot begin a transaction as {how}")

    @abstractmethod
    def commit(self) -> None:
        """StatementError when it was not committed."""

    @abstractmethod
    def rollback(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Idempotent."""
