"""What a statement gives: the result of `ExecDriver.execute`, and rows that are fetched bit by bit.

The public names are part of `trunkline.actors.driver`, from where drivers import them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.errors import StatementError

__all__ = ["FIRST_ROWS", "Result", "ResultRows", "Rows"]

FIRST_ROWS = 64
"""How many rows `ExecDriver.execute` fetches before it returns; the others are `Result.rest`."""


class Rows(ABC):
    """Rows of one statement that are fetched bit by bit. Called from the thread of its driver."""

    columns: list[str]

    @abstractmethod
    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """The next rows, `count` at most; fewer, or none, only at the end. Errors are those of `execute`."""

    @abstractmethod
    def close(self) -> None:
        """Give up what was not fetched; the connection is usable for the next statement then. Idempotent, and
        raises nothing but ConnectionError."""


@dataclass(slots=True)
class Result:
    """What one statement gave. `affected` and `last_id` are None where the driver cannot know them."""

    columns: list[str] = field(default_factory=list)
    values: Sequence[Sequence[Any]] = field(default_factory=list)
    """The first rows: `FIRST_ROWS` of them where there is a `rest`."""
    affected: int | None = None
    last_id: int | None = None
    rest: Rows | None = None
    """The rows after `values`. The caller fetches them to their end, or closes it, before the next call. None
    where there is `more`."""
    matched: int | None = None
    """Rows that an UPDATE has found, where the database counts those apart from the ones it has changed."""
    more: list[Result] = field(default_factory=list)
    """The result sets after the first, each with `columns` and `values` alone: of a procedure, or of several
    statements in one text."""

    def add_set(self, columns: list[str], rows: Sequence[Sequence[Any]], rest: Rows | None) -> None:
        """Take a result set: the first as the result's own, every other one, read to its end, into `more`."""
        if not self.columns:
            self.columns, self.values, self.rest = columns, rows, rest
            return
        first_rest, self.rest = self.rest, None
        if first_rest is not None:
            self.values = [*self.values, *_fetch_all(first_rest)]
        self.more.append(Result(columns, rows if rest is None else [*rows, *_fetch_all(rest)]))


def _fetch_all(rows: Rows) -> Iterator[Sequence[Any]]:
    while found := rows.fetch(FIRST_ROWS):
        yield from found
    rows.close()


class ResultRows(Rows):
    """The rows of a `Result`, from its first. StatementError for a result with several sets of rows."""

    def __init__(self, result: Result) -> None:
        if result.more:
            raise StatementError(
                f"the statement was run and gave {len(result.more) + 1} result sets, and query gives the rows"
                " of one; use exec"
            )
        self.columns = result.columns
        self._first: Sequence[Sequence[Any]] = result.values
        self._rest = result.rest

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        rows, self._first = self._first[:count], self._first[count:]
        if self._rest is not None and len(rows) < count:
            rows = [*rows, *self._rest.fetch(count - len(rows))]
        return rows

    def close(self) -> None:
        self._first = []
        if self._rest is not None:
            self._rest.close()
