"""A database as the measurements see it: how it is dialled, and how its own driver does the same bare."""

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
    """A row of the tables, as databases have it that know all five types."""
    moment = _FIRST + timedelta(seconds=number)
    return number, number / 8 + 0.1, f"word {number % 1000:03d}", moment, Decimal(number) / 100


class Database(ABC):
    """One database. Processes are given copies, so it holds what can be pickled.

    The bare side is used as the driver's documentation shows it, with the settings that the worker's own
    connection has; both sides talk to the same tables.
    """

    scheme: ClassVar[str]
    client: ClassVar[str]
    """The Python driver."""
    types: ClassVar[str]
    """Of the five columns, as the table's creation has them."""
    bulk: ClassVar[str]
    """What `insert_bare` uses."""
    end_of_create: ClassVar[str] = ""
    place: ClassVar[str] = "?"
    """The bare driver's placeholder."""

    @property
    @abstractmethod
    def address(self) -> str:
        """For Dial."""

    @abstractmethod
    def connect(self) -> Any:
        """A connection of the bare driver."""

    def fetch_bare(self, connection: Any, sql: str, values: Any = ()) -> list[Any]:
        """All rows of a statement, at once; `values` as `bound` gives it."""
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def run_bare(self, connection: Any, sql: str) -> None:
        """A statement without rows."""
        with connection.cursor() as cursor:
            cursor.execute(sql)

    @abstractmethod
    def insert_bare(self, connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """All rows into a table in the driver's fastest documented way, committed."""

    def bound(self, value: Any) -> Any:
        """One value, as the bare driver takes it for `place`."""
        return (value,)

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        """What is inserted, and what is read again."""
        return [row(number) for number in range(count)]

    def create(self, table: str) -> list[str]:
        """The statements that make a table, empty."""
        columns = ", ".join(
            f"{name} {kind}" for name, kind in zip(COLUMNS, self.types.split(), strict=True)
        )
        return [
            f"DROP TABLE IF EXISTS {table}",
            f"CREATE TABLE {table} ({columns}){self.end_of_create}",
        ]

    def insert(self, table: str, values: str) -> str:
        """An INSERT of all columns; `values` is what follows VALUES."""
        return f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES {values}".rstrip()

    def fresh(self, connection: Any, table: str) -> None:
        """Make a table, empty."""
        for statement in self.create(table):
            self.run_bare(connection, statement)
