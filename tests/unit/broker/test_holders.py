"""Holders that come and go, and how long a connection waits for one."""

from __future__ import annotations

import os

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.adoption import ADOPT_S
from trunkline.broker.figures import RETURN_S
from trunkline.broker.holders import Holders
from trunkline.wire.envelope import Kind

DEAD = 2**22 + 1
"""More than a process id can be."""


def holders(staged: StagedBroker) -> Holders:
    return staged.core.holders


def test_the_worker_is_told_of_each_that_comes_or_goes(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    worker = connection.worker
    assert worker is not None
    holders(staged).tell_of_holder(connection, b"new", CONTROL, b"old", 2, 3, [[4, 5]])
    holders(staged).drop_holder(connection, HOLDER, 7, closed=True)
    came, went = staged.heard_by(worker)
    assert (came.kind, came.fields) == (Kind.ATTACH, [b"new", CONTROL, b"old", 2, 3, [[4, 5]]])
    assert (went.kind, went.fields) == (Kind.DETACH, [HOLDER, 7, True])


def test_a_dial_goes_with_its_holder(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(joins=["memory", "a"])
    staged.dial(b"second", joins=["memory", "a"])
    [connection] = staged.directory
    holders(staged).drop_holder(connection, HOLDER)
    holders(staged).drop_holder(connection, b"second")
    assert connection.all_opening() == []


def test_only_the_holders_of_the_program_are_dropped(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    connection.holders[b"other"] = b"other control"
    holders(staged).drop_holders_of(connection, CONTROL)
    assert connection.holders == {b"other": b"other control"}


def test_a_connection_without_holders_ends(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    holders(staged).end_if_unwanted(connection)
    assert connection.closing is None
    connection.holders.clear()
    holders(staged).end_if_unwanted(connection)
    assert connection.reason == "its last holder has closed it"


def test_a_connection_with_a_handle_lingers(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.directory.name(connection)
    connection.linger_s = 30.0
    connection.holders.clear()
    holders(staged).end_if_unwanted(connection)
    assert (connection.closing, connection.lonely_since) == (None, staged.now)
    assert not holders(staged).is_patience_over(connection, staged.now + 29)
    assert holders(staged).is_patience_over(connection, staged.now + 30)


def test_a_connection_with_a_holder_is_never_impatient(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    assert not holders(staged).is_patience_over(connection, staged.now + 1e6)


def test_a_program_of_the_broker_before_that_lives_is_waited_for_longer(
    staged: StagedBroker,
) -> None:
    staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    assert holders(staged).patience_s(connection) == RETURN_S
    staged.hello()
    assert holders(staged).patience_s(connection) == ADOPT_S


def test_with_a_handle_the_longer_of_both_times_counts(staged: StagedBroker) -> None:
    staged.adopt(users=(os.getpid(),), handle=5)
    [connection] = staged.directory
    staged.hello()
    connection.linger_s = RETURN_S + 1
    assert holders(staged).patience_s(connection) == RETURN_S + 1
    connection.linger_s = 0.0
    assert holders(staged).patience_s(connection) == ADOPT_S


def test_holders_whose_programs_are_dead_are_given_up_at_once(staged: StagedBroker) -> None:
    staged.adopt(users=(DEAD,))
    [connection] = staged.directory
    holders(staged).drop_lost_ghosts(connection, staged.now)
    assert not connection.ghosts


def test_holders_whose_program_is_back_have_some_seconds(staged: StagedBroker) -> None:
    worker = staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    staged.hello()
    holders(staged).drop_lost_ghosts(connection, staged.now + ADOPT_S)
    assert connection.ghosts == {HOLDER}
    staged.forget_words()
    holders(staged).drop_lost_ghosts(connection, staged.now + ADOPT_S + 1)
    assert not connection.ghosts
    assert [word.fields for word in staged.heard_by(worker)] == [[HOLDER, None, False]]


def test_holders_whose_program_has_yet_to_come_have_a_minute(staged: StagedBroker) -> None:
    staged.adopt(users=(os.getpid(),))
    [connection] = staged.directory
    holders(staged).drop_lost_ghosts(connection, staged.now + RETURN_S)
    assert connection.ghosts == {HOLDER}
    holders(staged).drop_lost_ghosts(connection, staged.now + RETURN_S + 1)
    assert not connection.ghosts
