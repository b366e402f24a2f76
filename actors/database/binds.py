"""The meaning of a list among the values of a statement: one rule for all databases.

* A tuple as the only value is the list of values: `exec(sql, (1,))`. So is a list whose length is
  the number of placeholders, if that number is larger than 1: `exec(sql, [1, 2])`.
* A list, tuple or set for the placeholder of `IN (?)` becomes as many placeholders as it has
  values. A tuple for the placeholder of `IN ?` does, too. A tuple in such a list is a row: `(a,
  b) IN (?)`. An empty list makes `IN` false and `NOT IN` true.
* In any other place a list, tuple, set or dict stands where one value belongs. The driver refuses
  the value with `misplaced`, unless the database has told that the type of the column takes it.
  Such a value is never turned into text by guessing.

Pure. Statements with plain values cost nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import time
from functools import lru_cache
from typing import Any, NamedTuple

from trunkline.actors.database.sql.placeholders import check_count, placeholders, positions
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, Token, tokens

__all__ = [
    "Site",
    "arranged",
    "expanded",
    "has_containers",
    "has_lists_for",
    "in_order",
    "misplaced",
    "of_day",
    "sites",
    "spread",
]

_CONTAINERS = frozenset((list, tuple, set, frozenset, dict))
_LISTS = frozenset((list, tuple, set, frozenset))
_LONGEST_KEPT = 10_000
_NUMBERED = (Dialect.POSTGRES, Dialect.CLICKHOUSE)
_ADVICE: dict[type, str] = {
    dict: "write one ? for each value of it, or Json(...) for a JSON document",
    set: "write IN (?), or give its members as one text",
    frozenset: "write IN (?), or give its members as one text",
}
_LIST_ADVICE = "write one ? for each, or IN (?), or Json(...) for a JSON document"
_EMPTY = {
    Dialect.SQLITE: ("IN ()", "NOT IN ()"),
    Dialect.MYSQL: (
        "IN (SELECT NULL FROM DUAL WHERE FALSE)",
        "NOT IN (SELECT NULL FROM DUAL WHERE FALSE)",
    ),
    # A literal without a type. PostgreSQL gives it the array type that the left side needs.
    Dialect.POSTGRES: ("= ANY ('{}')", "<> ALL ('{}')"),
    # ClickHouse leaves NULL out of a set, so the set is empty.
    Dialect.CLICKHOUSE: ("IN (NULL)", "NOT IN (NULL)"),
}
"""The text in place of `IN (?)` and `NOT IN (?)` with an empty list."""


class Site(NamedTuple):
    """A placeholder of a text, and whether IN has this placeholder alone."""

    start: int
    end: int
    """The tokens from `start` up to `end`: all tokens of
    `NOT IN (?)`; of any other placeholder its own token.
    """
    inside: bool = False
    """The placeholder is that of `IN (?)`."""
    bare: bool = False
    """The placeholder is that of `IN ?`."""
    negated: bool = False
    """NOT stands before IN."""

    def takes(self, value: Any) -> bool:
        """Whether `value` is a list of members for IN."""
        return type(value) in _LISTS if self.inside else self.bare and type(value) is tuple


class _Reading(NamedTuple):
    """The tokens and placeholders of a text. `numbered`: the text has `$1` placeholders."""

    pieces: tuple[Token, ...]
    sites: tuple[Site, ...]
    numbered: bool


def has_containers(values: Iterable[Any]) -> bool:
    """Whether a list, tuple, set or dict is among the values."""
    return not _CONTAINERS.isdisjoint(map(type, values))


def misplaced(value: Any) -> StatementError:
    """The error for a list, tuple, set or dict where one value belongs."""
    kind = type(value)
    name = next(
        (found.__name__ for found in (dict, list, tuple, set) if isinstance(value, found)),
        kind.__name__,
    )
    advice = _ADVICE.get(kind, _ADVICE[dict] if isinstance(value, Mapping) else _LIST_ADVICE)
    return StatementError(f"a {name} stands where one value does: {advice}")


def of_day(value: time) -> time:
    """The time of day itself.

    StatementError for a time in a zone with summer time. Without a date such a time has no
    offset, and the database would store the time as if the time had no zone.
    """
    if value.tzinfo is not None and value.utcoffset() is None:
        raise StatementError(
            f"a time of day in {value.tzinfo} has no offset without a date; bind a datetime, or the time"
            " without its zone"
        )
    return value


def in_order(binds: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
    """The values for a database whose placeholders have no names. A dict alone is one value."""
    return (binds,) if isinstance(binds, Mapping) else binds


def arranged(sql: str, binds: Sequence[Any], dialect: Dialect) -> tuple[str, Sequence[Any]]:
    """The text of one statement with its lists written out, and its values.

    There is a value for each placeholder, in the order of the text.

    StatementError if the number of values is wrong.
    """
    if not has_containers(binds):
        return sql, binds
    order = positions(placeholders(sql, dialect), dialect)
    values = spread(binds, max(order, default=-1) + 1, sites(sql, dialect))
    check_count(max(order, default=-1) + 1, len(values))
    if min(order, default=0) < 0 or not has_containers(values):
        return sql, values
    paired = zip(sites(sql, dialect), order, strict=True)
    if not any(site.takes(values[index]) for site, index in paired):
        return sql, values
    return expanded(sql, [values[index] for index in order], dialect)


def sites(sql: str, dialect: Dialect) -> Sequence[Site]:
    """The placeholders of a text, in the order of the text."""
    return _reading(sql, dialect).sites


def spread(binds: Sequence[Any], wanted: int, places: Sequence[Site] = ()) -> Sequence[Any]:
    """The values for `wanted` placeholders: `binds`, or the
    only value of `binds` if that value is the list of all.

    `places`: the placeholders, if they are known.
    """
    if len(binds) != 1 or type(binds[0]) not in (list, tuple):
        return binds
    only: Sequence[Any] = binds[0]
    if wanted != 1:
        return only
    if type(only) is list or len(only) != 1:
        return binds
    # `IN ?` takes (1,) as a list of one member.
    bare = any(site.bare for site in places)
    return binds if bare and type(only[0]) not in _CONTAINERS else only


def expanded(sql: str, values: Sequence[Any], dialect: Dialect) -> tuple[str, list[Any]]:
    """The text with its lists written out, and the values of its new placeholders.

    `values` has one value for each placeholder, in the order of the text.
    Names and numbers of placeholders are given up.
    """
    reading = _reading(sql, dialect)
    written, found, done = [], [], 0
    for site, value in zip(reading.sites, values, strict=True):
        written += [token.text for token in reading.pieces[done : site.start]]
        done = site.end
        if not site.takes(value):
            found.append(value)
            written.append(_place(len(found), reading.numbered))
        elif not value:
            written.append(_EMPTY[dialect][site.negated])
        else:
            text = _members([*value], found, dialect, reading.numbered)
            written.append(f"{'NOT ' if site.negated else ''}IN ({text})")
    written += [token.text for token in reading.pieces[done:]]
    return "".join(written), found


def has_lists_for(sql: str, rows: Iterable[Any], dialect: Dialect) -> bool:
    """Whether a row has a list for an `IN (?)`, so that each row needs a text of its own.

    The rows are read only if the statement has an `IN (?)` or `IN ?`.
    """
    if not any(site.inside or site.bare for site in sites(sql, dialect)):
        return False
    return any(has_containers(row.values() if isinstance(row, Mapping) else row) for row in rows)


def _members(members: list[Any], found: list[Any], dialect: Dialect, numbered: bool) -> str:
    """The placeholders of a list. The values of the list are appended to `found`."""
    rows = all(type(member) is tuple and member for member in members)
    written = []
    for member in members:
        row = member if type(member) is tuple and member else (member,)
        places = []
        for value in row:
            found.append(value)
            places.append(_place(len(found), numbered))
        text = ", ".join(places)
        written.append(f"({text})" if row is member else text)
    # SQLite has no list of rows, but takes a table of rows.
    return ("VALUES " if rows and dialect is Dialect.SQLITE else "") + ", ".join(written)


def _place(number: int, numbered: bool) -> str:
    return f"${number}" if numbered else "?"


def _reading(sql: str, dialect: Dialect) -> _Reading:
    return _kept(sql, dialect) if len(sql) <= _LONGEST_KEPT else _kept.__wrapped__(sql, dialect)


@lru_cache(maxsize=256)
def _kept(sql: str, dialect: Dialect) -> _Reading:
    pieces = tuple(tokens(sql, dialect))
    numbered = dialect in _NUMBERED and any(
        token.kind == "place" and token.text != "?" for token in pieces
    )
    found = [
        _site(pieces, index)
        for index, token in enumerate(pieces)
        if token.kind == "place" and not (numbered and token.text == "?")
    ]
    return _Reading(pieces, tuple(found), numbered)


def _site(pieces: Sequence[Token], index: int) -> Site:
    """The placeholder at `index`, together with the IN before it and the parentheses around it."""
    start = _next(pieces, index, -1)
    end = index + 1
    bare = _is_word(pieces, start, "IN")
    if not bare:
        closing = _next(pieces, index, 1)
        if start < 0 or pieces[start].text != "(" or closing < 0 or pieces[closing].text != ")":
            return Site(index, end)
        start, end = _next(pieces, start, -1), closing + 1
        if not _is_word(pieces, start, "IN"):
            return Site(index, index + 1)
    before = _next(pieces, start, -1)
    negated = _is_word(pieces, before, "NOT")
    return Site(before if negated else start, end, not bare, bare, negated)


def _next(pieces: Sequence[Token], index: int, step: int) -> int:
    """The index of the nearest token that is neither blank nor a comment; -1 if there is none."""
    index += step
    while 0 <= index < len(pieces):
        if not pieces[index].separates():
            return index
        index += step
    return -1


def _is_word(pieces: Sequence[Token], index: int, word: str) -> bool:
    return index >= 0 and pieces[index].kind == "word" and pieces[index].text.upper() == word
