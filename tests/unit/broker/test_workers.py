"""Workers: how they come, what they report, and how their ends are noticed."""

from __future__ import annotations

import os

import pytest

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.directory import Connection
from trunkline.broker.lifecycle import Phase
from trunkline.broker.workers import LAST_WORDS_S, SILENT_S
from trunkline.wire.envelope import Kind, header
from trunkline.wire.state import State

ERROR = {"name": "DialError", "text": "refused", "code": None}


def identity_of(connection: Connection) -> bytes:
    assert connection.worker is not None
    return connection.worker


def test_a_state_is_noted_and_answered_with_the_users(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.now += 3
    staged.say(identity_of(connection), Kind.STATE, {"state": "down", "bequest": {"seen": 1}})
    assert (connection.state, connection.heard, connection.bequest) == (
        State.DOWN,
        staged.now,
        {"seen": 1},
    )
    [word] = staged.heard_by(identity_of(connection))
    assert (word.kind, word.fields) == (Kind.BEAT, [os.getpid(), [os.getpid()]])


def test_a_worker_that_is_not_known_is_told_to_register(staged: StagedBroker) -> None:
    staged.say(b"w unknown", Kind.STATE, {})
    assert staged.kinds_heard_by(b"w unknown") == [Kind.REREGISTER]


def test_figures_that_are_none_are_malformed(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    with pytest.raises(ValueError, match="no figures"):
        staged.say(identity_of(connection), Kind.STATE, 1)


def test_a_line_of_a_worker_goes_to_the_programs_that_hold_its_connection(
    staged: StagedBroker,
) -> None:
    connection = staged.open_connection()
    staged.say(identity_of(connection), Kind.LOG, "warning", "slow")
    [word] = staged.heard_by(CONTROL)
    assert word.fields == ["warning", "slow"]
    connection.life.end(staged.now)
    staged.say(identity_of(connection), Kind.LOG, "warning", "slow")
    assert staged.heard_by(CONTROL) == []


def test_a_killed_worker_is_replaced_and_its_holders_hear_of_it(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.lose_worker(connection)
    assert (connection.worker, connection.life.phase) == (None, Phase.RESTARTING)
    [word] = staged.heard_by(HOLDER)
    assert (word.sender, word.fields) == (
        connection.id,
        [True, "its worker was killed by SIGKILL", 2],
    )
    staged.pass_time(0.3)
    order = staged.spawner.next_order()
    assert (order.spec["incarnation"], order.spec["succeeds"], order.spec["until"]) == (
        2,
        True,
        None,
    )
    assert order.spec["stats"]["state"] == "down"


def test_a_worker_that_ended_in_good_order_is_heard_before_its_end_counts(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.dial()
    order = staged.spawner.next_order()
    staged.register(order, staged.worker_process())
    [connection] = staged.directory
    staged.lose_worker(connection, 0)
    assert connection.life.phase is Phase.SERVING
    staged.hears_last_words.append(staged.message(order.spec["identity"], Kind.FAILED, ERROR))
    staged.pass_time(LAST_WORDS_S + 0.1)
    answer, end = staged.heard_by(HOLDER)
    assert answer.fields[0]["text"] == "refused"
    assert end.fields[:2] == [False, "refused"]
    assert connection.life.phase is Phase.ENDED


def test_requests_that_a_worker_has_not_answered_are_answered_at_its_end(
    staged: StagedBroker,
) -> None:
    connection = staged.open_connection()
    connection.inflight[b"asking"] = header(Kind.STATS, 5)
    staged.lose_worker(connection)
    assert staged.kinds_heard_by(b"asking") == [Kind.ERROR]
    assert not connection.inflight


def test_a_worker_that_hangs_is_killed(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(CONTROL, Kind.BEAT)
    staged.pass_time(SILENT_S + 0.5)
    assert staged.has_ended(connection.pid)
    assert connection.reason == "its worker said nothing for 10 s"


def test_a_worker_of_another_broker_brings_its_connection(staged: StagedBroker) -> None:
    staged.hello()
    worker = staged.adopt(incarnation=3, users=(os.getpid(),), handle=99)
    [connection] = staged.directory
    assert (connection.worker, connection.incarnation, connection.number) == (worker, 3, 7)
    assert (connection.ghosts, connection.users) == ({HOLDER}, {CONTROL})
    assert (connection.life.phase, connection.state) == (Phase.SERVING, State.OPEN)
    assert staged.directory.by_handle[99] is connection
    staged.attach(b"new name", connection.id, former=HOLDER)
    assert (connection.ghosts, set(connection.holders)) == (set(), {b"new name"})


def test_a_worker_without_a_process_of_this_spawner_is_watched(staged: StagedBroker) -> None:
    staged.hello()
    staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    assert connection.watch is not None
    connection.watch.kill()
    staged.watcher.call_ready(20)
    assert (connection.life.phase, connection.reason) == (Phase.RESTARTING, "its worker ended")


def test_a_worker_whose_connection_was_dialled_anew_is_told_to_close(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(former=[b"12345678", b"name", False])
    worker = staged.adopt(users=(os.getpid(),))
    assert staged.kinds_heard_by(worker) == [Kind.CLOSE]
    assert len(list(staged.directory)) == 1


def test_a_worker_that_was_replaced_while_it_was_silent_is_told_to_close(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.adopt(incarnation=2, users=(os.getpid(),))
    old = staged.adopt(incarnation=1, users=(os.getpid(),))
    assert staged.kinds_heard_by(old)[-1] is Kind.CLOSE


def test_a_worker_cannot_register_for_the_connection_of_another(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    with pytest.raises(ValueError, match="another connection"):
        staged.say(b"w87654321", Kind.READY, connection.record(), 9, 1, [], {}, [])


def test_a_worker_hears_what_it_missed_while_it_had_no_socket(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(joins=["memory", "a"])
    staged.dial(b"second", joins=["memory", "a"])
    staged.say(CONTROL, Kind.DETACH, b"", HOLDER, None, False)
    order = staged.spawner.next_order()
    staged.forget_words()
    staged.register(order, staged.worker_process())
    words = [(word.kind, word.fields[0]) for word in staged.heard_by(order.spec["identity"])]
    assert words == [(Kind.ATTACH, b"second"), (Kind.DETACH, HOLDER)]
