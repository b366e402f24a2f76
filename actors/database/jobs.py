"""A job: the form that a request has in a worker.

Also the end of a job.

The event loop makes a job for each request, the driver
thread runs the job, and the event loop notes the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trunkline.actors.database.line import Waiting
from trunkline.actors.driver import ExecDriver
from trunkline.deadline import Deadline
from trunkline.errors import TrunklineError
from trunkline.wire import values

if TYPE_CHECKING:
    from trunkline.actors.process.door import Guest

__all__ = [
    "AnswerJob",
    "Finished",
    "Job",
    "LinkLost",
    "begin_transaction",
    "commit_transaction",
    "do_nothing",
    "is_in_transaction",
    "roll_back_transaction",
    "shorten_error",
]

LONGEST_ERROR = 2000
"""Longest text of an error, in letters.
SQLite quotes the text that it cannot parse, which may have a megabyte.
"""


class LinkLost(ConnectionError):
    """The server hung up before the statement was sent, so the statement had no effect."""


@dataclass(slots=True, eq=False)
class Job:
    """One request: work for the driver thread, and the client that waits for the answer.

    The event loop writes every field. The driver thread also writes `has_begun`, `is_answered`
    and `keeps_client`. The order of writes matters: see `trunkline.actors.database.interrupts`.
    """

    sender: bytes
    """Name of the client socket; empty for a job that the worker made without a request."""
    request_id: int
    """Number that the client gave the request; the answer carries the same number."""
    run: Callable[[ExecDriver], bytes]
    """Called on the driver thread. Returns the body of the answer."""
    deadline: Deadline
    """Limit for the whole job: the wait in the line, the dial and the run."""
    dials_until: Deadline
    """Limit for dialling a lost link: the deadline of the job; without a deadline, option
    `timeout` after the request came.
    """
    timer: asyncio.TimerHandle | None = None
    """Fires at the deadline, while the job waits or runs."""
    what: str = "exec"
    """exec, fetch, end, begin, commit or rollback."""
    begins: bytes | None = None
    """Token of the transaction that the job begins."""
    is_unwanted: bool = False
    """The deadline has passed, or the caller has left.
    The job is not to begin, or is to be stopped.
    """
    is_object_closed: bool = False
    """The job is unwanted because the program closed its object."""
    has_begun: bool = False
    """The driver was told to run the job. Before that, the job has certainly had no effect."""
    is_answered: bool = False
    """The answer was sent; no other answer may follow."""
    client: Guest | None = None
    """The client socket that was left to the driver thread
    with the job; None while the event loop reads the socket.
    """
    joins: tuple[str, Any] | None = None
    """Text and values of a statement that may share a
    commit with other statements; None for all other jobs.
    """
    keeps_client: bool = False
    """The driver thread reads `client` after the answer, and gives the socket back later."""


class AnswerJob(Protocol):
    """Answers a job with a body or an error, unless the job is answered.

    Called on the event loop.
    """

    def __call__(self, job: Job, *, body: bytes = b"", error: Exception | None = None) -> None: ...


class Finished(NamedTuple):
    """The end of a job on the driver thread."""

    waiting: Waiting[Job]
    body: bytes
    """Body of the answer; empty after an error."""
    error: Exception | None
    """The error with which the job ended; None for success."""
    is_inside: bool
    """A transaction is open on the link now."""


def do_nothing(driver: ExecDriver) -> bytes:
    """The work of a job that gets its real work later. Returns an answer without a value."""
    return values.pack(None)


def begin_transaction(driver: ExecDriver, modes: str = "") -> bytes:
    """Begin a transaction.

    `modes` stand behind BEGIN (`READ ONLY`). Raises what the driver raises.
    """
    if modes:
        driver.begin_as(modes)
    else:
        driver.begin()
    return values.pack(None)


def commit_transaction(driver: ExecDriver) -> bytes:
    """Commit the open transaction.

    A transaction that cannot be committed is rolled back, because its block has ended.
    Then the error of the commit is raised.
    """
    try:
        driver.commit()
    except TrunklineError:
        with contextlib.suppress(TrunklineError):
            roll_back_transaction(driver)
        raise
    return values.pack(None)


def roll_back_transaction(driver: ExecDriver) -> bytes:
    """Roll back the open transaction. Succeeds if no transaction is open."""
    if driver.in_transaction():
        driver.rollback()
    return values.pack(None)


def is_in_transaction(driver: ExecDriver | None) -> bool:
    """Whether a transaction is open after an error.

    A driver that cannot tell has lost its link and so the transaction.
    """
    try:
        return driver is not None and driver.in_transaction()
    except Exception:
        return False


def shorten_error(error: Exception) -> Exception:
    """The error itself, or an error of the same class
    with a text of `LONGEST_ERROR` letters at most.
    """
    text = str(error)
    if len(text) <= LONGEST_ERROR:
        return error
    text = f"{text[: LONGEST_ERROR // 2]} ... {text[-LONGEST_ERROR // 4 :]}"
    if isinstance(error, TrunklineError):
        return type(error)(text, code=error.code)
    return type(error)(text)
