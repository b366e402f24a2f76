"""What each kind of message carries, as a class with named fields: the one place that says so.

docs/protocol.md has its table of kinds from here (`scripts/reference.py` writes it). A class is made from the
fields of a header with `unpack`, which refuses what its annotations do not allow, and is itself the tuple of
fields for `trunkline.wire.envelope.header`.

A few kinds carry other fields on the way from the broker to a worker than on the way to the broker: such a
kind has a class for each way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NewType, TypeVar, get_args, get_origin, get_type_hints

from trunkline.errors import RemoteError
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["LARGEST_COUNT", "MESSAGES", "TO_WORKER", "Name", "Row", "check", "table_of_kinds"]

LARGEST_COUNT = 1 << 53
"""Counts beyond it are no counts: they would be felt by everybody who reads from a connection."""
C = TypeVar("C", bound=type)


class Row(NamedTuple):
    """A row of the table of kinds."""

    kind: Kind
    fields: type
    way: str
    body: str


MESSAGES: list[Row] = []


def _message(kind: Kind, way: str, body: str = "") -> Callable[[C], C]:
    """`way`: who sends it to whom; `body`: what follows the header, in words."""

    def register(fields: C) -> C:
        MESSAGES.append(Row(kind, fields, way, body))
        return fields

    return register


Number = int | float
Name = NewType("Name", bytes)
"""What a holder is known by. Never empty: that is the broker's."""


# the life of a program, on its control socket


@_message(Kind.HELLO, "client > broker")
class Hello(NamedTuple):
    """A program introduces itself. The answer is WELCOME."""

    pid: int


@_message(Kind.WELCOME, "broker > client")
class Welcome(NamedTuple):
    """The broker knows the program now; `pid` is the broker's."""

    pid: int


@_message(Kind.BEAT, "client > broker")
class ClientBeat(NamedTuple):
    """Sent in each second of silence."""


@_message(Kind.BEAT, "broker > client")
class BrokerBeat(NamedTuple):
    """The answer; `pid` is the broker's."""

    pid: int


@_message(Kind.BEAT, "broker > worker")
class WorkerBeat(NamedTuple):
    """The answer to STATE; `users` are the processes that use the connection."""

    pid: int
    users: list[int]


@_message(Kind.LOG, "worker > broker > clients that hold the connection")
class Log(NamedTuple):
    """A line for the users' logs; `level` as in `logging`."""

    level: str
    text: str


@_message(Kind.BYE, "client > broker")
class Bye(NamedTuple):
    """The program leaves the broker, though its process goes on."""


# the life of a connection, on its stream socket


@_message(Kind.OPEN, "client > broker", "the address")
class Open(NamedTuple):
    """Dial. `restart`: a crashed worker is replaced. The answer is OPENED or FAILED."""

    control: bytes
    timeout_ms: Number
    restart: bool
    linger_s: Number


@_message(Kind.OPENED, "worker > broker")
class Linked(NamedTuple):
    """The worker has its link; the figures and what the next worker is to know are in `news`."""

    news: dict[str, Any]


@_message(Kind.OPENED, "broker > client")
class Opened(NamedTuple):
    """The connection is open. `info` has its figures, and the incarnation of its worker as `serving`."""

    connection: bytes
    info: dict[str, Any]


@_message(Kind.FAILED, "worker or broker > client")
class Failed(NamedTuple):
    """An OPEN or ATTACH has failed. An error is `{name, text, code}`; `trunkline.errors` has the class."""

    error: dict[str, Any]


@_message(Kind.ATTACH, "client > broker")
class Attach(NamedTuple):
    """Become a holder, by `handle` or else by `connection`; after a lost broker again, with the name of
    before (`former`). `epoch`, `consumed`, `kept` (pairs as in KEEP) tell of the worker of incarnation
    `serving`."""

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
    """There is a further holder, or one with another name."""

    holder: Name
    control: bytes
    former: bytes
    epoch: int
    consumed: int
    kept: list[list[int]]


@_message(Kind.ATTACHED, "broker > client")
class Attached(NamedTuple):
    """The answer to ATTACH; as OPENED."""

    connection: bytes
    info: dict[str, Any]


@_message(Kind.DETACH, "client > broker")
class Detach(NamedTuple):
    """A holder goes; `closed`: the program called `close()`. Without a connection: an OPEN or ATTACH of this
    holder is waited for no more."""

    connection: bytes
    holder: Name
    consumed: int | None
    closed: bool | None


@_message(Kind.DETACH, "broker > worker")
class HolderLeft(NamedTuple):
    """A holder has gone, or its process has died (`consumed` is None then)."""

    holder: Name
    consumed: int | None
    closed: bool | None


@_message(Kind.GONE, "broker > client")
class Gone(NamedTuple):
    """The worker is gone. `goes_on`: another one, of incarnation `serving`, takes over; else for good. A
    `serving` of 0: the broker does not know the connection, so that the holder has to attach again."""

    goes_on: bool
    reason: str
    serving: int


@_message(Kind.START, "client > worker")
class Start(NamedTuple):
    """The holder can be served from now on. `down`: it takes the link to be down. `had`: messages that it had
    of former workers. `serving`: the incarnation of the worker that it counts for; a later worker answers
    GONE."""

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
    """Entries. `stream`: more will come unasked. `more`: the worker has more. `first`: entries sent before.
    `losses`: the causes of the losses among the entries. `answer`: the ask that this answers; 0 for none."""

    epoch: int
    stream: bool
    more: bool
    first: int
    stamped: bool
    losses: list[list[Any]]
    answer: int


@_message(Kind.ACK, "client > worker")
class Ack(NamedTuple):
    """So many entries were consumed in total, so many of these skipped; asks up to number `over` are over."""

    holder: Name
    consumed: int
    skipped: int
    over: int


@_message(Kind.READ, "client > worker")
class Read(NamedTuple):
    """An ask for an entry. `wait`: until there is one. `newest`: as `read(-2)`. The rest is as in ACK and
    START."""

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
    """The ask of this number is waited for no more. The answer is CANCELLED."""

    holder: Name
    number: int


@_message(Kind.CANCELLED, "worker > client")
class Cancelled(NamedTuple):
    """Sent behind every entry that was sent before it."""

    number: int


@_message(Kind.RECALL, "worker > client's control socket")
class Recall(NamedTuple):
    """Give back what was not consumed. `elsewhere`: reading goes on somewhere else (SEEK), so that what the
    holder has of former workers is void, too."""

    holder: Name
    epoch: int
    elsewhere: bool


@_message(Kind.RECALLED, "client > worker")
class Recalled(NamedTuple):
    """The answer to RECALL. `waiting`: the ask that is waited for; 0 for none. `kept`: pairs as in KEEP."""

    holder: Name
    epoch: int
    consumed: int
    waiting: int
    kept: list[list[int]]
    envelopes: bool


@_message(Kind.KEEP, "client > worker")
class Keep(NamedTuple):
    """The message that `consumed` will include is acknowledged by SETTLE, with this ticket."""

    holder: Name
    consumed: int
    ticket: int


@_message(Kind.CLOSING, "client > worker")
class Closing(NamedTuple):
    """The program called `close()`. By the pipe alone, where it arrives also if the program is killed before
    its DETACH has left."""

    holder: Name


# requests: each has an id, a deadline and exactly one answer


@_message(Kind.WRITE, "client > worker", "the data")
class Write(NamedTuple):
    """`until`: when the time is over, by the monotonic clock. `addressed`: topic, key and so on, packed;
    empty where the message goes as the connection says."""

    timeout_ms: Number
    text: bool
    until: Number
    addressed: bytes


class Statement(NamedTuple):
    """`transaction`: the token of the block that the statement belongs to, or None."""

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
    """`what`: begin, commit or rollback, begin with its modes (`begin READ ONLY`). Without `until` it is
    carried out in any case."""

    holder: Name
    transaction: bytes
    what: str
    timeout_ms: Number
    until: Number | None


@_message(Kind.FETCH, "client > worker", "The answer: `[more, packed rows]`")
class Fetch(NamedTuple):
    """More rows of a query."""

    holder: Name
    query: int
    timeout_ms: Number | None


@_message(Kind.END_QUERY, "client > worker")
class EndQuery(NamedTuple):
    """Answered when it has a request id."""

    holder: Name
    query: int


@_message(Kind.PART, "worker > client", "packed rows")
class Part(NamedTuple):
    """Rows of an EXEC, ahead of its REPLY and with its request id."""


@_message(Kind.REQUEST, "client > worker", "the question")
class Request(NamedTuple):
    """A question that is answered by a message."""

    timeout_ms: Number
    text: bool
    until: Number


@_message(Kind.SETTLE, "client > worker")
class Settle(NamedTuple):
    """`verdict`: `ack`, `nak` or `reject`. The REPLY is empty."""

    ticket: int
    verdict: str
    delay_ms: Number


@_message(Kind.SEEK, "client > worker")
class Seek(NamedTuple):
    """`place`: `earliest`, `latest`, `offset` or `time`; `value`: the offset, or ms since 1970. The REPLY is
    empty, and comes when all holders have answered their RECALL."""

    timeout_ms: Number
    until: Number
    place: str
    value: int
    topic: str | None
    partition: int | None


@_message(Kind.STATS, "client > worker")
class Figures(NamedTuple):
    """The answer: the figures."""


@_message(Kind.HANDLE, "client > broker")
class Handle(NamedTuple):
    """The answer: a handle of the connection."""

    connection: bytes


@_message(Kind.LIST, "client > broker")
class List(NamedTuple):
    """The answer: all connections of this broker."""


@_message(Kind.KILL, "client > broker")
class Kill(NamedTuple):
    """End the connection of this number. The answer: whether there was one."""

    number: str


@_message(Kind.REPLY, "answer to a request", "the value")
class Reply(NamedTuple):
    """Has the request's id."""


@_message(Kind.ERROR, "answer to a request")
class Error(NamedTuple):
    """Has the request's id. The error as in FAILED."""

    error: dict[str, Any]


# the life of a worker


@_message(Kind.READY, "worker > broker")
class Ready(NamedTuple):
    """A worker is there, at first or after a lost broker. `holders`: pairs of holder and control socket."""

    record: dict[str, Any]
    incarnation: int
    pid: int
    holders: list[list[bytes]]
    news: dict[str, Any]
    users: list[int]


@_message(Kind.STATE, "worker > broker, each second")
class State(NamedTuple):
    """The figures, and among them `bequest`: what the worker that replaces a killed one is started with."""

    news: dict[str, Any]


@_message(Kind.CLOSE, "broker > worker")
class Close(NamedTuple):
    """End in good order."""


@_message(Kind.REREGISTER, "broker > worker or client")
class Reregister(NamedTuple):
    """The broker does not know it: say READY or HELLO again."""


@_message(Kind.RECORD, "broker > worker")
class Record(NamedTuple):
    """What a new broker must know of the connection."""

    record: dict[str, Any]


TO_WORKER: dict[Kind, type] = {
    row.kind: row.fields for row in MESSAGES if row.way == "client > worker"
}


def check(message: type, fields: list[Any]) -> None:
    """RemoteError when the fields are not those of a message: by number, by type, and by size where they are
    counted with."""
    kinds = _allowed(message)
    if len(fields) != len(kinds) or not all(map(_is_sound, fields, kinds)):
        raise RemoteError(f"a malformed {message.__name__} arrived")


class _Allowed(NamedTuple):
    types: tuple[type, ...]
    is_name: bool


_ALLOWED: dict[type, list[_Allowed]] = {}


def _allowed(message: type) -> list[_Allowed]:
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
    if type(value) not in allowed.types:
        return False
    if type(value) is int:
        return abs(value) <= LARGEST_COUNT
    if type(value) is list:
        return all(map(_is_pair, value))
    return not (allowed.is_name and value == BROKER)


def _is_pair(value: Any) -> bool:
    """A list in a message to a worker is one of pairs: consumed, ticket."""
    if type(value) is not list or [type(each) for each in value] != [int, int]:
        return False
    return all(abs(count) <= LARGEST_COUNT for count in value)


def table_of_kinds() -> str:
    """The table of kinds as Markdown."""
    lines = ["| kind | from, to | fields | body | |", "|---|---|---|---|---|"]
    for kind, fields, way, body in sorted(MESSAGES, key=lambda row: row.kind):
        names = ", ".join(f"`{name}`" for name in getattr(fields, "_fields", ()))
        text = " ".join((fields.__doc__ or "").split())
        lines.append(f"| {kind.value} {kind.name} | {way} | {names} | {body} | {text} |")
    return "\n".join(lines)
