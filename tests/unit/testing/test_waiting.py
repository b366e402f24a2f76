"""Waits of tests end, with the result or with what did not happen."""

from __future__ import annotations

import threading

import pytest

from trunkline.testing import Background, until


def test_until_asks_again_until_it_is_true() -> None:
    answers = [False, False, True]
    until(lambda: answers.pop(0))
    assert answers == []


def test_until_ends_and_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match=r"the tick did not happen in 0\.02 s"):
        until(lambda: False, "the tick", 0.02)


def test_a_job_in_the_background_gives_its_result() -> None:
    go = threading.Event()
    job = Background(lambda: go.wait(10))
    assert job.running()
    go.set()
    assert job.result() is True
    assert not job.running()


def test_the_error_of_a_job_is_raised_where_its_result_is_asked_for() -> None:
    job = Background(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        job.result()


def test_a_job_that_runs_on_is_told_of() -> None:
    go = threading.Event()
    job = Background(lambda: go.wait(10))
    with pytest.raises(AssertionError, match="the thread still runs"):
        job.result(0.02)
    go.set()
    job.result()
