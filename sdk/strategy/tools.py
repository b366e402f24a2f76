"""The small globals: pure functions of their arguments, the clock and the machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from decimal import ROUND_DOWN, Context, Decimal
from typing import Any

import trunkline
from trunkline.strategy.text import translate

__all__ = ["TOOLS"]

MILLISECONDS_FROM = 1e11
"""A time above this is in milliseconds: as seconds it would be the year 5138."""


def _D(date: float | None = None, fmt: str | None = None) -> str:
    """A time as text in this machine's zone: now, or `date` in seconds, or in milliseconds.

    Python's `_D` takes seconds, JavaScript's milliseconds, and the original's own Python example passes
    milliseconds; so both are read (MILLISECONDS_FROM).
    """
    seconds = time.time() if date is None else float(date)
    if abs(seconds) > MILLISECONDS_FROM:
        seconds /= 1000
    return time.strftime(fmt or "%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _N(num: float = 0, precision: int = 4) -> float:
    """`num` cut (not rounded) to `precision` decimals; a negative precision clears digits before the point.

    Cut in decimal, so that `_N(1.15, 2)` is 1.15 and not the 1.14 that binary fractions make of it.
    """
    if precision < 0:
        step_up: int = 10**-precision
        return num - num % step_up
    if not math.isfinite(num):
        return num
    step = Decimal(1).scaleb(-int(precision))
    return float(Decimal(str(num + 0)).quantize(step, ROUND_DOWN, Context(prec=800)))


def _Cross(first: Sequence[float | None], second: Sequence[float | None]) -> int:
    """For how many periods `first` has been above `second` (below: negative); 0 when they are equal now."""
    if len(first) != len(second):
        raise ValueError("_Cross: the two series differ in length")
    count = 0
    for a, b in zip(reversed(first), reversed(second), strict=True):
        side = 0 if a is None or b is None else (a > b) - (a < b)
        if side == 0 or side * count < 0:
            break
        count += side
    return count


def _T(text: str) -> str:
    """Of `[trans]Chinese|other[/trans]` the part for this machine's language."""
    return translate(text)


def Unix() -> int:
    """The time in whole seconds."""
    return int(time.time())


def UnixNano() -> int:
    """The time in nanoseconds."""
    return time.time_ns()


def UUID() -> str:
    """A random UUID, 36 characters."""
    return str(uuid.uuid4())


def MD5(data: str | bytes) -> str:
    """The MD5 digest as 32 lower-case hex digits."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"MD5 takes text or bytes, not {type(data).__name__}")
    return hashlib.md5(
        data.encode() if isinstance(data, str) else data, usedforsecurity=False
    ).hexdigest()


def JSONParse(text: str | bytes) -> Any:
    """The value that a JSON text encodes; raises ValueError."""
    return json.loads(text)


def GetPid() -> int:
    """This process's id."""
    return os.getpid()


def GetOS() -> str:
    """System and processor as Go names them: `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def GetMeta() -> str | None:
    """What the one who started the strategy put into `TRUNKLINE_META` (190 characters at most), or None."""
    meta = os.environ.get("TRUNKLINE_META")
    return meta[:190] if meta else None


def Version() -> str:
    """Trunkline's version."""
    return trunkline.__version__


def PyTime() -> float:
    """The time in seconds, with its fraction."""
    return time.time()


def StrDecode(data: bytes | str, charset: str = "gbk") -> str:
    """Bytes in this charset as text; raises ValueError for what is none. Text is returned as it is."""
    return data if isinstance(data, str) else data.decode(charset)


def IsVirtual() -> bool:
    """False: in the original it says that the strategy runs in a backtest."""
    return False


def EnableLogLocal(enabled: bool) -> None:
    """Does nothing: the log is where `--log` says."""


def EnableLog(enabled: bool) -> None:
    """Does nothing: in the original it switches the log of orders, and there are none here."""


def LogVacuum() -> None:
    """Does nothing: in the original it compacts the log's database; our log is a file of lines."""


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (
        _D, _N, _Cross, _T, Unix, UnixNano, UUID, MD5, JSONParse, GetPid, GetOS, GetMeta, Version,
        EnableLog, EnableLogLocal, LogVacuum, PyTime, StrDecode, IsVirtual,
    )
}  # fmt: skip
