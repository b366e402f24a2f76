"""Frames and kinds of messages (the reference is docs/protocol.md).

On the wire a message is `[peer][header][body...]`. `peer` is whom it is for on the way to the
broker and whom it is from on the way out; the broker swaps the one for the other and forwards header
and body untouched. The header is one version byte followed by a msgpack array
`[kind, request id, fields...]`; only the addressee decodes it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgpack

from trunkline.errors import RemoteError

__all__ = [
    "BROKER",
    "CONNECTION_ID_BYTES",
    "REQUESTS",
    "STATEMENTS",
    "VERSION",
    "Kind",
    "Mark",
    "check_fields",
    "header",
    "kind_of",
    "parse",
]

VERSION = 1
_VERSION_BYTE = bytes([VERSION])

BROKER = b""
"""The address of the broker itself."""

CONNECTION_ID_BYTES = 8
"""A peer of this length is a connection (the broker knows its present worker); any other is a socket."""


class Kind(IntEnum):
    """What a message is. The comment tells who sends it to whom."""

    # life of a client process, on its control socket
    HELLO = 1  # client -> broker: pid, holders it has (after a lost broker)
    WELCOME = 2  # broker -> client: broker pid
    BEAT = 3  # both ways, when there was nothing else to say for a second
    LOG = 4  # worker -> broker -> clients that hold the connection: level, text
    BYE = 5  # client -> broker: it leaves, though its process goes on
    # life of a connection, on its stream socket
    OPEN = 10  # client -> broker: control id, address, timeout_ms
    OPENED = 11  # worker -> broker -> client: info
    FAILED = 12  # worker or broker -> client: error
    ATTACH = 13  # client -> broker -> worker: a further holder
    ATTACHED = 14  # worker -> client: info
    DETACH = 15  # client -> broker -> worker: holder, consumed, whether the program called close()
    GONE = 16  # broker -> client: the worker is gone, final or restarting
    START = (
        17  # client -> worker: holder, link is down for it, had, wants envelopes; from now on it is served
    )
    # the stream
    PUSH = 20  # worker -> client: epoch, flags; body: entries, at the end their stamps where they are wanted
    ACK = 21  # client -> worker: holder, consumed, skipped, asks up to this number are over
    READ = 22  # client -> worker: holder, number of the ask, consumed, how
    CANCEL = 23  # client -> worker: holder, number of the ask that is waited for no more
    CANCELLED = 24  # worker -> client: the number
    KEEP = 27  # client -> worker: holder, consumed, ticket; that message is acknowledged by SETTLE
    CLOSING = 28  # client -> worker, by its pipe: holder; the program closed it, should DETACH die with it
    RECALL = 25  # worker -> client's control socket: holder, epoch, reading goes on elsewhere
    RECALLED = 26  # client -> worker: holder, epoch, consumed, ask, kept: pairs as in KEEP, wants envelopes
    # requests: an id, a deadline and exactly one answer
    WRITE = 30  # client -> worker: timeout_ms; body: data
    EXEC = 31  # client -> worker: timeout_ms; body: sql and binds
    TRANSACTION = 32  # client -> worker: what, timeout_ms
    STATS = 33  # client -> worker
    HANDLE = 34  # client -> broker: connection
    LIST = 35  # client -> broker
    KILL = 36  # client -> broker: connection's number
    REQUEST = 37  # client -> worker: timeout_ms, text, at; body: question
    REPLY = 38  # answer: body
    ERROR = 39  # answer: error
    QUERY = 40  # client -> worker: as EXEC; the answer names the query whose rows follow
    FETCH = 41  # client -> worker: holder, query, timeout_ms; the answer: more rows
    END_QUERY = 42  # client -> worker: holder, query; answered when it has a request id
    EXECUTEMANY = 43  # client -> worker: as EXEC; body: sql and rows of binds
    PART = 44  # worker -> client: rows of an EXEC, before its answer
    SETTLE = 45  # client -> worker: ticket, verdict, delay_ms; the answer: nothing
    SEEK = 46  # client -> worker: timeout_ms, at, and a Place; the answer: nothing
    # life of a worker
    READY = 50  # worker -> broker: who I am (again after a lost broker)
    STATE = 51  # worker -> broker: state, figures
    CLOSE = 52  # broker -> worker: end in good order
    REREGISTER = 53  # broker -> worker or client it does not know: say READY or HELLO again
    RECORD = 54  # broker -> worker: what a new broker would have to know of this connection


STATEMENTS = frozenset((Kind.EXEC, Kind.EXECUTEMANY, Kind.QUERY))
"""Requests that may have taken effect although nobody answers."""
REQUESTS = STATEMENTS | {
    Kind.WRITE, Kind.REQUEST, Kind.FETCH, Kind.TRANSACTION, Kind.STATS, Kind.SETTLE, Kind.SEEK
}  # fmt: skip
"""Requests to a worker: the broker answers them when the worker dies with them."""


_FIELDS: dict[Kind, tuple[type, ...]] = {
    Kind.START: (bytes, bool, int, bool),
    Kind.ACK: (bytes, int, int, int),
    Kind.READ: (bytes, int, int, int, int, bool, bool, int, bool),
    Kind.CANCEL: (bytes, int),
    Kind.CLOSING: (bytes,),
    Kind.KEEP: (bytes, int, int),
    Kind.RECALLED: (bytes, int, int, int, list, bool),
}
_COUNT_LIMIT = 1 << 53


class Mark(IntEnum):
    """An entry of the stream that is no message: what happened to the link, in its place in the order."""

    DOWN = 0  # the link was lost
    UP = 1  # it is there again
    END = 2  # it was lost for good


def header(kind: Kind, request_id: int = 0, *fields: Any) -> bytes:
    """The header frame of a message."""
    packed: bytes = msgpack.packb((int(kind), request_id, *fields), use_bin_type=True)
    return _VERSION_BYTE + packed


def check_fields(kind: Kind, fields: list[Any]) -> None:
    """RemoteError when the fields of a reader's message are not what its kind has: they go into the sums of a
    connection, where one wrong number would be felt by all who read from it."""
    kinds = _FIELDS.get(kind)
    if kinds is None:
        return
    if tuple(map(type, fields)) != kinds or not all(map(_is_sound, fields)):
        raise RemoteError(f"a malformed {kind.name} arrived")


def _is_sound(value: Any) -> bool:
    """Whether a field can be counted with; a list is one of pairs (consumed, ticket). Bytes are a holder's
    name: the empty one is the broker's."""
    if type(value) is bytes:
        return value != BROKER
    if type(value) is int:
        return abs(value) <= _COUNT_LIMIT
    return type(value) is not list or all(map(_is_pair, value))


def _is_pair(value: Any) -> bool:
    return type(value) is list and list(map(type, value)) == [int, int] and all(map(_is_sound, value))


def kind_of(frame: bytes) -> int:
    """The kind of a header frame without decoding it: kinds are below 128, so they are one byte."""
    return frame[2] if len(frame) > 3 else -1


def parse(frame: bytes) -> tuple[Kind, int, list[Any]]:
    """The kind, request id and fields of a header frame.

    Raises RemoteError for another version or what is no header.
    """
    if frame[:1] != _VERSION_BYTE:
        raise RemoteError(
            f"a message of protocol version {frame[0] if frame else 'none'} arrived, this is {VERSION}: "
            "use the same release of trunkline in all programs that share a broker"
        )
    try:
        kind, request_id, *fields = msgpack.unpackb(frame[1:], raw=False, strict_map_key=False)
        return Kind(kind), int(request_id), fields
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise RemoteError("a message that is not Trunkline's arrived on the broker's socket") from error
