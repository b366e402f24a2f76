"""The broker's directory: the names that a connection goes by."""

from __future__ import annotations

from trunkline.broker.directory import Connection, Directory


def made(directory: Directory, **more: object) -> Connection:
    spec = {"address": "secret", "display": "tcp://x"}
    connection = Connection(directory.new_id(), directory.next_number(), spec, True, 300.0, **more)  # type: ignore[arg-type]
    directory.add(connection)
    return connection


def test_a_connection_is_found_by_every_name_and_by_none_after_its_end() -> None:
    directory = Directory()
    connection = made(directory)
    directory.set_worker(connection, b"w1")
    handle = directory.name(connection)
    assert directory.name(connection) == handle
    assert handle.bit_length() == 63
    names = [
        directory.connections.get(connection.id),
        directory.by_worker.get(b"w1"),
        directory.by_handle.get(handle),
        directory.by_number("1"),
    ]
    assert names == [connection] * 4
    directory.set_worker(connection, b"w2")
    assert directory.by_worker == {b"w2": connection}
    directory.remove(connection)
    assert (directory.connections, directory.by_worker, directory.by_handle) == ({}, {}, {})


def test_the_heir_of_a_lost_connection_is_one_that_goes_on() -> None:
    directory = Directory()
    made(directory)
    heir = made(directory)
    heir.former = b"lost one"
    assert directory.heir_of(b"lost one") is heir
    assert directory.heir_of(b"") is None
    heir.life.end(1.0)
    assert directory.heir_of(b"lost one") is None


def test_numbers_go_on_after_those_of_an_adopted_connection() -> None:
    directory = Directory()
    directory.add(Connection(b"12345678", 7, {}, False, 1.0, 99))
    assert directory.by_handle[99].number == 7
    assert directory.next_number() == 8


def test_a_row_of_the_list_shows_no_address() -> None:
    directory = Directory()
    assert "secret" not in repr(made(directory).shown())


def test_the_record_is_all_that_a_new_broker_needs() -> None:
    directory = Directory()
    connection = made(directory)
    directory.name(connection)
    again = Connection(**connection.record())
    assert again.record() == connection.record()


def test_a_connection_has_a_future_while_a_worker_is_there_or_will_be() -> None:
    directory = Directory()
    connection = made(directory)
    assert not connection.has_future()
    connection.life.order_worker()
    connection.life.lose_worker(0.0, "ended", is_dialled=False)
    assert connection.has_future()
    connection.life.order_worker()
    assert not connection.has_future()
    directory.set_worker(connection, b"w1")
    assert connection.has_future()
    connection.life.end(1.0)
    assert not connection.has_future()
