"""What is done on a database connection for one request: the job, its errors, and those it has in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trunkline.actors.driver import ExecDriver
from trunkline.deadline import Deadline
from trunkline.errors import StatementError, TrunklineError
from trunkline.wire import values

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest

__all__ = [
    "OVER",
    "Job",
    "LinkLost",
    "begin",
    "commit",
    "nothing",
    "over",
    "refused",
    "rollback",
    "shortened",
    "still_inside",
]

LONGEST_ERROR = 2000
"""Of an error's text: SQLite quotes what it does not understand, and that may be a megabyte."""
OVER = "TRANSACTION_OVER"
"""Code of the errors of a transaction's statements after its end."""


class LinkLost(ConnectionError):
    """The server has hung up before it was sent what came next."""


@dataclass(slots=True, eq=False)
class Job:
    """One request: what to run on the driver's thread, and whom to answer."""

    sender: bytes
    request_id: int
    run: Callable[[ExecDriver], bytes]
    deadline: Deadline
    dials_until: Deadline
    """A link that is not there is dialled for so long: to the deadline; without one, for the option `timeout`
    from the moment that the request came."""
    timer: asyncio.TimerHandle | None = None
    what: str = "exec"
    begins: bytes | None = None
    """Token of the transaction that this job begins."""
    timed_out: bool = False
    """Or nobody waits for it any more."""
    closed: bool = False
    """That nobody waits is because the object was closed."""
    begun: bool = False
    """The driver has been told to run it: before, nothing can have happened."""
    answered: bool = field(default=False)
    guest: Guest | None = None
    """Who asked, when his socket was left to the driver's thread."""
    joins: tuple[str, Any] | None = None
    """A statement without a deadline that may be committed together with others."""
    stays: bool = False
    """The driver's thread has answered and waits for his next request; it gives the socket back."""


def nothing(driver: ExecDriver) -> bytes:
    return values.pack(None)


def begin(driver: ExecDriver, how: str = "") -> bytes:
    """`how`: modes behind BEGIN."""
    driver.begin_as(how) if how else driver.begin()
    return values.pack(None)


def commit(driver: ExecDriver) -> bytes:
    """A transaction that cannot be committed is over all the same: its block has ended."""
    try:
        driver.commit()
    except TrunklineError:
        with contextlib.suppress(TrunklineError):
            rollback(driver)
        raise
    return values.pack(None)


def rollback(driver: ExecDriver) -> bytes:
    if driver.in_transaction():
        driver.rollback()
    return values.pack(None)


def still_inside(driver: ExecDriver | None) -> bool:
    """Whether a transaction is open after an error; a driver that cannot tell has lost it."""
    try:
        return driver is not None and driver.in_transaction()
    except Exception:
        return False


def over() -> StatementError:
    return StatementError(
        "this transaction is over: it was rolled back when the database, its worker or its holder gave up,"
        " or one of its own statements ended it (MySQL commits before CREATE, ALTER, DROP); begin it again",
        code=OVER,
    )


def refused(word: str, in_block: bool) -> StatementError:
    if in_block:
        return StatementError(
            f"{word} was refused: a `with conn.transaction():` block commits at its end by itself"
        )
    return StatementError(
        f"{word} was refused: this connection is shared, so a transaction must be "
        "`with conn.transaction():`, which keeps the others out until it ends"
    )


def shortened(error: Exception) -> Exception:
    text = str(error)
    if len(text) <= LONGEST_ERROR:
        return error
    text = f"{text[: LONGEST_ERROR // 2]} ... {text[-LONGEST_ERROR // 4 :]}"
    return type(error)(text, code=error.code) if isinstance(error, TrunklineError) else type(error)(text)
