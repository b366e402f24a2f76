"""Results of statements: `Result` of `ExecDriver.execute`, and `Rows` for fetching in batches.

Drivers import the public names from `trunkline.actors.driver`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.errors import StatementError

__all__ = ["FIRST_ROWS", "Result", "ResultRows", "Rows"]

FIRST_ROWS = 64
"""How many rows `ExecDriver.execute` fetches before it returns. `Result.rest` fetches more."""


class Rows(ABC):
    """Rows of a statement, fetched in batches. The driver's thread makes all calls."""

    columns: list[str]

    @abstractmethod
    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """Fetch the next `count` rows; fewer rows only at the end. Errors as `execute`."""

    @abstractmethod
    def close(self) -> None:
        """Give up the remaining rows, so that the connection can run the next statement.

        Idempotent. Raises ConnectionError only."""


@dataclass(slots=True)
class Result:
    """The result of one statement. `affected` and `last_id` are None where unknown."""

    columns: list[str] = field(default_factory=list)
    values: Sequence[Sequence[Any]] = field(default_factory=list)
    """The first rows: `FIRST_ROWS` rows where there is a `rest`, else all rows."""
    affected: int | None = None
    last_id: int | None = None
    rest: Rows | None = None
    """The rows after `values`. Before the next call of the driver, the caller fetches all of
    these rows or closes `rest`. None where there is `more`."""
    matched: int | None = None
    """Rows that an UPDATE matched, where the database also counts changed rows (`affected`)."""
    more: list[Result] = field(default_factory=list)
    """Result sets after the first, of a procedure or of several statements in one text.
    A further set has `columns` and `values` alone."""

    def add_set(self, columns: list[str], rows: Sequence[Sequence[Any]], rest: Rows | None) -> None:
        """Add a result set. The first set becomes `columns`, `values` and `rest`, others go to
        `more`.

        From the second set on, rows are fetched to the end at once."""
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
    """The rows of a `Result` from the first row. StatementError for a result with several sets."""

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
