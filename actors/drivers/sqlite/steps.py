"""The statements of a text, each with its share of the values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trunkline.actors.database.binds import expanded, has_containers, misplaced, sites, spread
from trunkline.actors.database.sql.placeholders import (
    Style,
    bind,
    check_count,
    placeholders,
    wanted,
)
from trunkline.actors.database.sql.statements import Statement, split
from trunkline.actors.drivers.sqlite.types import to_sqlite
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect

__all__ = ["Binds", "Step", "in_order", "shared_out", "steps"]

Binds = Sequence[Any] | Mapping[str, Any]

_LONGEST_KEPT = 10_000
# Words of statements that may take long, end a transaction, or return rows.
_JOINS_NOT = re.compile(r"\b(?:SELECT|ROLLBACK|RETURNING|FAIL)\b", re.IGNORECASE)
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a text, read once."""

    text: str
    verb: str
    wanted: int
    positional: str
    """The text with `?` for each placeholder.
    `order` has the index of each value: `?1` and `:name` may repeat.
    """
    order: tuple[int, ...]
    names: tuple[str, ...]
    writes: bool
    """The statement counts the rows that it changes."""
    reads: bool
    """The statement changes nothing, so its rows may be fetched later."""
    joins: bool
    """A short write, which may share a commit with other statements."""
    plain: bool
    """A write that `sqlite3` counts itself: without WITH before it and without rows."""


def steps(sql: str) -> tuple[Step, ...]:
    """The statements of a text. The last 256 texts are remembered, except very long texts."""
    return _steps(sql) if len(sql) <= _LONGEST_KEPT else _steps.__wrapped__(sql)


@lru_cache(maxsize=256)
def _steps(sql: str) -> tuple[Step, ...]:
    return tuple(_step(statement) for statement in split(sql, Dialect.SQLITE))


def _step(statement: Statement) -> Step:
    """A statement with the properties that the driver asks for."""
    text, verb = statement.text, statement.verb
    count = wanted(text, Dialect.SQLITE)
    positional, order = bind(text, range(count), Dialect.SQLITE, Style.QMARK)
    return Step(
        text,
        verb,
        count,
        positional,
        tuple(order) if isinstance(order, list) else (),
        tuple(placeholders(text, Dialect.SQLITE)),
        writes=verb in _WRITES,
        reads=verb in ("SELECT", "VALUES"),
        joins=statement.keyword in ("INSERT", "REPLACE") and _JOINS_NOT.search(text) is None,
        plain=statement.keyword in _WRITES and "RETURNING" not in statement.words,
    )


def shared_out(steps: tuple[Step, ...], binds: Binds) -> Iterator[tuple[Step, str, Any]]:
    """Each statement with its share of the values.

    A wrong number of values is reported before any statement is yielded.
    """
    if isinstance(binds, Mapping):
        for step in steps:
            yield step, *_by_name(step, binds)
        return
    wanted = sum(step.wanted for step in steps)
    values = binds
    if has_containers(binds):
        values = spread(
            binds, wanted, sites(steps[0].text, Dialect.SQLITE) if len(steps) == 1 else ()
        )
    check_count(wanted, len(values))
    for step in steps:
        share, values = values[: step.wanted], values[step.wanted :]
        yield step, *_written_out(step, [share[index] for index in step.order])


def _by_name(step: Step, binds: Mapping[str, Any]) -> tuple[str, Any]:
    """The text and its values for a mapping.

    The text has `?` if lists are written out, else names.
    """
    if step.names == ("?",):
        raise misplaced(binds)
    values = [_value_named(name, binds) for name in step.names]
    if has_containers(values):
        return _written_out(step, values)
    return step.text, {
        name[1:]: to_sqlite(value) for name, value in zip(step.names, values, strict=True)
    }


def _written_out(step: Step, values: Sequence[Any]) -> tuple[str, list[Any]]:
    """The text with `?` for each placeholder, and the values to store.

    Lists for IN are written out.
    """
    text = step.positional
    if has_containers(values):
        text, values = expanded(step.text, values, Dialect.SQLITE)
    return text, [to_sqlite(value) for value in values]


def in_order(step: Step, row: Any) -> list[Any]:
    """One row of values in the form that SQLite stores, for the text with `?`.

    StatementError if the row does not fit the statement.
    """
    if isinstance(row, Mapping):
        return [to_sqlite(_value_named(name, row)) for name in step.names]
    if not isinstance(row, list | tuple):
        raise StatementError(
            f"a row is a list, tuple or dict of values, and this is of type {type(row).__name__}"
        )
    check_count(step.wanted, len(row))
    return [to_sqlite(row[index]) for index in step.order]


def _value_named(place: str, binds: Mapping[str, Any]) -> Any:
    """The value of a named placeholder. StatementError if there is no value of that name."""
    if place.startswith("?"):
        raise StatementError(
            f"the placeholder {place} takes values in order; write :name for values by name"
        )
    if place[1:] not in binds:
        raise StatementError(
            f"the statement has the placeholder {place} and no value of that name was given"
        )
    return binds[place[1:]]
