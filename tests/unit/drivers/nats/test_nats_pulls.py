"""Requests for messages: how many, and when the consumer is to prove that it is there. No server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.drivers.nats.pulls import Pull, Pulls, StatusKind, read_status
from trunkline.actors.drivers.nats.questions import ConsumerLook


def _pulls(window: int = 100, now: float = 0.0) -> Pulls:
    pulls = Pulls(window, now)
    pulls.inbox = "_INBOX.x"
    return pulls


def _next(pulls: Pulls, held: int = 0, now: float = 0.0) -> Pull:
    pull = pulls.next_request(held, now)
    assert pull is not None
    return pull


def _look(**more: Any) -> ConsumerLook:
    plain = {
        "pending": 0,
        "waiting": 0,
        "created": "",
        "filter": "",
        "max_expires_s": None,
        "max_batch": None,
    }
    return ConsumerLook(**{**plain, **more})


def test_the_first_request_asks_for_the_whole_window() -> None:
    pulls = _pulls()
    pull = _next(pulls, held=10)
    assert (pull.left, pull.inbox) == (90, "_INBOX.x.1")
    assert json.loads(pulls.body_of(pull)) == {"batch": 90, "expires": 30_000_000_000}
    assert pulls.next_request(10, 0) is None, "all is asked for"


def test_a_request_for_a_few_messages_waits_until_it_is_worth_it() -> None:
    pulls = _pulls()
    _next(pulls)
    for _ in range(24):
        pulls.note_message()
    assert pulls.next_request(0, 0) is None
    pulls.note_message()
    assert _next(pulls).left == 25


def test_a_request_is_over_with_its_last_message() -> None:
    pulls = _pulls(window=2)
    _next(pulls)
    pulls.note_message()
    pulls.note_message()
    assert _next(pulls).inbox == "_INBOX.x.2"


def test_a_request_that_the_server_has_ended_is_made_again() -> None:
    pulls = _pulls()
    pulls.drop(_next(pulls).inbox)
    assert _next(pulls).left == 100


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_what_is_asked_for_and_held_never_exceeds_the_window(
    window: int, turns: list[tuple[int, int]]
) -> None:
    pulls, held, asked = _pulls(window), 0, 0
    for come, read in turns:
        pull = pulls.next_request(held, 0)
        asked += pull.left if pull is not None else 0
        for _ in range(min(come, asked)):
            pulls.note_message()
            held, asked = held + 1, asked - 1
        assert held + asked <= window
        held -= min(read, held)


def test_the_consumers_limits_are_obeyed() -> None:
    pulls = _pulls()
    pulls.obey(_look(max_expires_s=2.0, max_batch=7))
    pull = _next(pulls)
    assert json.loads(pulls.body_of(pull)) == {"batch": 7, "expires": 2_000_000_000}
    pulls.clear()
    pulls.limit_batch(0)
    assert _next(pulls).left == 1
    pulls.clear()
    pulls.obey(_look())
    assert _next(pulls).left == 100


def test_expired_requests_are_forgotten() -> None:
    pulls = _pulls()
    _next(pulls, now=0)
    pulls.forget_expired(34)
    assert pulls.next_request(0, 34) is None
    pulls.forget_expired(36)
    assert pulls.next_request(0, 36) is not None


def test_a_request_without_an_answer_is_a_reason_to_look() -> None:
    pulls = _pulls()
    pulls.start(0)
    assert not pulls.must_look(5)
    _next(pulls, now=5)
    assert not pulls.must_look(5.9)
    assert pulls.must_look(6.1)
    pulls.note_heard(6.1)
    assert not pulls.must_look(6.2)
    assert pulls.must_look(10.1), "now and then in any case"
    pulls.note_answer(10.1)
    assert not pulls.must_look(11)
    pulls.look_soon()
    assert pulls.must_look(11)


def test_a_consumer_that_is_there_proves_the_requests_before() -> None:
    pulls = _pulls()
    _next(pulls, now=0.5)
    assert pulls.must_look(2)
    pulls.note_consumer_there(2, waiting=1)
    assert not pulls.must_look(3)
    assert pulls.next_request(0, 3) is None, "the request still waits at the server"


def test_requests_that_the_server_has_lost_are_made_again() -> None:
    pulls = _pulls()
    _next(pulls, now=0.5)
    pulls.note_consumer_there(1.0, waiting=0)
    assert pulls.next_request(0, 1) is None, "it may be on its way"
    pulls.note_consumer_there(2.0, waiting=0)
    assert pulls.next_request(0, 2) is not None


def test_a_server_that_answers_no_question_is_silent() -> None:
    pulls = _pulls()
    pulls.note_answer(10)
    assert not pulls.is_silent(10 + pulls.patience_s)
    assert pulls.is_silent(10.1 + pulls.patience_s)


@pytest.mark.parametrize(
    ("code", "description", "kind", "most"),
    [
        ("503", "", StatusKind.CONSUMER_GONE, 0),
        ("409", "Consumer Deleted", StatusKind.CONSUMER_GONE, 0),
        ("409", "Consumer is push based", StatusKind.CONSUMER_GONE, 0),
        ("404", "No Messages", StatusKind.ENDED, 0),
        ("408", "Request Timeout", StatusKind.ENDED, 0),
        ("409", "Exceeded MaxRequestBatch of 25", StatusKind.BATCH_LIMIT, 25),
        ("409", "Exceeded MaxRequestBatch of many", StatusKind.REFUSED, 0),
        ("409", "Leadership Change", StatusKind.REFUSED, 0),
    ],
)
def test_what_the_server_says_of_a_request(
    code: str, description: str, kind: StatusKind, most: int
) -> None:
    status = read_status(code, description)
    assert (status.kind, status.most) == (kind, most)
    assert not status.limits_time


def test_a_limit_on_the_time_of_requests_is_to_be_looked_up() -> None:
    assert read_status("409", "Exceeded MaxRequestExpires of 1s").limits_time
