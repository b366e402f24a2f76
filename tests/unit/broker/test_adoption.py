"""What may yet come from the broker before: workers, programs, and the messages that wait for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import CONTROL, StagedBroker
from trunkline.broker.adoption import ADOPT_S, workers_without_broker
from trunkline.broker.figures import RETURN_S
from trunkline.wire import endpoint
from trunkline.wire.envelope import Kind
from trunkline.wire.identity import new_identity
from trunkline.wire.ledger import COUNTERS, Ledger

KEY = b"12345678"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/broker.sock"


@pytest.fixture
def door(address: str) -> Iterator[Path]:
    """The door of a worker that listens there."""
    path = endpoint.door(address, KEY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def test_workers_are_found_by_their_doors_and_void_doors_are_removed(
    address: str, door: Path
) -> None:
    void = endpoint.door(address, b"87654321")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(void))
    assert workers_without_broker(address) == {KEY}
    assert door.exists()
    assert not void.exists()


@pytest.fixture
def successor(door: Path, tmp_path: Path) -> Iterator[StagedBroker]:
    """A broker in a folder where a worker waits for one."""
    assert door.exists()
    broker = StagedBroker(tmp_path)
    yield broker
    broker.close()


def test_a_question_about_a_connection_waits_until_its_worker_registers(
    successor: StagedBroker,
) -> None:
    successor.hello()
    successor.attach(b"object", KEY, former=b"holder")
    successor.say(b"asking", Kind.HANDLE, KEY)
    assert successor.heard_by(b"object") == successor.heard_by(b"asking") == []
    assert successor.core.adoption.awaits_workers()
    successor.adopt(KEY, users=(os.getpid(),))
    assert successor.kinds_heard_by(b"object") == [Kind.ATTACHED]
    assert successor.kinds_heard_by(b"asking") == [Kind.REPLY]
    assert not successor.core.adoption.awaits_workers()


def test_a_question_is_answered_when_no_worker_is_awaited_any_more(successor: StagedBroker) -> None:
    successor.hello()
    successor.attach(b"object", KEY, former=b"holder")
    successor.pass_time(ADOPT_S - 0.5)
    assert successor.heard_by(b"object") == []
    successor.pass_time(1.0)
    assert successor.kinds_heard_by(b"object") == [Kind.FAILED]


def test_a_dial_in_place_of_a_lost_connection_waits_for_all_workers(
    successor: StagedBroker,
) -> None:
    successor.hello()
    successor.dial(former=[b"lost one", b"name", False])
    assert not successor.spawner.has_orders()
    successor.adopt(KEY, users=(os.getpid(),))
    assert successor.spawner.has_orders()


def test_a_broker_without_a_predecessor_awaits_nothing(staged: StagedBroker) -> None:
    adoption = staged.core.adoption
    assert not adoption.awaits_workers()
    assert not adoption.awaits_programs()
    assert not adoption.put_off_while_awaiting(staged.message(CONTROL, Kind.LIST))


def test_a_program_of_the_broker_before_is_awaited_until_it_comes(
    address: str, tmp_path: Path
) -> None:
    ledger = Ledger(endpoint.figures(address, KEY), 1)
    ledger.publish()
    ledger.write(tuple(range(len(COUNTERS))), {new_identity(): 1})
    ledger.close()
    broker = StagedBroker(tmp_path)
    adoption = broker.core.adoption
    assert adoption.awaits_programs()
    broker.now += RETURN_S
    assert not adoption.awaits_programs()
    broker.now -= RETURN_S
    adoption.note_program(os.getpid())
    assert not adoption.awaits_programs()
    broker.close()


def test_a_program_that_has_left_may_come_back(staged: StagedBroker) -> None:
    adoption = staged.core.adoption
    adoption.note_leaving(7)
    assert adoption.has_left(7)
    adoption.note_program(7)
    assert not adoption.has_left(7)
