"""When the broker itself ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.adoption import ADOPT_S
from trunkline.broker.ending import FIRST_CLIENT_S
from trunkline.wire.envelope import Kind


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., StagedBroker]]:
    """Makes a broker with the given options."""
    with ExitStack() as stack:

        def make(**options: object) -> StagedBroker:
            broker = StagedBroker(tmp_path, **options)  # type: ignore[arg-type]
            stack.callback(broker.close)
            return broker

        yield make


def test_it_ends_with_its_last_client(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(CONTROL, Kind.BYE)
    staged.pass_time(0.3)
    assert staged.core.ending.is_stopping
    assert not staged.core.ending.ended_early
    assert connection.closing is not None


def test_a_persistent_one_stays(stage: Callable[..., StagedBroker]) -> None:
    staged = stage(persistent=True)
    staged.hello()
    staged.say(CONTROL, Kind.BYE)
    staged.pass_time(100.0)
    assert not staged.core.ending.is_stopping


def test_a_client_that_comes_while_it_ends_for_want_of_clients_keeps_it(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.say(CONTROL, Kind.BYE)
    staged.pass_time(0.3)
    assert staged.core.ending.is_stopping
    staged.hello()
    assert not staged.core.ending.is_stopping


def test_a_client_that_comes_after_an_order_to_stop_does_not_keep_it(staged: StagedBroker) -> None:
    staged.core.ending.stop()
    staged.hello()
    assert staged.core.ending.is_stopping


def test_an_order_to_stop_ends_all_connections_and_says_so(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.core.ending.stop()
    staged.core.ending.stop()
    [line] = staged.heard_by(CONTROL)
    assert "the broker was stopped; dial again" in line.fields[1]
    staged.lose_worker(connection, 0)
    assert staged.kinds_heard_by(HOLDER) == [Kind.GONE]
    assert not list(staged.directory)


def test_a_young_broker_that_is_stopped_leaves_its_folder_to_its_clients(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.now += ADOPT_S - 1
    staged.core.ending.stop()
    assert staged.core.ending.ended_early


def test_an_old_broker_that_is_stopped_leaves_nothing(staged: StagedBroker) -> None:
    staged.hello()
    staged.now += ADOPT_S
    staged.core.ending.stop()
    assert not staged.core.ending.ended_early


def test_the_first_client_is_waited_for_while_the_starter_lives(
    stage: Callable[..., StagedBroker],
) -> None:
    staged = stage(starter=os.getpid())
    staged.pass_time(FIRST_CLIENT_S - 1)
    assert not staged.core.ending.is_stopping
    staged.pass_time(2.0)
    assert staged.core.ending.is_stopping


def test_it_ends_at_once_when_its_starter_is_dead(stage: Callable[..., StagedBroker]) -> None:
    staged = stage(starter=2**22 + 1)  # more than a process id can be
    staged.pass_time(0.3)
    assert staged.core.ending.is_stopping


def test_it_stays_for_a_connection_with_a_handle_that_lingers(staged: StagedBroker) -> None:
    connection = staged.open_connection(linger_s=30.0)
    second = staged.worker_process()
    staged.hello(b"second", second)
    staged.attach(HOLDER, connection.id, former=HOLDER)
    staged.directory.name(connection)
    connection.users.add(b"second")
    staged.say(CONTROL, Kind.BYE)
    staged.pass_time(1.0)
    assert (connection.closing, connection.lonely_since is None) == (None, False)
    assert not staged.core.ending.is_stopping
