"""A database in the measurements: how to dial it, and how to use its own driver bare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

__all__ = ["COLUMNS", "HOST", "Database", "row"]

HOST = "127.0.0.1"
COLUMNS = ("n", "price", "word", "moment", "amount")

_FIRST = datetime(2024, 1, 1)


def row(number: int) -> tuple[int, float, str, datetime, Decimal]:
    """A row of the tables, for databases with all five types."""
    moment = _FIRST + timedelta(seconds=number)
    return number, number / 8 + 0.1, f"word {number % 1000:03d}", moment, Decimal(number) / 100


class Database(ABC):
    """A database. Other processes get copies, so every field can be pickled.

    The bare driver is used as its documentation shows, with the settings of the worker's own
    connection. Both sides use the same tables.
    """

    scheme: ClassVar[str]
    client: ClassVar[str]
    """The name of the Python driver."""
    types: ClassVar[str]
    """The types of the five columns in CREATE TABLE."""
    bulk: ClassVar[str]
    """The method of `insert_bare`, for the table."""
    end_of_create: ClassVar[str] = ""
    place: ClassVar[str] = "?"
    """The bare driver's placeholder."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The address for Dial."""

    @abstractmethod
    def connect(self) -> Any:
        """Open a connection of the bare driver."""

    def fetch_bare(self, connection: Any, sql: str, values: Any = ()) -> list[Any]:
        """All rows of a statement at once; `values` is the result of `bound`."""
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def run_bare(self, connection: Any, sql: str) -> None:
        """Execute a statement without rows."""
        with connection.cursor() as cursor:
            cursor.execute(sql)

    @abstractmethod
    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert all rows and commit, in the fastest way that the driver documents."""

    def bound(self, value: Any) -> Any:
        """A single value in the form that the bare driver takes for `place`."""
        return (value,)

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        """The rows that are inserted and read again."""
        return [row(number) for number in range(count)]

    def create(self, table: str) -> list[str]:
        """The statements that make an empty table."""
        columns = ", ".join(
            f"{name} {kind}" for name, kind in zip(COLUMNS, self.types.split(), strict=True)
        )
        return [
            f"DROP TABLE IF EXISTS {table}",
            f"CREATE TABLE {table} ({columns}){self.end_of_create}",
        ]

    def insert(self, table: str, values: str) -> str:
        """An INSERT of all columns; `values` is the text after VALUES."""
        return f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES {values}".rstrip()

    def fresh(self, connection: Any, table: str) -> None:
        """Make an empty table."""
        for statement in self.create(table):
            self.run_bare(connection, statement)
