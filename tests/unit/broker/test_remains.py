"""The files of a worker that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.broker.directory import Connection
from trunkline.broker.remains import remove_files, take_last_figures
from trunkline.wire import endpoint
from trunkline.wire.ledger import COUNTERS, Ledger


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/broker.sock"


def made(stats: dict[str, object]) -> Connection:
    connection = Connection(b"12345678", 1, {}, True, 0.0, former_incarnation=1)
    connection.stats = {"incarnation": 1, **stats}
    connection.had = {b"a": 1}
    return connection


def write_ledger(address: str, incarnation: int, messages_in: int) -> Path:
    path = endpoint.figures(address, b"12345678")
    ledger = Ledger(path, incarnation)
    ledger.publish()
    ledger.write(tuple(messages_in if name == "messages_in" else 0 for name in COUNTERS), {b"a": 3})
    ledger.close()
    return path


def test_the_ledger_has_the_last_figures_and_stays(address: str) -> None:
    path = write_ledger(address, 1, 8)
    connection = made({"messages_in": 5, "queued": 1})
    connection.changes.attached(1.0, b"b", b"a")
    take_last_figures(address, connection)
    assert (connection.stats["messages_in"], connection.had) == (8, {b"b": 3})
    assert path.exists()


def test_the_ledger_of_another_incarnation_does_not_count(address: str) -> None:
    write_ledger(address, 2, 8)
    connection = made({"messages_in": 5, "queued": 1})
    take_last_figures(address, connection)
    assert (connection.stats["messages_in"], connection.stats["dropped"], connection.had) == (
        5,
        1,
        {},
    )


def test_a_worker_that_never_came_leaves_the_figures_of_the_one_before(address: str) -> None:
    connection = made({"messages_in": 5, "incarnation": 0})
    take_last_figures(address, connection)
    assert connection.had == {b"a": 1}


def test_what_is_queued_comes_again_where_a_message_broker_keeps_it(address: str) -> None:
    connection = made({"messages_in": 5, "queued": 2, "comes_again": True})
    take_last_figures(address, connection)
    assert (connection.stats["returned"], connection.stats["read"]) == (2, 3)


def test_the_door_is_void_and_at_the_end_all_files_go(address: str, tmp_path: Path) -> None:
    connection = made({})
    door = endpoint.door(address, connection.id)
    door.touch()
    path = write_ledger(address, 1, 1)
    take_last_figures(address, connection)
    assert (door.exists(), path.exists()) == (False, True)
    remove_files(address, connection)
    remove_files(address, connection)
    assert not list(tmp_path.iterdir())
