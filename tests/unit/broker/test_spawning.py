"""What the spawner tells, and the replacement of a spawner that is gone or hangs."""

from __future__ import annotations

from tests.support.brokers import HOLDER, StagedBroker
from trunkline.broker.lifecycle import Phase
from trunkline.broker.spawner import Refused, Started
from trunkline.broker.spawning import Spawning
from trunkline.broker.supervisor import CRASHES
from trunkline.broker.workers import SILENT_S
from trunkline.wire.envelope import Kind
from trunkline.wire.state import State


def spawning(staged: StagedBroker) -> Spawning:
    return staged.core.spawning


def test_a_refusal_fails_the_dial_with_its_reason(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial()
    order = staged.spawner.next_order()
    staged.tell(Refused(order.key, "no memory"))
    [word] = staged.heard_by(HOLDER)
    assert "could not be started (no memory)" in word.fields[0]["text"]


def test_a_refusal_of_a_further_worker_is_a_crash(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.lose_worker(connection)
    staged.pass_time(0.3)
    staged.tell(Refused(staged.spawner.next_order().key, "no memory"))
    assert (connection.life.phase, connection.state) == (Phase.RESTARTING, State.DOWN)
    staged.pass_time(0.3)
    assert staged.spawner.next_order().spec["incarnation"] == 3


def test_a_worker_that_comes_too_late_for_its_connection_is_killed(staged: StagedBroker) -> None:
    pid = staged.worker_process()
    staged.tell(Started(b"12345678".hex(), pid))
    assert staged.has_ended(pid)


def test_an_order_that_was_lost_with_a_spawner_is_given_to_the_next(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(timeout_ms=10_000)
    first = staged.spawner.next_order()
    staged.now += 4
    staged.tell(None)
    second = staged.spawner.next_order()
    assert (second.key, second.spec["incarnation"]) == (first.key, 2)
    assert second.spec["until"] == first.spec["until"] + 0.5  # and the broker's grace
    assert staged.spawner.restarts == 1


def test_the_workers_of_a_lost_spawner_are_watched_by_the_broker(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.tell(None)
    assert not staged.spawner.has_orders()
    assert connection.watch is not None
    connection.watch.kill()
    staged.watcher.call_ready(20)
    assert connection.life.phase is Phase.RESTARTING


def test_a_broker_whose_spawners_end_again_and_again_stops(staged: StagedBroker) -> None:
    for _ in range(CRASHES):
        staged.tell(None)
    assert not staged.core.ending.is_stopping
    staged.tell(None)
    assert staged.core.ending.is_stopping
    assert staged.spawner.restarts == CRASHES


def test_a_spawner_that_owes_a_word_for_long_is_killed(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(timeout_ms=120_000)
    for _ in range(int(SILENT_S)):
        staged.pass_time(1.0)
        staged.say(b"control", Kind.BEAT)
    assert staged.spawner.restarts == 0
    staged.pass_time(1.0)
    staged.watcher.call_ready(0)
    assert staged.spawner.restarts == 1


def test_a_spawner_that_owes_nothing_may_be_silent(staged: StagedBroker) -> None:
    staged.hello()
    staged.pass_time(SILENT_S * 3)
    staged.watcher.call_ready(0)
    assert staged.spawner.restarts == 0
    assert spawning(staged).ends.total == 0
