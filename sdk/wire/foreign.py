"""Values of numpy and pandas as Python's own.

Neither library is imported: a value tells by its type where it comes from, and everything that is asked of it
is part of its library's public interface. What Python has no value for (a nanosecond, a complex number) is
refused instead of being changed.
"""

from __future__ import annotations

from typing import Any

__all__ = ["as_python", "record_values"]

_MISSING = ("NaTType", "NAType")
_FINER = ("ns", "ps", "fs", "as")
"""Units of numpy's times that are finer than Python's microsecond."""


def as_python(value: Any) -> Any:
    """The value as Python's own, and the value itself when it is neither numpy's nor pandas'.

    A scalar is a scalar, an array, Series or Index a list; NaT, NA and what is masked are None. ValueError
    for a time with nanoseconds, TypeError for a value that Python has no type for.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return _numpy(value)
    return _pandas(value) if package == "pandas" else value


def record_values(row: Any) -> list[Any] | None:
    """The values of a record of numpy (a row of a structured array, of `DataFrame.to_records()`); None for
    anything else."""
    names = getattr(getattr(row, "dtype", None), "names", None)
    return [row[name] for name in names] if names and not row.ndim else None


def _numpy(value: Any) -> Any:
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is None:
        return value
    if not value.ndim and hasattr(value, "mask"):
        return None if value.mask else as_python(value.data[()])
    if value.ndim:
        return [as_python(item) for item in value] if kind in "mM" else _items(value, kind)
    if kind in "mM":
        return _time(value)
    if kind == "U":
        return str(value)
    if kind == "S":
        return bytes(value)
    return _scalar(value, kind)


def _items(array: Any, kind: str) -> Any:
    if kind not in "biufUSO":
        raise _no_type(array)
    return array.tolist()


def _scalar(value: Any, kind: str) -> Any:
    found = value.item() if kind in "biufO" else value
    if type(found).__module__.partition(".")[0] == "numpy":  # a longdouble is its own item
        raise _no_type(value)
    return found


def _no_type(value: Any) -> TypeError:
    return TypeError(
        f"Python has no type for a value of numpy's {value.dtype}; bind it as a number or as text"
    )


def _time(value: Any) -> Any:
    """A datetime64 or a timedelta64."""
    if value != value:  # NaT
        return None
    unit = str(value.dtype).partition("[")[2].rstrip("]").lstrip("0123456789")
    coarse = value.astype(f"{'datetime64' if value.dtype.kind == 'M' else 'timedelta64'}[us]")
    if unit in _FINER and coarse.astype(value.dtype) != value:
        raise _too_fine(value)
    found = (coarse if unit in _FINER else value).item()
    if isinstance(found, int):
        raise ValueError(
            f"Python has no time for numpy's {value!r}: it is out of range, or has no fixed length"
        )
    return found


def _pandas(value: Any) -> Any:
    name = type(value).__name__
    if name in _MISSING:
        return None
    if name == "Timestamp":
        if value.nanosecond:
            raise _too_fine(value)
        return value.to_pydatetime()
    if name == "Timedelta":
        if value.nanoseconds:
            raise _too_fine(value)
        return value.to_pytimedelta()
    return (
        value.tolist() if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist") else value
    )


def _too_fine(value: Any) -> ValueError:
    return ValueError(
        f"{value!r} has nanoseconds, and Python's times have microseconds; round it, or bind an int or str"
    )
