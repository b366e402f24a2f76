"""Whether a request may be taken now, and the words of a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database import admission
from trunkline.actors.database.admission import OVER, Entry, admit_transaction, refuse_statement
from trunkline.errors import BrokenError, ClosedError
from trunkline.sqltext import Dialect

TOKEN = b"token"
SQLITE = Dialect("sqlite")


def refusal(
    sql: str, token: bytes | None = None, dialect: Dialect = SQLITE, **facts: bool
) -> str | None:
    known = {"is_over": False, "is_shared": False, "owns_link": False} | facts
    error = refuse_statement(sql, dialect, token, **known)
    return None if error is None else str(error)


@pytest.mark.parametrize("word", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a"])
def test_a_connection_of_one_holder_takes_bare_transactions(word: str) -> None:
    assert refusal(word) is None


@pytest.mark.parametrize("word", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a"])
def test_a_shared_connection_refuses_bare_transactions(word: str) -> None:
    told = refusal(word, is_shared=True)
    assert told is not None
    assert "this connection is shared" in told


def test_the_holder_of_a_bare_transaction_may_end_it_when_others_have_come() -> None:
    assert refusal("COMMIT", is_shared=True, owns_link=True) is None


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_block_takes_savepoints_and_refuses_its_own_end(is_shared: bool) -> None:
    assert refusal("SAVEPOINT a", TOKEN, owns_link=True, is_shared=is_shared) is None
    told = refusal("COMMIT", TOKEN, owns_link=True, is_shared=is_shared)
    assert told is not None
    assert "block commits at its end by itself" in told


def test_a_word_of_a_transaction_in_a_text_is_no_transaction() -> None:
    assert refusal("SELECT 'BEGIN', \"COMMIT\" -- ROLLBACK", is_shared=True) is None


def test_a_second_statement_is_looked_at_too() -> None:
    assert refusal("SELECT 1; COMMIT", is_shared=True) is not None


def test_a_comment_that_mysql_runs_is_looked_at() -> None:
    assert refusal("/*! COMMIT */", dialect=Dialect.MYSQL, is_shared=True) is not None


@given(st.text(), st.sampled_from([None, b"", TOKEN]), st.booleans(), st.booleans())
def test_nothing_of_a_transaction_that_is_over_is_taken(
    sql: str, token: bytes | None, is_shared: bool, owns_link: bool
) -> None:
    error = refuse_statement(
        sql, Dialect.MYSQL, token, is_over=True, is_shared=is_shared, owns_link=owns_link
    )
    assert error is not None
    assert error.code == OVER


@pytest.mark.parametrize(
    ("request_", "is_given_up", "is_over", "entry"),
    [
        ("begin", False, True, Entry.WAIT),
        ("begin", True, True, Entry.GIVEN_UP),
        ("commit", False, False, Entry.WAIT),
        ("commit", False, True, Entry.OVER),
        ("commit", True, True, Entry.OVER),
        ("rollback", False, False, Entry.WAIT),
        ("rollback", False, True, Entry.FORGET),
        ("rollback", True, True, Entry.FORGET),
    ],
)
def test_begin_commit_and_rollback(
    request_: str, is_given_up: bool, is_over: bool, entry: Entry
) -> None:
    assert admit_transaction(request_, is_given_up=is_given_up, is_over=is_over) is entry


@given(st.sampled_from(["begin", "commit", "rollback"]), st.booleans(), st.booleans())
def test_each_request_has_an_entry_and_none_of_a_transaction_that_is_over_waits(
    request: str, is_given_up: bool, is_over: bool
) -> None:
    entry = admit_transaction(request, is_given_up=is_given_up, is_over=is_over)
    if request != "begin":
        assert (entry is Entry.WAIT) == (not is_over)


def test_the_words_of_a_statement_that_is_not_run() -> None:
    ended = admission.explain_not_run(is_holder_present=True)
    closed = admission.explain_not_run(is_holder_present=False)
    assert (type(ended), type(closed)) == (BrokenError, ClosedError)
    assert str(ended) == "the connection was ended before the statement's turn came; it was not run"
    assert str(closed) == "the object was closed before the statement's turn came; it was not run"


def test_the_words_of_a_deadline_that_passed() -> None:
    told = [
        admission.explain_late_arrival(),
        admission.explain_late_rollback(),
        admission.explain_expiry(in_transaction=True),
        admission.explain_expiry(in_transaction=False),
        admission.explain_not_begun("db://a", "", has_link=True),
        admission.explain_not_begun("db://a", "refused", has_link=False),
        admission.explain_transaction_given_up(),
    ]
    assert [str(error) for error in told] == [
        "the statement was longer on its way to the worker than the time allowed; it was not run",
        "the time allowed passed before the rollback was done",
        "the time allowed passed while it waited for another holder's transaction",
        "the time allowed passed while it waited for the statements before it",
        "the time allowed passed before it could begin; nothing was run",
        "the time allowed passed before db://a could be reached (refused); nothing was run",
        "the transaction was given up before its turn came",
    ]
