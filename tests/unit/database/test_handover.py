"""The statement that the driver thread has, and an end that the event loop has not noted."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.actors.database.handover import Handover
from trunkline.actors.database.jobs import Finished, Job, do_nothing
from trunkline.actors.database.line import Line, Waiting
from trunkline.deadline import Deadline

HOLDER, TOKEN = b"holder", b"token"


class Socket:
    """A client's socket, as the handover sees it."""

    def __init__(self, claimed: bool = True) -> None:
        self.claimed = claimed

    def rearm(self) -> None:
        self.claimed = False


def statement(what: str = "exec", client: Any = None) -> Waiting[Job]:
    job = Job(b"sender", 1, do_nothing, Deadline(None), Deadline(None), what=what, client=client)
    return Waiting(HOLDER, None, job)


def finished(waiting: Waiting[Job]) -> Finished:
    return Finished(waiting, b"", None, False)


@pytest.fixture
def line() -> Line[Job]:
    return Line()


@pytest.fixture
def handover(line: Line[Job]) -> Handover:
    return Handover(line)


def test_an_end_that_nobody_waits_for_is_left_to_be_found(handover: Handover) -> None:
    running = statement()
    handover.start(running)
    assert handover.is_running(running)
    assert handover.leave_unnoted(finished(running))
    assert handover.running is running  # until the event loop has noted the end
    assert not handover.is_running(running)
    assert handover.take_unnoted() == finished(running)
    assert handover.take_unnoted() is None
    handover.finish()
    assert handover.running is None


def test_an_end_that_statements_wait_for_is_not_left(handover: Handover, line: Line[Job]) -> None:
    running = statement(client=Socket())
    handover.start(running)
    line.add(statement())
    assert not handover.leave_unnoted(finished(running))
    assert not running.job.keeps_client


@pytest.mark.parametrize("claimed", [False, True])
def test_the_driver_thread_keeps_a_client_that_it_has_claimed(
    handover: Handover, claimed: bool
) -> None:
    running = statement(client=Socket(claimed))
    handover.start(running)
    assert handover.leave_unnoted(finished(running))
    assert running.job.keeps_client is claimed


def test_the_next_statement_begins_in_place_of_the_last(
    handover: Handover, line: Line[Job]
) -> None:
    running, following = statement(), statement()
    handover.start(running)
    line.add(following)
    assert handover.start_following(running.job) is following
    assert handover.running is following
    assert handover.start_following(following.job) is None


def test_the_loop_decides_who_is_next_where_the_last_statement_matters(
    handover: Handover, line: Line[Job]
) -> None:
    running = statement()
    handover.start(running)
    line.add(statement())
    handover.is_interrupting = True
    assert handover.start_following(running.job) is None
    handover.is_interrupting = False
    running.job.is_unwanted = True
    assert handover.start_following(running.job) is None
    running.job.is_unwanted = False
    line.begin(TOKEN, HOLDER)
    assert handover.start_following(running.job) is None
    assert len(line.waiting) == 1


@pytest.mark.parametrize("what", ["begin", "commit", "rollback", "fetch"])
def test_the_driver_thread_takes_plain_statements_only(
    handover: Handover, line: Line[Job], what: str
) -> None:
    running = statement()
    handover.start(running)
    line.add(statement(what))
    assert handover.start_following(running.job) is None


def test_the_driver_thread_takes_no_part_of_a_group(handover: Handover, line: Line[Job]) -> None:
    running, grouped = statement(), statement()
    grouped.job.joins = "INSERT", []
    handover.start(running)
    line.add(grouped)
    assert handover.start_following(running.job) is None


def test_a_statement_from_a_client_needs_an_end_that_is_unnoted(
    handover: Handover, line: Line[Job]
) -> None:
    running, following = statement(), statement()
    handover.start(running)
    assert not handover.start_from_client(following)
    handover.leave_unnoted(finished(running))
    assert handover.start_from_client(following)
    assert handover.is_running(following)
    assert handover.take_unnoted() is None  # Nothing of the end before is left to be noted.


def test_a_statement_from_a_client_does_not_overtake_others(
    handover: Handover, line: Line[Job]
) -> None:
    running = statement()
    handover.start(running)
    handover.leave_unnoted(finished(running))
    line.add(statement())
    assert not handover.start_from_client(statement())
    line.leave_all()
    line.begin(TOKEN, HOLDER)
    assert not handover.start_from_client(statement())
    assert handover.take_unnoted() == finished(running)


def test_the_client_of_a_running_statement_is_watched_until_its_end(handover: Handover) -> None:
    handover.watch_running_client()
    client = Socket()
    running = statement(client=client)
    handover.start(running)
    handover.leave_unnoted(finished(running))
    handover.watch_running_client()
    assert client.claimed  # The driver thread reads on.
    handover.take_unnoted()
    handover.watch_running_client()
    assert not client.claimed


def test_a_group_is_noted_until_it_has_ended(handover: Handover) -> None:
    handover.start(statement(), is_group=True)
    assert handover.is_group
    handover.finish()
    assert not handover.is_group
