"""The fields of each kind of message, as a class with named fields. Stated only here.

docs/protocol.md has its table of kinds from the docstrings below (`scripts/reference.py` writes
it). A class is made from the fields of a header. It is itself a tuple of the fields, as
`trunkline.wire.envelope.header` takes them. `check` refuses fields that the annotations do not
allow.

A few kinds have different fields on the way to the broker and on the way from the broker to a
worker. Such a kind has a class for each way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NewType, TypeVar, get_args, get_origin, get_type_hints

from trunkline.errors import RemoteError
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["LARGEST_COUNT", "MESSAGES", "TO_WORKER", "Name", "Row", "check", "table_of_kinds"]

LARGEST_COUNT = 1 << 53
"""Larger counts are refused: a false count would harm all readers of a connection."""
C = TypeVar("C", bound=type)


class Row(NamedTuple):
    """A row of the table of kinds."""

    kind: Kind
    fields: type
    way: str
    body: str


MESSAGES: list[Row] = []


def _message(kind: Kind, way: str, body: str = "") -> Callable[[C], C]:
    """Add a class to MESSAGES. `way`: sender and receiver; `body`: the frames behind the header, in
    words."""

    def register(fields: C) -> C:
        MESSAGES.append(Row(kind, fields, way, body))
        return fields

    return register


Number = int | float
Name = NewType("Name", bytes)
"""The name of a holder. Never empty: the empty name is the broker's."""


# the life of a program, on its control socket


@_message(Kind.HELLO, "client > broker")
class Hello(NamedTuple):
    """A program introduces itself. The answer is WELCOME."""

    pid: int


@_message(Kind.WELCOME, "broker > client")
class Welcome(NamedTuple):
    """The broker knows the program now. `pid`: the broker's process id."""

    pid: int


@_message(Kind.BEAT, "client > broker")
class ClientBeat(NamedTuple):
    """Sent in each second of silence."""


@_message(Kind.BEAT, "broker > client")
class BrokerBeat(NamedTuple):
    """The answer to a program's BEAT. `pid`: the broker's process id."""

    pid: int


@_message(Kind.BEAT, "broker > worker")
class WorkerBeat(NamedTuple):
    """The answer to STATE. `pid`: the broker's process id. `users`: ids of the processes that use
    the connection."""

    pid: int
    users: list[int]


@_message(Kind.LOG, "worker > broker > clients that hold the connection")
class Log(NamedTuple):
    """A line for the users' logs. `level`: as in `logging`."""

    level: str
    text: str


@_message(Kind.BYE, "client > broker")
class Bye(NamedTuple):
    """The program leaves the broker, and its process goes on."""


# the life of a connection, on its stream socket


@_message(Kind.OPEN, "client > broker", "the address")
class Open(NamedTuple):
    """Dial. `restart`: crashed workers are replaced. The answer is OPENED or FAILED."""

    control: bytes
    timeout_ms: Number
    restart: bool
    linger_s: Number


@_message(Kind.OPENED, "worker > broker")
class Linked(NamedTuple):
    """The worker has its first link. `news`: the figures and the bequest, as in STATE."""

    news: dict[str, Any]


@_message(Kind.OPENED, "broker > client")
class Opened(NamedTuple):
    """The connection is open. `info`: its figures, and the incarnation of its worker as
    `serving`."""

    connection: bytes
    info: dict[str, Any]


@_message(Kind.FAILED, "worker or broker > client")
class Failed(NamedTuple):
    """An OPEN or ATTACH has failed. An error is `{name, text, code}`; `trunkline.errors` has the
    class."""

    error: dict[str, Any]


@_message(Kind.ATTACH, "client > broker")
class Attach(NamedTuple):
    """Become a holder, by `handle` or else by `connection`. After a lost broker, a holder attaches
    again under a new name; `former` is the old one. `epoch`, `consumed` and `kept` (pairs as in
    KEEP) count messages of the worker of incarnation `serving`."""

    control: bytes
    handle: int
    connection: bytes
    former: bytes
    epoch: int
    consumed: int
    kept: list[list[int]]
    serving: int


@_message(Kind.ATTACH, "broker > worker")
class HolderCame(NamedTuple):
    """A holder has come, or has a new name (`former`: the old one)."""

    holder: Name
    control: bytes
    former: bytes
    epoch: int
    consumed: int
    kept: list[list[int]]


@_message(Kind.ATTACHED, "broker > client")
class Attached(NamedTuple):
    """The answer to ATTACH. The fields are those of OPENED."""

    connection: bytes
    info: dict[str, Any]


@_message(Kind.DETACH, "client > broker")
class Detach(NamedTuple):
    """A holder goes. `closed`: the program called `close()`. Without a connection: the program has
    given up the OPEN or ATTACH of this holder."""

    connection: bytes
    holder: Name
    consumed: int | None
    closed: bool | None


@_message(Kind.DETACH, "broker > worker")
class HolderLeft(NamedTuple):
    """A holder has gone. `consumed` is None where its process has died."""

    holder: Name
    consumed: int | None
    closed: bool | None


@_message(Kind.GONE, "broker > client")
class Gone(NamedTuple):
    """The worker is gone. `goes_on`: another worker, of incarnation `serving`, takes over; else the
    connection has ended. `serving` is 0 where the broker does not know the connection: the holder
    then attaches again."""

    goes_on: bool
    reason: str
    serving: int


@_message(Kind.START, "client > worker")
class Start(NamedTuple):
    """The holder is ready to be served. `down`: it takes the link to be down. `had`: messages that
    it had of former workers. `serving`: the incarnation of the worker that its counts are about; a
    later worker answers GONE."""

    holder: Name
    down: bool
    had: int
    envelopes: bool
    serving: int


@_message(Kind.START, "worker > client")
class Started(NamedTuple):
    """The answer to START."""


# the stream


@_message(Kind.PUSH, "worker > client", "entries, then the stamps")
class Push(NamedTuple):
    """Entries. `stream`: more entries will come unasked. `more`: the worker has more entries.
    `first`: the number of entries sent before. `losses`: the causes of the losses among the
    entries. `answer`: the number of the READ that this answers; 0 for none."""

    epoch: int
    stream: bool
    more: bool
    first: int
    stamped: bool
    losses: list[list[Any]]
    answer: int


@_message(Kind.ACK, "client > worker")
class Ack(NamedTuple):
    """`consumed`: entries consumed in total. `skipped`: how many of these were skipped. `over`:
    READs up to this number are over."""

    holder: Name
    consumed: int
    skipped: int
    over: int


@_message(Kind.READ, "client > worker")
class Read(NamedTuple):
    """Ask for an entry. `wait`: until an entry comes. `newest`: as `read(-2)`. The remaining fields
    are as in ACK and START."""

    holder: Name
    number: int
    epoch: int
    consumed: int
    skipped: int
    wait: bool
    newest: bool
    had: int
    envelopes: bool


@_message(Kind.CANCEL, "client > worker")
class Cancel(NamedTuple):
    """The program no longer waits for the READ of this number. The answer is CANCELLED."""

    holder: Name
    number: int


@_message(Kind.CANCELLED, "worker > client")
class Cancelled(NamedTuple):
    """The answer to CANCEL, behind all entries that were sent before."""

    number: int


@_message(Kind.RECALL, "worker > client's control socket")
class Recall(NamedTuple):
    """Give back all entries that were not consumed. `elsewhere`: reading goes on at another place
    (SEEK), so entries of former workers are void, too."""

    holder: Name
    epoch: int
    elsewhere: bool


@_message(Kind.RECALLED, "client > worker")
class Recalled(NamedTuple):
    """The answer to RECALL. `waiting`: the number of the READ that still waits; 0 for none. `kept`:
    pairs as in KEEP."""

    holder: Name
    epoch: int
    consumed: int
    waiting: int
    kept: list[list[int]]
    envelopes: bool


@_message(Kind.KEEP, "client > worker")
class Keep(NamedTuple):
    """SETTLE with this ticket will acknowledge a message. `consumed`: the count of consumed entries
    right after the message was taken."""

    holder: Name
    consumed: int
    ticket: int


@_message(Kind.CLOSING, "client > worker")
class Closing(NamedTuple):
    """The program called `close()`. Sent by the pipe alone, where it arrives even if the program is
    killed before its DETACH has left."""

    holder: Name


# requests: each has an id, a deadline and exactly one answer


@_message(Kind.WRITE, "client > worker", "the data")
class Write(NamedTuple):
    """`until`: the end of the time by the monotonic clock. `addressed`: topic, key and so on,
    packed; empty where the message goes as the connection says."""

    timeout_ms: Number
    text: bool
    until: Number
    addressed: bytes


class Statement(NamedTuple):
    """`transaction`: the token of the statement's transaction, or None."""

    holder: Name
    transaction: bytes | None
    timeout_ms: Number | None
    until: Number | None


_message(Kind.EXEC, "client > worker", "`[sql, binds]`")(Statement)
_message(
    Kind.QUERY,
    "client > worker",
    "`[sql, binds, query]`. The answer: `[columns, in transaction, more, packed rows]`",
)(Statement)
_message(
    Kind.EXECUTEMANY,
    "client > worker",
    "`[sql, chunks, rows in a chunk, rows]`, each chunk packed rows",
)(Statement)


@_message(Kind.TRANSACTION, "client > worker")
class Transaction(NamedTuple):
    """`what`: begin, commit or rollback; begin with its modes (`begin READ ONLY`). Without `until`,
    it is carried out in any case."""

    holder: Name
    transaction: bytes
    what: str
    timeout_ms: Number
    until: Number | None


@_message(Kind.FETCH, "client > worker", "The answer: `[more, packed rows]`")
class Fetch(NamedTuple):
    """Ask for more rows of a query."""

    holder: Name
    query: int
    timeout_ms: Number | None


@_message(Kind.END_QUERY, "client > worker")
class EndQuery(NamedTuple):
    """End a query. Answered if it has a request id."""

    holder: Name
    query: int


@_message(Kind.PART, "worker > client", "packed rows")
class Part(NamedTuple):
    """Rows of an EXEC. Sent ahead of its REPLY, with the same request id."""


@_message(Kind.REQUEST, "client > worker", "the question")
class Request(NamedTuple):
    """A question to the peer. The answer is a message of the peer."""

    timeout_ms: Number
    text: bool
    until: Number


@_message(Kind.SETTLE, "client > worker")
class Settle(NamedTuple):
    """Acknowledge or refuse a message. `verdict`: `ack`, `nak` or `reject`. The REPLY is empty."""

    ticket: int
    verdict: str
    delay_ms: Number


@_message(Kind.SEEK, "client > worker")
class Seek(NamedTuple):
    """Read on from another place. `place`: `earliest`, `latest`, `offset` or `time`; `value`: the
    offset, or ms since 1970. The REPLY is empty, and comes after all holders have answered their
    RECALL."""

    timeout_ms: Number
    until: Number
    place: str
    value: int
    topic: str | None
    partition: int | None


@_message(Kind.STATS, "client > worker")
class Figures(NamedTuple):
    """Ask for the figures."""


@_message(Kind.HANDLE, "client > broker")
class Handle(NamedTuple):
    """Ask for a handle of the connection."""

    connection: bytes


@_message(Kind.LIST, "client > broker")
class List(NamedTuple):
    """Ask for all connections of this broker."""


@_message(Kind.KILL, "client > broker")
class Kill(NamedTuple):
    """End the connection of this number. The answer: whether the connection was there."""

    number: str


@_message(Kind.REPLY, "answer to a request", "the value")
class Reply(NamedTuple):
    """The value that a request asked for. The request id is that of the request."""


@_message(Kind.ERROR, "answer to a request")
class Error(NamedTuple):
    """The error of a request, as in FAILED. The request id is that of the request."""

    error: dict[str, Any]


# the life of a worker


@_message(Kind.READY, "worker > broker")
class Ready(NamedTuple):
    """A worker registers, for the first time or after a lost broker. `holders`: pairs of holder and
    control socket."""

    record: dict[str, Any]
    incarnation: int
    pid: int
    holders: list[list[bytes]]
    news: dict[str, Any]
    users: list[int]


@_message(Kind.STATE, "worker > broker, each second")
class State(NamedTuple):
    """`news`: the figures, and among them `bequest`, values for the worker that replaces a crashed
    one."""

    news: dict[str, Any]


@_message(Kind.CLOSE, "broker > worker")
class Close(NamedTuple):
    """End in good order."""


@_message(Kind.REREGISTER, "broker > worker or client")
class Reregister(NamedTuple):
    """The broker does not know the sender: send READY or HELLO again."""


@_message(Kind.RECORD, "broker > worker")
class Record(NamedTuple):
    """The facts that a new broker needs about the connection."""

    record: dict[str, Any]


TO_WORKER: dict[Kind, type] = {
    row.kind: row.fields for row in MESSAGES if row.way == "client > worker"
}


def check(message: type, fields: list[Any]) -> None:
    """Raise RemoteError where the fields are not those of the message.

    The number of fields, their types and the size of counts are checked.
    """
    kinds = _allowed(message)
    if len(fields) != len(kinds) or not all(map(_is_sound, fields, kinds)):
        raise RemoteError(f"a malformed {message.__name__} arrived")


class _Allowed(NamedTuple):
    types: tuple[type, ...]
    is_name: bool


_ALLOWED: dict[type, list[_Allowed]] = {}


def _allowed(message: type) -> list[_Allowed]:
    """The types that the fields of a message may have, read from its annotations once."""
    found = _ALLOWED.get(message)
    if found is None:
        hints = get_type_hints(message).values()
        found = _ALLOWED[message] = [_Allowed(_types(hint), hint is Name) for hint in hints]
    return found


def _types(hint: Any) -> tuple[type, ...]:
    """The plain types that an annotation allows."""
    if hint is Name:
        return (bytes,)
    if get_origin(hint) in (list, dict):
        return (get_origin(hint),)
    parts = get_args(hint)
    return tuple(part for each in parts for part in _types(each)) if parts else (hint,)


def _is_sound(value: Any, allowed: _Allowed) -> bool:
    """Whether a field has an allowed type, a possible count, and no empty name."""
    if type(value) not in allowed.types:
        return False
    if type(value) is int:
        return abs(value) <= LARGEST_COUNT
    if type(value) is list:
        return all(map(_is_pair, value))
    return not (allowed.is_name and value == BROKER)


def _is_pair(value: Any) -> bool:
    """Whether a value is a pair of counts: consumed, ticket. Lists in messages to a worker hold
    such pairs."""
    if type(value) is not list or [type(each) for each in value] != [int, int]:
        return False
    return all(abs(count) <= LARGEST_COUNT for count in value)


def table_of_kinds() -> str:
    """Return the table of kinds as Markdown."""
    lines = ["| kind | from, to | fields | body | |", "|---|---|---|---|---|"]
    for kind, fields, way, body in sorted(MESSAGES, key=lambda row: row.kind):
        names = ", ".join(f"`{name}`" for name in getattr(fields, "_fields", ()))
        text = " ".join((fields.__doc__ or "").split())
        lines.append(f"| {kind.value} {kind.name} | {way} | {names} | {body} | {text} |")
    return "\n".join(lines)
