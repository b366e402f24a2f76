"""One statement for many rows: an INSERT with up to a thousand rows, or batches of statements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from psycopg2.extras import execute_batch

from trunkline.actors.database.binds import has_containers
from trunkline.actors.database.sql.placeholders import (
    Style,
    bind,
    check_count,
    placeholders,
    wanted,
)
from trunkline.actors.database.sql.statements import Statement
from trunkline.actors.drivers.postgres.shapes import Shape, all_take
from trunkline.actors.drivers.postgres.statements import LONGEST_KEPT, Text, read
from trunkline.actors.drivers.postgres.types import to_server
from trunkline.errors import StatementError
from trunkline.sqltext import Dialect, Token, tokens

if TYPE_CHECKING:
    from trunkline.actors.drivers.postgres.driver import PostgresDriver

__all__ = ["Bulk", "bulk", "write"]

PAGE = 1000
"""Rows of one INSERT."""
BATCH = 100
"""Statements that are sent together."""
_SAME_KEY = "21000"
"""Code of an upsert that meets the same key twice in one statement."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A statement for many rows."""

    text: Text
    single: str
    """The statement for one row, as psycopg2 takes it."""
    order: tuple[int, ...]
    """The index of the value that each `%s` takes."""
    upsert: bool
    """The statement is an upsert: two rows with the same key cannot be in one statement."""
    parts: tuple[str, str, str] | None
    """The text before, in and after the parentheses of VALUES, if several rows fit into one
    statement; otherwise None.
    """

    def check(self, rows: Sequence[Any]) -> None:
        """StatementError for a row that does not fit."""
        if any(issubclass(kind, Mapping) for kind in set(map(type, rows))):
            raise StatementError("postgres takes values in order, not by name; write ? for each")
        for length in set(map(len, rows)):
            check_count(max(self.order, default=-1) + 1, length)

    def page(self, count: int) -> str:
        """The statement for `count` rows."""
        assert self.parts is not None
        head, values, tail = self.parts
        return f"{head}{','.join([values] * count)}{tail}"

    def in_order(self, rows: Sequence[Any]) -> Sequence[Any]:
        """The rows with their values in the order of the `%s`."""
        if self.order == tuple(range(len(self.order))):
            return rows
        return [[row[index] for index in self.order] for row in rows]


def bulk(sql: str) -> Bulk:
    """The plan for running a statement for many rows.

    StatementError for several statements, and for a statement of a transaction.
    """
    return _bulk(sql) if len(sql) <= LONGEST_KEPT else _bulk.__wrapped__(sql)


@lru_cache(maxsize=64)
def _bulk(sql: str) -> Bulk:
    count = wanted(sql, Dialect.POSTGRES)
    text = read(sql, count)
    if len(text.statements) != 1 or text.transactional:
        raise StatementError(
            "executemany takes one statement, with a placeholder for each value of a row"
        )
    parts = _insert(text.one) if count else None
    if parts is not None:
        head, values, tail = parts
        values, _ = bind(values, range(count), Dialect.POSTGRES, Style.FORMAT)
        parts = _quiet(head), values, _quiet(tail)
    return Bulk(text, text.formatted, text.order or (), "CONFLICT" in text.one.words, parts)


def write(driver: PostgresDriver, plan: Bulk, rows: Sequence[Any]) -> int | None:
    """Write the rows in the open transaction.

    Returns how many rows were affected; None if unknown, because psycopg2 tells only the count of
    a batch's last statement.
    """
    if plan.parts is None:
        _batches(driver, plan, rows)
        return None
    if not plan.upsert:
        return _pages(driver, plan, rows)
    driver.run("SAVEPOINT trunkline")
    try:
        affected: int | None = _pages(driver, plan, rows)
    except StatementError as error:
        if error.code != _SAME_KEY:
            raise
        # Two rows have the same key, so each row needs a statement of its own.
        driver.run("ROLLBACK TO SAVEPOINT trunkline")
        _batches(driver, plan, rows)
        affected = None
    driver.run("RELEASE SAVEPOINT trunkline")
    return affected


def _pages(driver: PostgresDriver, plan: Bulk, rows: Sequence[Any]) -> int:
    """Write the rows in INSERTs of up to `PAGE` rows. Returns how many rows were affected."""
    # One call of psycopg2 for a page: execute_values of psycopg2 makes a call for each row.
    whole = plan.page(PAGE) if len(rows) >= PAGE else ""
    affected = 0
    for page in _slices(driver, plan, rows, PAGE):
        text = whole if len(page) == PAGE else plan.page(len(page))
        values = driver.take(partial(_flat, driver, plan, page))
        affected += driver.run(text, values, whole=True).affected or 0
    return affected


def _flat(driver: PostgresDriver, plan: Bulk, rows: Sequence[Any]) -> Sequence[Any]:
    """The values of all rows in one list, as psycopg2 takes them."""
    values = list(chain.from_iterable(rows))
    return to_server(values, _shapes(driver, plan, values) * len(rows))


def _shapes(driver: PostgresDriver, plan: Bulk, values: Sequence[Any]) -> list[Shape]:
    """The shapes that the values of a row may have; empty if no value needs a shape."""
    if not has_containers(values):
        return []
    rows = len(values) // len(plan.order)

    def fits(found: Sequence[Shape]) -> bool:
        return all_take(values, [found[index] for index in plan.order] * rows)

    found = driver.shapes(plan.text, max(plan.order) + 1, fits)
    return [found[index] for index in plan.order]


def _batches(driver: PostgresDriver, plan: Bulk, rows: Sequence[Any]) -> None:
    """Write the rows with a statement for each row, `BATCH` statements in one message."""
    for page in _slices(driver, plan, rows, BATCH):
        values = driver.take(partial(_each, driver, plan, page))
        driver.with_cursor(
            partial(execute_batch, sql=plan.single, argslist=values, page_size=BATCH)
        )


def _each(driver: PostgresDriver, plan: Bulk, rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [to_server(row, _shapes(driver, plan, row)) for row in rows]


def _slices(
    driver: PostgresDriver, plan: Bulk, rows: Sequence[Any], size: int
) -> Iterator[Sequence[Any]]:
    """The rows in slices, checked and in the order of the `%s`.

    StatementError after an interrupt.
    """
    # An iterator, because the rows are unpacked while they are read: once and in order.
    left = iter(rows)
    while page := list(islice(left, size)):
        driver.check_interrupted()
        driver.take(partial(plan.check, page))
        yield plan.in_order(page)


def _quiet(text: str) -> str:
    """A text without placeholders, for use inside a text with placeholders."""
    return bind(text, (), Dialect.POSTGRES, Style.FORMAT)[0].replace("%", "%%")


def _insert(statement: Statement) -> tuple[str, str, str] | None:
    """The text before, in and after the parentheses of `INSERT ...

    VALUES (...)`. None if there are several parentheses or if placeholders stand outside of them.
    """
    if statement.keyword != "INSERT":
        return None
    found = list(tokens(statement.text, Dialect.POSTGRES))
    begin = _after_values(found)
    if begin is None:
        return None
    end = _closing(found, begin)
    head, values, tail = map(_joined, (found[:begin], found[begin:end], found[end:]))
    several = next((t.text for t in found[end:] if not _blank(t)), "") == ","
    elsewhere = any(placeholders(part, Dialect.POSTGRES) for part in (head, tail))
    inside = placeholders(values, Dialect.POSTGRES) == placeholders(
        statement.text, Dialect.POSTGRES
    )
    return None if several or elsewhere or not inside else (head, values, tail)


def _joined(found: Sequence[Token]) -> str:
    return "".join(token.text for token in found)


def _after_values(found: list[Token]) -> int | None:
    """The index of the parenthesis after VALUES; None without one.

    A VALUES inside of parentheses does not count.
    """
    depth = 0
    for index, token in enumerate(found):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.kind == "word" and token.text.upper() == "VALUES":
            begin = next((at for at in range(index + 1, len(found)) if not _blank(found[at])), None)
            return begin if begin is not None and found[begin].text == "(" else None
    return None


def _closing(found: list[Token], begin: int) -> int:
    """The index after the parenthesis that closes the parenthesis at `begin`."""
    depth = 0
    for index in range(begin, len(found)):
        depth += {"(": 1, ")": -1}.get(found[index].text, 0)
        if depth == 0:
            return index + 1
    return len(found)


def _blank(token: Token) -> bool:
    return token.text.isspace() or token.text.startswith(("--", "/*"))
