"""Envelopes of every kind, and damaged copies of them. Pure: the randomness is handed in."""

from __future__ import annotations

import random
from typing import Any

import msgpack

from trunkline.wire.envelope import VERSION, Kind

__all__ = ["CARRIED_OUT", "damaged", "valid"]

CARRIED_OUT = frozenset(
    (
        Kind.WRITE, Kind.REQUEST, Kind.EXEC, Kind.EXECUTEMANY, Kind.QUERY, Kind.TRANSACTION, Kind.SETTLE,
        Kind.KILL, Kind.OPEN,
    )
)  # fmt: skip
"""Orders that this user's own programs may give from any socket: what is valid of them is carried out."""

_ODD = [
    None,
    b"",
    b"x" * 8,
    -1,
    0,
    1,
    255,
    1 << 31,
    1 << 53,
    (1 << 64) - 1,
    -(1 << 63),
    "",
    "text",
    "\ud800",
    [],
    {},
]
_ODD += [
    1.5,
    float("nan"),
    float("inf"),
    True,
    False,
    [[]],
    {"a": {}},
    b"\0" * 1000,
    msgpack.ExtType(1, b"x"),
]


def valid(rng: random.Random, kind: Kind, holder: bytes, key: bytes) -> list[Any]:
    """Fields such as this kind has, of a holder and a connection that there are, or nearly."""
    number = rng.choice([0, 1, 5, 1 << 40])
    record = {"id": key, "number": 1, "spec": {}, "restart": True, "linger_s": 1.0, "handle": None}
    own = b"h" * 8
    fields: dict[Kind, list[Any]] = {
        Kind.HELLO: [1 << 22, []], Kind.LOG: ["error", "forged"], Kind.OPENED: [{}],
        Kind.FAILED: [{"name": "DialError", "text": "forged"}],
        Kind.ATTACH: [b"nobody", number, key, own, 0, 0, [], 0], Kind.ATTACHED: [{}],
        Kind.START: [own, False, 0, False, 0], Kind.PUSH: [number, 0],
        Kind.ACK: [own, number, number, number],
        Kind.READ: [own, number, number, number, number, False, True, 0, False],
        Kind.CANCEL: [own, number],
        Kind.KEEP: [own, number, number], Kind.CLOSING: [own], Kind.RECALL: [own, 0, False],
        Kind.RECALLED: [own, number, number, 0, [[1, 1]], False], Kind.FETCH: [own, number, 100],
        Kind.END_QUERY: [own, number], Kind.READY: [record, 99, 1 << 22, [], {}, []],
        Kind.STATE: [{"state": "failed", "read": number}], Kind.RECORD: [record], Kind.GONE: [True],
        Kind.WRITE: [100, 0], Kind.EXEC: [100, 0], Kind.DETACH: [own, number, True],
        Kind.SEEK: [100, 0, "offset", number, None, None],
    }  # fmt: skip
    return fields.get(kind, [number, holder])


def damaged(rng: random.Random, kind: Kind, fields: list[Any]) -> bytes:
    """A header of this kind that is wrong in one way or several."""
    message: list[Any] = [int(kind), rng.choice([0, 1, 7]), *fields]
    for _ in range(rng.randrange(3)):
        _damage_value(rng, message)
    try:
        data = bytearray(bytes([VERSION]) + msgpack.packb(message, unicode_errors="surrogatepass"))
    except (OverflowError, ValueError):
        data = bytearray(bytes([VERSION]) + b"\x93\x01")
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        _damage_bytes(rng, data)
    return bytes(data)


def _damage_value(rng: random.Random, value: Any) -> None:
    """Change, add or remove something in a list or mapping, at any depth."""
    if isinstance(value, dict):
        if not value or rng.random() < 0.2:
            value[rng.choice(["state", "id", 5])] = rng.choice(_ODD)
            return
        name = rng.choice(list(value))
        inner = value[name]
    else:
        if not value:
            value.append(rng.choice(_ODD))
            return
        name = rng.randrange(len(value))
        inner = value[name]
    if isinstance(inner, (list, dict)) and rng.random() < 0.6:
        _damage_value(rng, inner)
    elif isinstance(value, list) and rng.random() < 0.2:
        value.insert(name, rng.choice(_ODD))
    elif rng.random() < 0.2:
        del value[name]
    else:
        value[name] = rng.choice(_ODD)


def _damage_bytes(rng: random.Random, data: bytearray) -> None:
    if len(data) < 2:
        return
    at = rng.randrange(1, len(data))
    how = rng.randrange(5)
    if how == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        data[at] = rng.choice(
            [0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xC9, 0xD9, 0xDD, 0xDF, 0xFF]
        )
    elif how == 2:
        del data[at:]
    elif how == 3:
        data[at:at] = rng.randbytes(rng.randrange(1, 6))
    else:  # a bomb: an array or a map that says it has four thousand million elements; deep nesting
        data[at:at] = rng.choice(
            [
                b"\xdd\xff\xff\xff\xff",
                b"\xdf\xff\xff\xff\xff",
                b"\x91" * 5000,
                b"\xc6\xff\xff\xff\xff",
            ]
        )
