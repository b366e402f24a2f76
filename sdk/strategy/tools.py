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
"""A time above this limit is in milliseconds: in seconds the time would lie in the year 5138."""


def _D(date: float | None = None, fmt: str | None = None) -> str:
    """Return a time as text in this machine's time zone.

    `date`: seconds or milliseconds since 1970; None: now. `fmt`: a format of `time.strftime`. FMZ's
        Python takes seconds and its JavaScript milliseconds. FMZ's own Python example passes
        milliseconds. `MILLISECONDS_FROM` tells the units apart.
    """
    seconds = time.time() if date is None else float(date)
    if abs(seconds) > MILLISECONDS_FROM:
        seconds /= 1000
    return time.strftime(fmt or "%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _N(num: float = 0, precision: int = 4) -> float:
    """Cut (do not round) `num` to `precision` decimals. A negative precision clears digits before
    the point.

    The cut is decimal: `_N(1.15, 2)` is 1.15, not the 1.14 of binary fractions.
    """
    if precision < 0:
        step_up: int = 10**-precision
        return num - num % step_up
    if not math.isfinite(num):
        return num
    step = Decimal(1).scaleb(-int(precision))
    return float(Decimal(str(num + 0)).quantize(step, ROUND_DOWN, Context(prec=800)))


def _Cross(first: Sequence[float | None], second: Sequence[float | None]) -> int:
    """Count the periods since `first` crossed `second`: positive above, negative below, 0 when
    equal now."""
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
    """From `[trans]Chinese|other[/trans]`, return the part in this machine's language."""
    return translate(text)


def Unix() -> int:
    """Return the time in whole seconds."""
    return int(time.time())


def UnixNano() -> int:
    """Return the time in nanoseconds."""
    return time.time_ns()


def UUID() -> str:
    """Return a random UUID, 36 characters."""
    return str(uuid.uuid4())


def MD5(data: str | bytes) -> str:
    """Return the MD5 digest as 32 lower-case hex digits."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"MD5 takes text or bytes, not {type(data).__name__}")
    return hashlib.md5(
        data.encode() if isinstance(data, str) else data, usedforsecurity=False
    ).hexdigest()


def JSONParse(text: str | bytes) -> Any:
    """Return the value of a JSON text; raises ValueError."""
    return json.loads(text)


def GetPid() -> int:
    """Return this process's id."""
    return os.getpid()


def GetOS() -> str:
    """Return the system and the processor by Go's names: `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def GetMeta() -> str | None:
    """Return the variable `TRUNKLINE_META` (at most 190 characters), or None.

    The variable is a note by the program that started the strategy.
    """
    meta = os.environ.get("TRUNKLINE_META")
    return meta[:190] if meta else None


def Version() -> str:
    """Return Trunkline's version."""
    return trunkline.__version__


def PyTime() -> float:
    """Return the time in seconds, with its fraction."""
    return time.time()


def StrDecode(data: bytes | str, charset: str = "gbk") -> str:
    """Decode bytes in `charset`; raises ValueError for other bytes. Text is returned unchanged."""
    return data if isinstance(data, str) else data.decode(charset)


def IsVirtual() -> bool:
    """Return False. On FMZ, True means that the strategy runs in a backtest."""
    return False


def EnableLogLocal(enabled: bool) -> None:
    """Do nothing: the option `--log` chooses the log file."""


def EnableLog(enabled: bool) -> None:
    """Do nothing. On FMZ, the call switches the log of orders, which Trunkline does not have."""


def LogVacuum() -> None:
    """Do nothing. On FMZ, the call compacts the log's database; our log is a file of lines."""


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (
        _D, _N, _Cross, _T, Unix, UnixNano, UUID, MD5, JSONParse, GetPid, GetOS, GetMeta, Version,
        EnableLog, EnableLogLocal, LogVacuum, PyTime, StrDecode, IsVirtual,
    )
}  # fmt: skip
