"""The error that a caller is told when a job has not ended well."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database.admission import OVER
from trunkline.actors.database.jobs import Job, LinkLost, do_nothing
from trunkline.actors.database.outcomes import explain_end, explain_loss, explain_outcome
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, OperationTimeout, OutcomeUnknown, StatementError

REFUSED = StatementError("refused")
LOST = ConnectionError("reset")
UNKNOWN = OutcomeUnknown("who knows")


def job(what: str = "exec", **more: Any) -> Job:
    return Job(b"sender", 1, do_nothing, Deadline(None), Deadline(None), what=what, **more)


def outcome(
    error: Exception | None, of: Job, in_transaction: bool = False, is_closed: bool = False
) -> Any:
    return explain_outcome(error, of, "db.test", in_transaction=in_transaction, is_closed=is_closed)


def test_success_and_the_drivers_error_stay() -> None:
    assert outcome(None, job()) is None
    assert outcome(REFUSED, job()) is REFUSED


@pytest.mark.parametrize(
    ("what", "in_transaction", "kind", "words"),
    [
        ("exec", False, OutcomeUnknown, "may or may not have taken effect"),
        ("commit", True, OutcomeUnknown, "may or may not have taken effect"),
        ("exec", True, StatementError, "in a transaction, which it rolls back"),
        ("fetch", False, BrokenError, "before all rows of the query were read"),
        ("fetch", True, BrokenError, "before all rows of the query were read"),
        ("begin", False, BrokenError, "the server of db.test was lost: reset"),
        ("rollback", True, BrokenError, "the server of db.test was lost: reset"),
    ],
)
def test_a_lost_link_means_what_the_job_was(
    what: str, in_transaction: bool, kind: type, words: str
) -> None:
    told = explain_loss(LOST, job(what), "db.test", in_transaction=in_transaction)
    assert type(told) is kind
    assert words in str(told)
    assert outcome(LOST, job(what), in_transaction).args == told.args


def test_a_statement_that_was_never_sent_ends_its_transaction() -> None:
    told = outcome(LinkLost("hung up"), job("commit"), in_transaction=True)
    assert (type(told), told.code) == (StatementError, OVER)


def test_an_interrupted_statement_was_stopped() -> None:
    assert type(outcome(REFUSED, job(is_unwanted=True))) is OperationTimeout
    closed = outcome(REFUSED, job(is_unwanted=True, is_object_closed=True))
    assert "its object was closed while it ran" in str(closed)
    assert outcome(None, job(is_unwanted=True)) is None


def test_an_unknown_outcome_stays_unknown() -> None:
    assert outcome(UNKNOWN, job(is_unwanted=True), is_closed=True) is UNKNOWN
    assert type(outcome(LOST, job(is_unwanted=True), is_closed=True)) is OutcomeUnknown


def test_a_begin_that_nobody_waits_for_is_no_success() -> None:
    assert outcome(None, job("begin", begins=b"token")) is None
    assert type(outcome(None, job("begin", begins=b"token", is_unwanted=True))) is OperationTimeout


def test_the_end_of_the_connection_is_told() -> None:
    assert "its connection was ended while it ran" in str(explain_end(REFUSED, is_closed=True))
    assert explain_end(REFUSED, is_closed=False) is REFUSED
    assert explain_end(None, is_closed=True) is None


@given(
    st.sampled_from([None, REFUSED, LOST, UNKNOWN, LinkLost("hung up")]),
    st.sampled_from(["exec", "fetch", "begin", "commit", "rollback"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_no_caller_is_told_of_success_after_an_error(
    error: Exception | None, what: str, is_unwanted: bool, in_transaction: bool, is_closed: bool
) -> None:
    told = outcome(error, job(what, is_unwanted=is_unwanted), in_transaction, is_closed)
    assert (told is None) == (error is None)
    assert not isinstance(told, ConnectionError)
