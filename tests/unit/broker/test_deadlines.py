"""What is due as time goes by, and in which order it is looked at."""

from __future__ import annotations

import os

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.deadlines import STALL_S, Deadlines
from trunkline.broker.lifecycle import Phase
from trunkline.broker.schedule import TICK_S
from trunkline.broker.workers import SILENT_S
from trunkline.wire.envelope import Kind


def look(staged: StagedBroker, seconds: float) -> None:
    """One look at the time, after so many seconds without any."""
    deadlines: Deadlines = staged.core.deadlines
    staged.now += seconds
    deadlines.look_at_time(staged.now)


def test_each_look_sets_the_next(staged: StagedBroker) -> None:
    look(staged, TICK_S)
    assert staged.schedule.next_look == staged.now + TICK_S


def test_after_a_stop_of_the_broker_no_worker_counts_as_silent(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    look(staged, SILENT_S + STALL_S + 1)
    assert connection.heard == staged.now
    assert connection.reason is None
    assert CONTROL in staged.directory.clients


def test_a_crashed_worker_is_replaced_when_that_is_due(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    for _ in range(2):
        staged.lose_worker(connection)
        due = connection.life.restart_at
        assert due is not None
        assert staged.schedule.next_look <= max(due, staged.now + TICK_S)
        staged.pass_time(max(0.01, due - staged.now))
        staged.register(staged.spawner.next_order(), staged.worker_process())
    assert connection.life.phase is Phase.SERVING


def test_a_connection_that_no_object_comes_back_to_ends(staged: StagedBroker) -> None:
    staged.hello()
    worker = staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    for _ in range(8):
        staged.pass_time(1.0)
        staged.say(worker, Kind.STATE, {})
        staged.say(CONTROL, Kind.BEAT)
    assert connection.reason == "nobody held it any more"
    assert not connection.ghosts


def test_a_connection_that_ends_is_left_alone_until_its_worker_is_due(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(HOLDER, Kind.DETACH, connection.id, HOLDER, 0, True)
    staged.say(CONTROL, Kind.BEAT)
    staged.pass_time(1.5)
    assert connection.watch is not None
    assert not connection.watch.ended()
    staged.pass_time(1.0)
    assert staged.has_ended(connection.pid)
