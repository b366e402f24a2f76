"""Programs: how they come, beat, leave and are lost, and what becomes of their holders."""

from __future__ import annotations

import os

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.clients import Clients
from trunkline.wire.envelope import Kind

SECOND = b"second control"


def clients(staged: StagedBroker) -> Clients:
    return staged.core.clients


def test_a_program_is_welcome_each_time_and_known_once(staged: StagedBroker) -> None:
    staged.hello()
    staged.hello()
    words = staged.heard_by(CONTROL)
    assert [(word.kind, word.fields) for word in words] == [(Kind.WELCOME, [os.getpid()])] * 2
    assert [client.pid for client in staged.directory.clients.values()] == [os.getpid()]


def test_a_beat_is_noted_and_answered(staged: StagedBroker) -> None:
    staged.hello()
    staged.now += 5
    staged.say(CONTROL, Kind.BEAT)
    assert staged.directory.clients[CONTROL].heard == staged.now
    assert staged.kinds_heard_by(CONTROL) == [Kind.WELCOME, Kind.BEAT]


def test_a_program_that_is_not_known_is_told_to_introduce_itself(staged: StagedBroker) -> None:
    staged.say(CONTROL, Kind.BEAT)
    assert staged.kinds_heard_by(CONTROL) == [Kind.REREGISTER]


def test_a_program_that_leaves_takes_its_holders_along(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(CONTROL, Kind.BYE)
    assert (staged.directory.clients, connection.holders, connection.users) == ({}, {}, set())
    assert connection.closing is not None


def test_a_program_that_leaves_has_left_by_all_its_sockets(staged: StagedBroker) -> None:
    staged.hello()
    staged.hello(SECOND)
    staged.say(CONTROL, Kind.BYE)
    assert not staged.directory.clients


def test_a_program_that_has_left_is_not_awaited_by_a_worker_that_comes_later(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.say(CONTROL, Kind.BYE)
    staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    assert connection.expected == []


def test_the_end_of_a_programs_process_is_noticed(staged: StagedBroker) -> None:
    pid = staged.worker_process()
    staged.hello(CONTROL, pid)
    staged.dial()
    [connection] = staged.directory
    staged.directory.clients[CONTROL].watch.kill()
    staged.watcher.call_ready(20)
    assert (staged.directory.clients, connection.holders) == ({}, {})


def test_a_program_without_a_socket_that_holds_nothing_is_dropped(staged: StagedBroker) -> None:
    staged.hello()
    staged.gone.add(CONTROL)
    staged.pass_time(5.0)
    assert not staged.directory.clients


def test_a_program_without_a_socket_that_holds_a_connection_is_waited_for(
    staged: StagedBroker,
) -> None:
    connection = staged.open_connection()
    staged.gone.add(CONTROL)
    for _ in range(50):
        staged.pass_time(1.0)
        assert connection.worker is not None
        staged.say(connection.worker, Kind.STATE, {})
    assert CONTROL in staged.directory.clients
    staged.pass_time(15.0)
    assert not staged.directory.clients
    assert HOLDER not in connection.holders


def test_a_program_that_is_silent_but_has_its_socket_is_there(staged: StagedBroker) -> None:
    staged.hello()
    staged.pass_time(200.0)
    assert CONTROL in staged.directory.clients


def test_the_objects_of_a_returning_program_get_their_time_from_its_return_on(
    staged: StagedBroker,
) -> None:
    staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    staged.now += 3
    staged.hello()
    assert connection.users == {CONTROL}
    assert connection.adopted_at == connection.lonely_since == staged.now


def test_after_a_stop_of_the_broker_nobody_counts_as_silent(staged: StagedBroker) -> None:
    staged.hello()
    client = staged.directory.clients[CONTROL]
    client.cut_since = 1.0
    clients(staged).forgive_silence(2000.0)
    assert (client.heard, client.cut_since) == (2000.0, None)
