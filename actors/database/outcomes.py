"""The error that a caller is told when a job has failed.

Pure.

An error of the driver tells what happened on the link. The caller wants to know what became of
the statement: whether the statement was stopped, may have taken effect, or can be repeated.
"""

from __future__ import annotations

from trunkline.actors.database.admission import OVER
from trunkline.actors.database.jobs import Job, LinkLost
from trunkline.errors import BrokenError, OperationTimeout, OutcomeUnknown, StatementError

__all__ = ["explain_end", "explain_loss", "explain_outcome"]


def explain_outcome(
    error: Exception | None, job: Job, display: str, *, in_transaction: bool, is_closed: bool
) -> Exception | None:
    """The error to tell for a job that has ended with `error`; None for success.

    `display`: the address without secrets.
    `in_transaction`: the job ran in a transaction.
    `is_closed`: the connection has been ended.
    """
    if isinstance(error, ConnectionError):
        error = explain_loss(error, job, display, in_transaction=in_transaction)
    # A BEGIN that no caller waits for is an error even
    # after success, because its transaction is rolled back.
    if error is None and not (job.begins and job.is_unwanted):
        return None
    if job.is_unwanted and not isinstance(error, OutcomeUnknown):
        error = _explain_stop(job)
    return explain_end(error, is_closed=is_closed)


def explain_loss(
    error: ConnectionError, job: Job, display: str, *, in_transaction: bool
) -> Exception:
    """The error to tell if the link was lost during a job.

    The arguments are those of `explain_outcome`.
    """
    event = f"the server of {display} was lost"
    if job.what == "fetch":
        return BrokenError(f"{event} before all rows of the query were read: {error}")
    if isinstance(error, LinkLost) or (job.what == "exec" and in_transaction):
        return StatementError(
            f"{event} in a transaction, which it rolls back ({error}); begin it again", code=OVER
        )
    if job.what not in ("exec", "commit"):
        return BrokenError(f"{event}: {error}")
    return OutcomeUnknown(
        f"{event} while the statement ran ({error}): it may or may not have taken effect"
    )


def explain_end(error: Exception | None, *, is_closed: bool) -> Exception | None:
    """The error itself.

    For a statement that was stopped by the end of its connection, an error that says so.
    """
    if error is None or not is_closed or isinstance(error, OutcomeUnknown):
        return error
    return StatementError("the statement was stopped: its connection was ended while it ran")


def _explain_stop(job: Job) -> Exception:
    """The error of a job that was interrupted."""
    if job.is_object_closed:
        return StatementError("the statement was stopped: its object was closed while it ran")
    return OperationTimeout("the statement was stopped: it did not end in the time allowed")
