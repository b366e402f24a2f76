"""Reading the values of a message broker's parameters, from the address (text) or from Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from trunkline.address.amqp_arguments import argument_value
from trunkline.address.golang import shown
from trunkline.address.params import find_param
from trunkline.address.schemes import Param, Scheme
from trunkline.address.separator import decoded
from trunkline.errors import AddressError

__all__ = ["Values", "read_beside", "read_typed", "read_written", "seconds_of"]

_ONE_LINE = ("name", "names", "file", "property", "argument")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")

Values = dict[str, list[str]]
"""The values of each parameter as text. Only lists have more than a single value."""


def read_written(scheme: Scheme, pairs: Iterable[tuple[str, str]]) -> Values:
    """Read parameters as written in the address.

    Lists are split at their commas before the percent-decoding: `%2C` is a comma within a name.
    """
    found: Values = {}
    for name, raw in pairs:
        param = _param(scheme, name)
        several = param.kind == "names"
        if param.name in found and not several:
            raise AddressError(f"parameter '{param.name}' is given twice: write it once")
        values = [decoded(piece) for piece in (raw.split(",") if several else [raw])]
        found.setdefault(param.name, []).extend(_checked(param, values))
    return found


def read_beside(scheme: Scheme, given: Mapping[str, object]) -> Values:
    """Read parameters given to `Dial` beside the address.

    Nothing is decoded, and a list of names may be a list.
    """
    found: Values = {}
    for name, value in given.items():
        param = _param(scheme, name)
        if param.name in found:
            raise AddressError(f"parameter '{param.name}' is given twice: write it once")
        items = (
            list(value) if isinstance(value, (list, tuple)) and param.kind == "names" else [value]
        )
        texts = [_text(param, item) for item in items]
        if param.kind == "names" and isinstance(value, str):
            texts = value.split(",")
        found[param.name] = _checked(param, texts)
    return found


def _param(scheme: Scheme, name: str) -> Param:
    """The row of a parameter. The parser has already checked the name."""
    param = find_param(scheme.protocol, name)
    # The caller has checked the name.
    assert param is not None
    return param


def _text(param: Param, value: object) -> str:
    """A value from Python as text; AddressError for other types."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    elif isinstance(value, datetime):
        return value.isoformat()
    elif isinstance(value, (str, int, float)):
        return str(value)
    raise _refuse(param, "a value", "use text or a number")


def _checked(param: Param, values: list[str]) -> list[str]:
    """The values, checked for empty names, control characters and invalid text; raises
    AddressError."""
    for value in values:
        if param.kind == "names" and not value:
            raise _refuse(param, "an empty name", "write the names with one comma between them")
        if param.kind in _ONE_LINE and _CONTROL.search(value) and "-----BEGIN" not in value:
            raise _refuse(param, "a value", "use text of one line")
        if re.search("[\ud800-\udfff]", value):
            raise _refuse(param, "a value", "use valid text")
    return values


def _refuse(param: Param, given: str, accepted: str) -> AddressError:
    return AddressError(f"parameter '{param.name}' does not take {given}: {accepted}")


def _wrong(param: Param, value: str, accepted: str) -> AddressError:
    """The error for a bad value. The value of a secret parameter is not quoted."""
    return _refuse(param, "a value" if param.secret else f"'{shown(value)}'", accepted)


def read_typed(scheme: Scheme, params: Mapping[str, str]) -> dict[str, Any]:
    """The checked numbers, booleans, choices and starting points among the parameters.

    A time also appears as seconds since 1970, under the parameter's name and `_time`.
    """
    typed: dict[str, Any] = {}
    for name, value in params.items():
        param = _param(scheme, name)
        reader = _READERS.get(param.kind)
        if reader is not None:
            typed.update(reader(param, value))
    return typed


def _bool(param: Param, value: str) -> dict[str, Any]:
    """A boolean: true, 1, yes, false, 0, no, in any case."""
    if value.lower() not in (*_TRUE, *_FALSE):
        raise _wrong(param, value, "use true or false")
    return {param.name: value.lower() in _TRUE}


def _count(param: Param, value: str) -> dict[str, Any]:
    """A whole number within the parameter's range."""
    if not re.fullmatch("[0-9]{1,10}", value) or not param.low <= int(value) <= param.high:
        raise _wrong(param, value, f"use a whole number from {param.low} to {param.high}")
    return {param.name: int(value)}


def _enum(param: Param, value: str) -> dict[str, Any]:
    """A word of the parameter's choices."""
    # Types of exchanges from plugins begin with x-.
    if value not in param.choices and not (
        param.name == "type" and re.fullmatch(r"x-[\w.-]+", value)
    ):
        raise _wrong(param, value, f"use one of {', '.join(param.choices)}")
    return {param.name: value}


def _start(param: Param, value: str) -> dict[str, Any]:
    """A starting point: a word of the choices, a number, or a time."""
    if value in param.choices:
        return {param.name: value}
    if re.fullmatch("[0-9]{1,18}", value):
        return {param.name: int(value)}
    if (seconds := seconds_of(value)) is not None:
        return {param.name: value, f"{param.name}_time": seconds}
    words = [*param.choices, "an offset" if param.kind == "offset" else "a sequence number"]
    raise _wrong(
        param, value, f"use one of {', '.join(words)}, or a time such as 2026-01-31T12:00:00Z"
    )


def seconds_of(moment: str | datetime) -> float | None:
    """A time as seconds since 1970; None for a text that is no time."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    # A time without a zone is UTC, wherever the strategy runs.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _argument(param: Param, value: str) -> dict[str, Any]:
    """An AMQP argument in its type."""
    try:
        return {param.name: argument_value(param.name, value)}
    except ValueError as error:
        raise _wrong(param, value, str(error)) from None


_READERS: dict[str, Callable[[Param, str], dict[str, Any]]] = {
    "bool": _bool,
    "count": _count,
    "enum": _enum,
    "offset": _start,
    "deliver": _start,
    "argument": _argument,
}
