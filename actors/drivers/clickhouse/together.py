"""INSERTs that wait at the same time, sent as one block for each table.

Each block becomes a part on the server's disk, and
ClickHouse is slow with many parts of one row each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline.actors.driver import Result
from trunkline.actors.drivers.clickhouse.sql import Insert
from trunkline.errors import StatementError

__all__ = ["Outcome", "insert_together", "is_all_or_nothing", "table_of"]

Outcome = Result | StatementError | ConnectionError
Binds = Sequence[Any] | Mapping[str, Any]
_CONSTRAINT = 469
"""The code for a violated constraint.
The server checks the constraints of a table before it stores a row of the block.
"""
_OF_A_VALUE = frozenset((6, 27, 38, 41, 43, 69, 70, 72, 131, 153, 321, 349, 395, 407))
"""Codes for a single wrong value in a DEFAULT, a MATERIALIZED column or an expression of the
table's keys: not parsed or converted, out of range, a division by zero, `throwIf`.
"""
_ELSEWHERE = ("while pushing to view", "Received from")
"""Parts of the error texts of views and of other servers.
With such an error, rows may already be in the table.
"""
_NAME = r"(`[^`\\]+`|\"[^\"\\]+\"|[A-Za-z_]\w*)"
_TABLE = re.compile(
    rf"\s*INSERT\s+INTO\s+(?:TABLE\s+)?{_NAME}(?:\s*\.\s*{_NAME})?\s*(?:\(|VALUES\b)", re.IGNORECASE
)
_LOST_BEFORE = "the server was lost while inserts of others were sent"


def insert_together(
    wanted: Sequence[tuple[Insert, Binds]],
    rows_of: Callable[[Insert, Binds], Sequence[Any]],
    insert: Callable[[Insert, list[Sequence[Any]]], Result],
    block_size: int,
    is_whole: Callable[[Insert], bool],
) -> list[Outcome]:
    """The outcome of each INSERT, in the given order.

    `rows_of`: returns the rows of one INSERT, or raises StatementError.
    `insert`: sends rows, given in parts, as one block, or raises StatementError or
    ConnectionError.
    `block_size`: rows of one block at most.
    `is_whole`: whether the table stores all rows of a block or none.

    If a block is refused and surely nothing was stored, each INSERT is sent alone, so a wrong
    value spoils only its own INSERT.
    Any other refusal applies to the whole block and is told to every caller in the block.
    """
    outcomes: dict[int, Outcome] = {}
    blocks: dict[str, dict[int, Sequence[Any]]] = {}
    for number, (what, binds) in enumerate(wanted):
        try:
            rows = rows_of(what, binds)
        except StatementError as error:
            outcomes[number] = error
        else:
            blocks.setdefault(what.head, {})[number] = rows
    retry = _Retry(insert, block_size, is_whole)
    lost = False
    for block in blocks.values():
        what = wanted[next(iter(block))][0]
        if lost:
            outcomes.update((number, ConnectionError(_LOST_BEFORE)) for number in block)
            continue
        found = retry.send(what, block)
        outcomes.update(found)
        lost = any(isinstance(outcome, ConnectionError) for outcome in found.values())
    return [outcomes[number] for number in range(len(wanted))]


def table_of(head: str) -> tuple[str, str] | None:
    """The database ("" for the current database) and the table that an INSERT names.

    None if the text does not tell both for sure.
    """
    found = _TABLE.match(head)
    if found is None:
        return None
    first, second = (name and name.strip('`"') for name in found.groups())
    return (first, second) if second else ("", first)


def is_all_or_nothing(engine: str, partition_key: str) -> bool:
    """Whether a table of this engine stores a block as one part, and so all of its rows or none."""
    return engine.endswith("MergeTree") and not partition_key


class _Retry:
    """Sends the INSERTs of one table as one block, or one by one if the block is refused."""

    def __init__(
        self,
        insert: Callable[[Insert, list[Sequence[Any]]], Result],
        block_size: int,
        is_whole: Callable[[Insert], bool],
    ) -> None:
        self._insert = insert
        self._block_size = block_size
        self._is_whole = is_whole

    def send(self, what: Insert, block: Mapping[int, Sequence[Any]]) -> dict[int, Outcome]:
        """The outcome of each INSERT, by its number."""
        try:
            self._insert(what, [*block.values()])
        except ConnectionError as error:
            return dict.fromkeys(block, error)
        except StatementError as error:
            if len(block) == 1 or not self._stored_nothing(what, block, error):
                return dict.fromkeys(block, error)
        else:
            return {number: Result(affected=len(rows)) for number, rows in block.items()}
        found: dict[int, Outcome] = {}
        for number, rows in block.items():
            found.update(self.send(what, {number: rows}))
        return found

    def _stored_nothing(
        self, what: Insert, block: Mapping[int, Sequence[Any]], error: StatementError
    ) -> bool:
        """Whether surely no row of a block that was refused with this error is in the table."""
        # Without a code: a value does not fit its column,
        # which is noticed before any row is sent.
        if error.code is None:
            return True
        if any(words in str(error) for words in _ELSEWHERE):
            return False
        # Several blocks were sent, and the first may be stored.
        if sum(map(len, block.values())) > self._block_size:
            return False
        return error.code == _CONSTRAINT or (error.code in _OF_A_VALUE and self._is_whole(what))
