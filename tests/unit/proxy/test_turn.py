"""One thread at a time, and what signal handlers may do to it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.support.waiting import Background
from trunkline.proxy.turn import BUSY, FOREVER, Turn


@pytest.fixture
def turn() -> Turn:
    return Turn()


def held(turn: Turn) -> tuple[Background[object], Callable[[], None]]:
    """A thread that has the turn, and what lets it end."""
    has_it, end = threading.Event(), threading.Event()

    def hold() -> None:
        has_it.set()
        end.wait(20)

    thread: Background[object] = Background(lambda: turn.run(FOREVER, hold))
    assert has_it.wait(20)
    return thread, end.set


def test_the_work_is_done_with_the_turn(turn: Turn) -> None:
    assert turn.run(0, lambda: (turn.is_mine(), 7)) == (True, 7)
    assert not turn.is_mine()


def test_a_second_thread_gets_none_in_time(turn: Turn) -> None:
    thread, end = held(turn)
    assert turn.run(0, lambda: 7) is BUSY
    assert turn.run(0.01, lambda: 7) is BUSY
    end()
    thread.result()
    assert turn.run(0, lambda: 7) == 7


def test_a_second_thread_gets_it_when_the_first_has_done(turn: Turn) -> None:
    thread, end = held(turn)
    second = Background(lambda: turn.run(20, lambda: 7))
    end()
    assert second.result() == 7
    thread.result()


def test_the_thread_that_has_it_is_refused(turn: Turn) -> None:
    assert turn.run(0, lambda: turn.run(FOREVER, lambda: 7)) is BUSY


def test_an_exception_of_the_work_gives_it_back(turn: Turn) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turn.run(0, fail)
    assert not turn.is_mine()
    assert Background(lambda: turn.run(0, lambda: 7)).result() == 7
