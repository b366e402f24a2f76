"""Values of numpy and pandas, converted to Python's own.

Neither library is imported. The type of a value tells its library, and only public names of the
library are used. A value without a counterpart in Python (a nanosecond, a complex number) is
refused, never changed.
"""

from __future__ import annotations

from typing import Any

__all__ = ["as_python", "record_values"]

_MISSING = ("NaTType", "NAType")
_FINER = ("ns", "ps", "fs", "as")
"""Units of numpy's times below a microsecond, the unit of Python's times."""


def as_python(value: Any) -> Any:
    """Convert a value of numpy or pandas; return any further value unchanged.

    A scalar becomes a scalar; an array, Series or Index becomes a list; NaT, NA and masked values
    become None. Raises ValueError for a time with nanoseconds, and TypeError for a value without a
    type in Python.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return _numpy(value)
    return _pandas(value) if package == "pandas" else value


def record_values(row: Any) -> list[Any] | None:
    """The values of a numpy record (a row of a structured array, or of `DataFrame.to_records()`).

    None for a value of any further type.
    """
    names = getattr(getattr(row, "dtype", None), "names", None)
    return [row[name] for name in names] if names and not row.ndim else None


def _numpy(value: Any) -> Any:
    """Convert a value of numpy by the kind of its dtype."""
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
    if type(found).__module__.partition(".")[0] == "numpy":  # `item` returns a longdouble itself
        raise _no_type(value)
    return found


def _no_type(value: Any) -> TypeError:
    return TypeError(
        f"Python has no type for a value of numpy's {value.dtype}; bind it as a number or as text"
    )


def _time(value: Any) -> Any:
    """Convert a datetime64 or a timedelta64."""
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
    """Convert a scalar, Series or Index of pandas."""
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
