"""Envelopes as nobody of ours sends them: forged, cut, mutated, and made to use up memory. Pure, from a seed.

Left out are orders that any process of this user may give and that are then carried out: to kill, to
write to a connection whose id it knows, to leave in the name of a holder whose name it knows; and to be
a client in the name of a living process, for which the broker then stays.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import msgpack

from trunkline.wire import values
from trunkline.wire.envelope import Kind, header
from trunkline.wire.framing import frame

__all__ = ["ORDERS", "bombs", "envelope", "on_a_door"]

_MOST_PIDS = 1 << 22
ORDERS = (Kind.KILL, Kind.WRITE, Kind.REQUEST)
_LEAVES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1 << 31,
    1 << 63,
    -(1 << 63),
    0.5,
    "",
    "text",
    b"",
    b"12345678",
    [],
    {},
)
_SHAPES: dict[Kind, tuple[str, ...]] = {
    Kind.HELLO: ("int",),
    Kind.OPEN: ("id", "int", "bool", "int"),
    Kind.ATTACH: ("id", "int", "key", "id", "int", "int", "list", "int"),
    Kind.DETACH: ("key", "id", "int", "bool"),
    Kind.START: ("id", "bool", "int", "bool", "int"),
    Kind.ACK: ("id", "int", "int", "int"),
    Kind.READ: ("id", "int", "int", "int", "int", "bool", "bool", "int", "bool"),
    Kind.CANCEL: ("id", "int"),
    Kind.KEEP: ("id", "int", "int"),
    Kind.RECALLED: ("id", "int", "int", "int", "list", "bool"),
    Kind.EXEC: ("id", "int", "int", "int"),
    Kind.TRANSACTION: ("id", "int", "text", "int", "int"),
    Kind.HANDLE: ("key",),
    Kind.QUERY: ("id", "int", "int", "int"),
    Kind.FETCH: ("id", "int", "int"),
    Kind.END_QUERY: ("id", "int"),
    Kind.EXECUTEMANY: ("id", "int", "int", "int"),
    Kind.SETTLE: ("int", "text", "int"),
    Kind.READY: ("map", "int", "int", "list", "map", "list"),
    Kind.STATE: ("map",),
    Kind.OPENED: ("map",),
    Kind.FAILED: ("map",),
    Kind.GONE: ("bool", "text", "int"),
    Kind.LOG: ("text", "text"),
    Kind.RECORD: ("map",),
    Kind.ERROR: ("map",),
    Kind.PUSH: ("int", "bool", "bool", "int", "bool", "list", "int"),
}


def bombs() -> list[bytes]:
    """Small messages that stand for huge or bottomless values."""
    huge = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ]
    deep = [b"\x91" * 100_000, b"\x81\xa1a" * 50_000, b"\x91" * 1200 + b"\xc0"]
    inner = b"\x91\xc0"
    for code in (9, 10, 11):
        nested = inner
        for _ in range(200):
            nested = b"\x91" + struct.pack(">BIb", 0xC9, len(nested), code) + nested
        deep.append(nested)
    extensions = [struct.pack(">BIb", 0xC9, 1 << 30, code) for code in range(1, 14)]
    return [*huge, *deep, *extensions, b"\xdc\xff\xff" * 2000]


_BOMBS = bombs()


def _field(rng: random.Random, kind: str, key: bytes) -> Any:
    if rng.random() < 0.15:
        return rng.choice(_LEAVES)
    if kind == "id":
        return rng.choice((b"", b"x" * 8, rng.randbytes(5), rng.randbytes(16), b"y" * 300))
    if kind == "key":
        return rng.choice((key, key, b"x" * 8, key[:7]))
    if kind == "int":
        return rng.choice((0, 1, 7, 1 << 20, 1 << 53, 1 << 62, -1, -(1 << 40)))
    if kind == "list":
        return rng.choice(([], [1], [[1, 2]], [[-1, 1 << 60]], [None] * 100, [[[]]]))
    if kind == "map":
        return rng.choice(
            ({}, {"id": key}, {"name": "DialError", "text": "forged"}, {"state": "failed"})
        )
    return (
        rng.random() < 0.5
        if kind == "bool"
        else rng.choice(("commit", "rollback", "ack", "x" * 2000, ""))
    )


def envelope(rng: random.Random, key: bytes) -> list[bytes]:
    """A header and perhaps a body; `key` is the id of a connection that lives."""
    kind = rng.choice(tuple(_SHAPES))
    fields = [_field(rng, shape, key) for shape in _SHAPES[kind]]
    if rng.random() < 0.2:
        fields = fields[: rng.randrange(len(fields) + 1)] + [rng.choice(_LEAVES)] * rng.randrange(3)
    head = header(kind, rng.choice((0, 1, 5, 1 << 40)), *fields)
    body = rng.choice(
        (b"", values.pack({"display": "x"}), values.pack(["SELECT 1", []]), rng.choice(_BOMBS))
    )
    if rng.random() < 0.4:
        head = _mutated(rng, head)
    if rng.random() < 0.1:
        head = bytes([rng.choice((1, 1, 0, 2, 255))]) + rng.choice(_BOMBS)[:200_000]
    if rng.random() < 0.3:
        body = _mutated(rng, body)
    return [head, body] if _harmless(head) else [header(Kind.STATS, 1)]


def _harmless(head: bytes) -> bool:
    """Whether it is no order, as a mutated header may be."""
    try:
        kind, _, *fields = msgpack.unpackb(head[1:], strict_map_key=False, raw=True)
    except Exception:
        return True
    if kind == Kind.HELLO and fields and isinstance(fields[0], int | float):
        return not 0 < fields[0] <= _MOST_PIDS
    return kind not in ORDERS


def _mutated(rng: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made) + 1)
        what = rng.randrange(4)
        if what == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del made[at : at + rng.randint(1, 8)]
        elif what == 2:
            made[at:at] = rng.randbytes(rng.randint(1, 8))
        else:
            made[at:at] = made[: rng.randint(1, 16)]
    return bytes(made)


def on_a_door(rng: random.Random, key: bytes) -> bytes:
    """What is sent to a worker's socket: frames, whole, cut, or with false lengths."""
    parts = envelope(rng, key)
    whole = frame(parts[0][:65_535], parts[1] if len(parts) > 1 else b"")
    choice = rng.random()
    if choice < 0.6:
        return whole
    if choice < 0.75:
        return whole[: rng.randrange(len(whole) + 1)]
    if choice < 0.85:
        return (
            struct.pack(
                "!IH", rng.choice((0, 1, 2, 1 << 20, 1 << 30, 0xFFFFFFFF)), rng.randrange(65536)
            )
            + whole
        )
    return rng.randbytes(rng.randrange(60))
