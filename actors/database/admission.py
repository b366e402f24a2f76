"""Whether a request may be taken now, and the text of a refusal.

Pure: no thread, clock or driver.

The event loop asks for each request. The driver thread asks for requests that it reads from a
client's socket. Both threads may ask at once, so this module keeps no state.
"""

from __future__ import annotations

import enum
import re

from trunkline.actors.database.sql.statements import split
from trunkline.errors import BrokenError, ClosedError, OperationTimeout, StatementError
from trunkline.sqltext import MYSQL_RUNS, Dialect

__all__ = [
    "OVER",
    "Entry",
    "admit_transaction",
    "explain_expiry",
    "explain_late_arrival",
    "explain_late_rollback",
    "explain_not_begun",
    "explain_not_run",
    "explain_transaction_given_up",
    "explain_transaction_over",
    "refuse_statement",
]

OVER = "TRANSACTION_OVER"
"""Code of the errors of statements that come after the end of their transaction."""

_TRANSACTIONAL = re.compile(
    r"\b(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)
"""Words that can begin or end a transaction.
A statement without these words need not be split into tokens.
"""


class Entry(enum.Enum):
    """What becomes of a request to begin or to end a transaction."""

    WAIT = "it waits in the line"
    GIVEN_UP = "its holder gave the transaction up before this BEGIN came: it is refused"
    OVER = "the transaction to commit is over: it is refused"
    FORGET = (
        "the transaction to roll back is not open: its BEGIN is not run, and the answer is success"
    )


_ENTRIES = {
    # (the request, whether its transaction was given up, whether its transaction is not open)
    ("begin", False, True): Entry.WAIT,
    ("begin", False, False): Entry.WAIT,
    ("begin", True, True): Entry.GIVEN_UP,
    ("begin", True, False): Entry.GIVEN_UP,
    ("commit", False, True): Entry.OVER,
    ("commit", False, False): Entry.WAIT,
    ("commit", True, True): Entry.OVER,
    ("commit", True, False): Entry.WAIT,
    ("rollback", False, True): Entry.FORGET,
    ("rollback", False, False): Entry.WAIT,
    ("rollback", True, True): Entry.FORGET,
    ("rollback", True, False): Entry.WAIT,
}


def admit_transaction(request: str, *, is_given_up: bool, is_over: bool) -> Entry:
    """What becomes of `request`, which is "begin", "commit" or "rollback".

    `is_given_up`: a rollback of the same transaction came before its BEGIN.
    `is_over`: the transaction does not have the link. That is always so for a BEGIN.
    """
    return _ENTRIES[request, is_given_up, is_over]


def refuse_statement(
    sql: str,
    dialect: Dialect,
    token: bytes | None,
    *,
    is_over: bool,
    is_shared: bool,
    owns_link: bool,
) -> StatementError | None:
    """The error of a statement that must not run; None if the statement may run.

    A bare BEGIN on a shared connection would draw the statements of other holders into its
    transaction. A COMMIT in a block would end the transaction that the block relies on.

    `token`: the block of the statement; empty or None outside of a block.
    `is_over`: that block has ended.
    `is_shared`: other holders may send statements over the same link.
    `owns_link`: the open transaction is the statement's own.
    """
    if is_over:
        return explain_transaction_over()
    in_block = bool(token)
    if not in_block and (owns_link or not is_shared):
        return None
    if not _TRANSACTIONAL.search(sql):
        return None
    allowed = (None, "savepoint") if in_block else (None,)
    if dialect is Dialect.MYSQL:
        sql = MYSQL_RUNS.sub(" ", sql)
    word = next((s.keyword for s in split(sql, dialect) if s.transaction not in allowed), None)
    return None if word is None else _explain_refusal(word, in_block)


def _explain_refusal(word: str, in_block: bool) -> StatementError:
    if in_block:
        return StatementError(
            f"{word} was refused: a `with conn.transaction():` block commits at its end by itself"
        )
    return StatementError(
        f"{word} was refused: this connection is shared, so a transaction must be "
        "`with conn.transaction():`, which keeps the others out until it ends"
    )


def explain_late_arrival() -> OperationTimeout:
    """The error of a statement that reached the worker after its deadline."""
    return OperationTimeout(
        "the statement was longer on its way to the worker than the time allowed; it was not run"
    )


def explain_not_run(*, is_holder_present: bool) -> BrokenError | ClosedError:
    """The error of a statement that leaves the line without being run.

    Its holder or the connection has ended.
    """
    if is_holder_present:
        return BrokenError(
            "the connection was ended before the statement's turn came; it was not run"
        )
    return ClosedError("the object was closed before the statement's turn came; it was not run")


def explain_expiry(*, in_transaction: bool) -> OperationTimeout:
    """The error of a statement whose deadline passed in the line.

    `in_transaction`: a transaction has the link.
    """
    before = "another holder's transaction" if in_transaction else "the statements before it"
    return OperationTimeout(f"the time allowed passed while it waited for {before}")


def explain_late_rollback() -> OperationTimeout:
    """The error of a rollback whose deadline passed in the line. The rollback stays in the line."""
    return OperationTimeout("the time allowed passed before the rollback was done")


def explain_not_begun(display: str, reason: str, *, has_link: bool) -> OperationTimeout:
    """The error of a statement whose deadline passed before the driver was told to run it.

    The statement had left the line already.

    `display`: the address without secrets.
    `reason`: why the last dial failed, or empty.
    """
    aim = "it could begin" if has_link else f"{display} could be reached"
    told = f" ({reason})" if reason else ""
    return OperationTimeout(f"the time allowed passed before {aim}{told}; nothing was run")


def explain_transaction_given_up() -> OperationTimeout:
    """The error of a BEGIN whose holder has stopped waiting."""
    return OperationTimeout("the transaction was given up before its turn came")


def explain_transaction_over() -> StatementError:
    """The error of a statement whose transaction ended before the statement's turn came."""
    return StatementError(
        "this transaction is over: it was rolled back when the database, its worker or its holder gave up,"
        " or one of its own statements ended it (MySQL commits before CREATE, ALTER, DROP); begin it again",
        code=OVER,
    )
