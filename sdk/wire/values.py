"""Python values as bytes and back, with their types: binds, rows and messages.

msgpack packs the plain types in C, so rows of numbers and text cost no Python code per value. Every
further type is an extension of msgpack, numbered in `_Code`. No class or function is named on the
wire, and an unknown number is an error, so no message can make the reader run code.

* Unchanged: None, bool, int of any size, float, Decimal, str (lone surrogates too), bytes,
  datetime, date, time, timedelta, UUID, list, tuple, dict, set, frozenset, `Json` and objects of
  `ipaddress`.
* Converted: an Enum member to its value, bytearray and memoryview to bytes, a range to a list, a
  subclass to its base type in the list above (a namedtuple to a tuple, an OrderedDict to a dict),
  values of numpy and pandas as described in `trunkline.wire.foreign`.
* Zones: `timezone` and `ZoneInfo` (by key, with `fold`) stay. Any further tzinfo becomes the offset
  that it has at that time.
* Depth: 100 levels. A value of lists and dicts alone may go as deep as msgpack goes (511 or 1024).
  Beyond the limit, both sides raise ValueError.
"""

from __future__ import annotations

import gc
import ipaddress
from collections.abc import Callable, Iterable, Mapping, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from numbers import Number
from typing import Any, TypeVar
from uuid import UUID

import msgpack

from trunkline.wire import moments
from trunkline.wire.documents import Json
from trunkline.wire.foreign import as_python

__all__ = ["calmly", "pack", "unpack"]

T = TypeVar("T")

MAX_DEPTH = 100
LARGE = 1 << 15
"""Bytes. The garbage collector is off while data longer than this is unpacked."""
_ACCEPTED = (
    "None, bool, int, float, Decimal, str, bytes, datetime, date, time, timedelta, UUID, list, tuple, dict,"
    " set, frozenset, Json, Enum members and ipaddress objects"
)


_TOO_DEEP = f"a value nested deeper than {MAX_DEPTH} levels cannot be sent to another process"
_LEAVES = frozenset((int, float, str, bytes, bool, type(None)))
_CONTAINERS = (list, dict, tuple, set, frozenset)


class _Code(IntEnum):
    """The extension types. The numbers are part of the protocol: never reuse one."""

    INT = 1
    DECIMAL = 2
    TEXT = 3
    DATETIME = 4
    DATE = 5
    TIME = 6
    TIMEDELTA = 7
    UUID = 8
    TUPLE = 9
    SET = 10
    FROZENSET = 11
    ADDRESS = 12
    JSON = 13


# The error for a malformed value depends on the place of the fault: an unhashable key, an unknown
# zone, ...
_MALFORMED = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    OSError,
    MemoryError,
    RecursionError,
)


def pack(value: object) -> bytes:
    """Return `value` as bytes.

    Raises TypeError for a type without a place in the list above, and ValueError for too deep
    nesting.
    """
    try:
        return _Packing(value).pack(value)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Return the value that `pack` was given.

    Raises ValueError where `data` is not exactly one complete value.
    """
    return calmly(_unpack, data) if len(data) > LARGE else _unpack(data)


def calmly(work: Callable[[Any], T], given: Any) -> T:
    """Return `work(given)`, with the garbage collector off meanwhile.

    The collector looks for cycles after every 700 new objects, which takes longer than making the
    objects. Use this for work that makes many objects without a cycle and calls no foreign code.
    """
    if not gc.isenabled():
        return work(given)
    try:
        # Inside `try`: a signal handler may raise as soon as `disable` has returned, and the
        # collector must be on again then.
        gc.disable()
        return work(given)
    finally:
        gc.enable()


def _unpack(data: bytes | bytearray | memoryview) -> Any:
    try:
        return msgpack.unpackb(
            data, ext_hook=partial(_decode, 0), strict_map_key=False, timestamp=3
        )
    except _MALFORMED as error:
        text = f"malformed value on the wire: {type(error).__name__}: {error}"
    raise ValueError(text)


class _Packing:
    """One call of `pack`. msgpack calls `encode` for each value that it cannot pack itself."""

    __slots__ = ("checked", "root")

    def __init__(self, root: object) -> None:
        self.root = root
        self.checked = False

    def pack(self, value: object) -> bytes:
        """Pack a value, and try again with replacements where msgpack itself fails."""
        try:
            return self._packb(value)
        except (UnicodeEncodeError, BufferError):
            # msgpack calls no hook for two values it fails on: text with surrogates, and
            # memoryviews with gaps
            return self._packb(_plain(value))

    def _packb(self, value: object) -> bytes:
        data: bytes = msgpack.packb(value, default=self.encode, strict_types=True)
        return data

    def encode(self, value: Any) -> Any:
        """Replace a value that msgpack cannot pack by a value that it can."""
        encode = _EXACT.get(type(value))
        if encode:
            return encode(value, self)
        ours = as_python(value)
        if ours is not value:
            return self.final(ours)
        for kind, encode in _ENCODERS:
            if isinstance(value, kind):
                return encode(value, self)
        raise TypeError(
            f"a value of type {_name(value)} cannot be sent to another process{_advice(value)}; accepted are"
            f" {_ACCEPTED}"
        )

    def final(self, value: Any) -> Any:
        """Return a replacement value in a form that msgpack packs by itself: msgpack calls the hook
        only once for each value."""
        packs = value is None or type(value) in (bool, float, bytes, list, dict)
        return value if packs else self.encode(value)

    def items(self, value: Iterable[Any]) -> bytes:
        """Pack the items of a tuple or set as a list."""
        # Each nested tuple or set calls `pack` inside the outer call, on the C stack. So the depth
        # of the whole value is checked before the first one.
        if not self.checked:
            _check_depth(self.root, 0)
            self.checked = True
        return self.pack(list(value))


def _check_depth(value: Any, depth: int) -> None:
    """Raise ValueError where `value` is nested deeper than MAX_DEPTH levels."""
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, dict):
        _check_depth(list(value), depth)
        value = value.values()
    for item in value if isinstance(value, (*_CONTAINERS, ValuesView)) else ():
        if type(item) not in _LEAVES and isinstance(item, _CONTAINERS):
            _check_depth(item, depth + 1)


def _plain(value: Any) -> Any:
    """Copy `value`: texts that are not UTF-8 become extensions, memoryviews become bytes."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value.tobytes() if kind is memoryview else value


def _text(value: str) -> Any:
    """Return a text, or an extension for a text with lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return msgpack.ExtType(_Code.TEXT, value.encode("utf-8", "surrogatepass"))
    return value


_Encode = Callable[[Any, _Packing], Any]


def _name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _advice(value: object) -> str:
    """Say what to bind in place of a value that cannot be sent."""
    if isinstance(value, Mapping):
        return "; write dict(...)"
    if isinstance(value, Iterable):
        return "; write list(...), or bytes(...) for its bytes"
    return "; write float(...) or str(...)" if isinstance(value, Number) else ""


def _ext(code: _Code, encode: Callable[[Any], bytes]) -> _Encode:
    return lambda value, packing: msgpack.ExtType(code, encode(value))


def _items(code: _Code) -> _Encode:
    return lambda value, packing: msgpack.ExtType(code, packing.items(value))


def _enum(value: Enum, packing: _Packing) -> Any:
    return packing.final(value.value)


def _int(value: int, packing: _Packing) -> Any:
    """Pack an int: plainly up to 64 bits, else as an extension."""
    number = int.__int__(value)
    if -(1 << 63) <= number < 1 << 64:
        return number
    return msgpack.ExtType(
        _Code.INT, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    )


def _address(value: Any) -> bytes:
    return bytes((_ADDRESSES.index(type(value)),)) + str(value).encode()


_ADDRESSES: tuple[Callable[[str], Any], ...] = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)

# The order matters: an IntEnum is an int, a datetime is a date.
_ENCODERS: tuple[tuple[Any, _Encode], ...] = (
    (Enum, _enum),
    (tuple, _items(_Code.TUPLE)),
    (Decimal, _ext(_Code.DECIMAL, lambda value: str(value).encode())),
    (datetime, _ext(_Code.DATETIME, moments.pack_datetime)),
    (date, _ext(_Code.DATE, moments.pack_date)),
    (int, _int),
    (str, lambda value, packing: _text(str.__str__(value))),
    (float, lambda value, packing: float.__float__(value)),
    (list, lambda value, packing: list(value)),
    (dict, lambda value, packing: dict(value)),
    ((bytes, bytearray), lambda value, packing: bytes(memoryview(value))),
    (UUID, _ext(_Code.UUID, lambda value: value.bytes)),
    (time, _ext(_Code.TIME, moments.pack_time)),
    (timedelta, _ext(_Code.TIMEDELTA, moments.pack_timedelta)),
    (set, _items(_Code.SET)),
    (frozenset, _items(_Code.FROZENSET)),
    (_ADDRESSES, _ext(_Code.ADDRESS, _address)),
    (Json, _ext(_Code.JSON, lambda value: value.text.encode("utf-8", "surrogatepass"))),
    (range, lambda value, packing: list(value)),
)

# most values are exactly of a type in the table
_EXACT = {kind: encode for kind, encode in _ENCODERS if isinstance(kind, type)}


def _decode(depth: int, code: int, data: bytes) -> Any:
    """Decode an extension. `depth`: how many extensions are around it."""
    if code in _MANY:
        return _MANY[code](_inner(data, depth + 1))
    if code not in _DECODERS:
        raise ValueError(f"extension type {code} is unknown; is the other side a newer version?")
    return _DECODERS[code](data)


def _inner(data: bytes, depth: int) -> list[Any]:
    """Decode the list inside a tuple, set or frozenset."""
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    # An Unpacker has its 40 kB of state on the heap; unpackb has it on the C stack, and the stack
    # of a thread is small.
    unpacker = msgpack.Unpacker(
        ext_hook=partial(_decode, depth),
        strict_map_key=False,
        timestamp=3,
        max_buffer_size=max(len(data), 1),
    )
    unpacker.feed(data)
    try:
        items = unpacker.unpack()
    except msgpack.OutOfData:
        raise ValueError("incomplete input") from None
    if type(items) is not list or unpacker.tell() != len(data):
        raise ValueError("a tuple or set that holds no list")
    return items


def _decode_address(data: bytes) -> Any:
    return _ADDRESSES[data[0]](data[1:].decode())


_MANY: dict[int, Callable[[list[Any]], Any]] = {
    _Code.TUPLE: tuple,
    _Code.SET: set,
    _Code.FROZENSET: frozenset,
}
_DECODERS: dict[int, Callable[[bytes], Any]] = {
    _Code.INT: lambda data: int.from_bytes(data, "big", signed=True),
    _Code.DECIMAL: lambda data: Decimal(data.decode("ascii")),
    _Code.TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    _Code.DATETIME: moments.unpack_datetime,
    _Code.DATE: moments.unpack_date,
    _Code.TIME: moments.unpack_time,
    _Code.TIMEDELTA: moments.unpack_timedelta,
    _Code.UUID: lambda data: UUID(bytes=data),
    _Code.ADDRESS: _decode_address,
    _Code.JSON: lambda data: Json.of_text(data.decode("utf-8", "surrogatepass")),
}
