"""Frames and kinds of messages (the reference is docs/protocol.md).

A message on the wire is `[peer][header][body...]`. On the way to the broker, `peer` is the
receiver; on the way from the broker, the sender. The broker replaces `peer`, and forwards header
and body untouched. The header is a version byte, then a msgpack array `[kind, request id,
fields...]`. Only the receiver decodes it.
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
    "header",
    "kind_of",
    "parse",
]

VERSION = 1
_VERSION_BYTE = bytes([VERSION])

BROKER = b""
"""The address of the broker itself."""

CONNECTION_ID_BYTES = 8
"""A peer of this length is a connection. Apart from BROKER, any other peer is a socket."""


class Kind(IntEnum):
    """The kind of a message. `trunkline.wire.messages` has fields, sender and receiver."""

    HELLO = 1
    WELCOME = 2
    BEAT = 3
    LOG = 4
    BYE = 5
    OPEN = 10
    OPENED = 11
    FAILED = 12
    ATTACH = 13
    ATTACHED = 14
    DETACH = 15
    GONE = 16
    START = 17
    PUSH = 20
    ACK = 21
    READ = 22
    CANCEL = 23
    CANCELLED = 24
    KEEP = 27
    CLOSING = 28
    RECALL = 25
    RECALLED = 26
    WRITE = 30
    EXEC = 31
    TRANSACTION = 32
    STATS = 33
    HANDLE = 34
    LIST = 35
    KILL = 36
    REQUEST = 37
    REPLY = 38
    ERROR = 39
    QUERY = 40
    FETCH = 41
    END_QUERY = 42
    EXECUTEMANY = 43
    PART = 44
    SETTLE = 45
    SEEK = 46
    READY = 50
    STATE = 51
    CLOSE = 52
    REREGISTER = 53
    RECORD = 54


STATEMENTS = frozenset((Kind.EXEC, Kind.EXECUTEMANY, Kind.QUERY))
"""Requests that may have taken effect even without an answer."""
REQUESTS = STATEMENTS | {
    Kind.WRITE, Kind.REQUEST, Kind.FETCH, Kind.TRANSACTION, Kind.STATS, Kind.SETTLE, Kind.SEEK
}  # fmt: skip
"""Requests to a worker: where the worker dies, the broker answers them."""


class Mark(IntEnum):
    """An entry of the stream that stands for a change of the link, in its place in the order."""

    DOWN = 0  # the link was lost
    UP = 1  # the link is there again
    END = 2  # the link was lost for good


def header(kind: Kind, request_id: int = 0, *fields: Any) -> bytes:
    """Return the header frame of a message."""
    packed: bytes = msgpack.packb((int(kind), request_id, *fields), use_bin_type=True)
    return _VERSION_BYTE + packed


def kind_of(frame: bytes) -> int:
    """Return the kind in a header frame without decoding it; -1 for a frame without a kind.

    All kinds are below 128, so msgpack writes a kind as one byte.
    """
    return frame[2] if len(frame) > 3 else -1


def parse(frame: bytes) -> tuple[Kind, int, list[Any]]:
    """Return the kind, request id and fields of a header frame.

    Raises RemoteError for another protocol version, and for a frame that is no header.
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
        raise RemoteError(
            "a message that is not Trunkline's arrived on the broker's socket"
        ) from error
