"""Objects that attach by a handle or after a lost broker, objects that detach, and handles."""

from __future__ import annotations

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.attaching import Attachments
from trunkline.broker.directory import Connection
from trunkline.wire.envelope import Kind

SECOND = b"second"


def handle_of(staged: StagedBroker, connection: Connection) -> int:
    staged.say(b"asking", Kind.HANDLE, connection.id)
    [word] = staged.heard_by(b"asking")
    handle = word.value
    assert isinstance(handle, int)
    return handle


def test_a_handle_is_made_once_and_the_worker_keeps_it(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    assert handle_of(staged, connection) == handle_of(staged, connection)
    assert connection.worker is not None
    [record, _] = staged.heard_by(connection.worker)
    assert record.fields[0]["handle"] == connection.handle


def test_an_object_attaches_by_a_handle_and_the_worker_is_told(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    handle = handle_of(staged, connection)
    staged.forget_words()
    staged.attach(SECOND, handle=handle)
    [word] = staged.heard_by(SECOND)
    assert (word.kind, word.fields[0]) == (Kind.ATTACHED, connection.id)
    assert (word.fields[1]["number"], word.fields[1]["serving"]) == (1, 1)
    assert connection.worker is not None
    [told] = staged.heard_by(connection.worker)
    assert told.fields == [SECOND, CONTROL, b"", 0, 0, []]


def test_an_object_comes_back_by_another_name_with_its_counts(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    connection.had = {HOLDER: 5}
    staged.attach(SECOND, connection.id, former=HOLDER, epoch=2, consumed=9, serving=1)
    assert (set(connection.holders), connection.had) == ({SECOND}, {SECOND: 5})
    assert connection.worker is not None
    [told] = staged.heard_by(connection.worker)
    assert told.fields == [SECOND, CONTROL, HOLDER, 2, 9, []]


def test_the_counts_of_a_worker_that_was_replaced_are_not_passed_on(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.lose_worker(connection)
    staged.pass_time(0.3)
    staged.start_worker()
    staged.forget_words()
    staged.attach(SECOND, connection.id, former=HOLDER, epoch=2, consumed=9, serving=1)
    assert connection.worker is not None
    [told] = staged.heard_by(connection.worker)
    assert told.fields == [SECOND, CONTROL, HOLDER, 0, 0, []]


def test_an_unknown_handle_fails_with_the_address_of_the_broker(staged: StagedBroker) -> None:
    staged.hello()
    staged.attach(SECOND, handle=1)
    [word] = staged.heard_by(SECOND)
    assert word.kind is Kind.FAILED
    assert staged.address in word.fields[0]["text"]


def test_a_handle_of_a_connection_that_has_ended_fails_with_the_reason(
    staged: StagedBroker,
) -> None:
    connection = staged.open_connection(linger_s=0.0)
    handle = handle_of(staged, connection)
    staged.say(b"asking", Kind.KILL, "1")
    staged.lose_worker(connection, 0)
    staged.attach(SECOND, handle=handle)
    [word] = staged.heard_by(SECOND)
    assert "ended by `trunkline kill`" in word.fields[0]["text"]
    staged.say(b"asking", Kind.HANDLE, connection.id)
    assert staged.kinds_heard_by(b"asking") == [Kind.REPLY, Kind.ERROR]


def test_a_connection_ends_with_its_last_holder(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(HOLDER, Kind.DETACH, connection.id, HOLDER, 3, True)
    [word] = staged.heard_by(HOLDER)
    assert word.fields == [False, "closed", 0]
    assert connection.reason == "its last holder has closed it"
    assert connection.worker is not None
    assert staged.kinds_heard_by(connection.worker) == [Kind.DETACH, Kind.CLOSE]


def test_a_dial_that_was_given_up_before_its_open_arrives_is_not_carried_out(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.say(CONTROL, Kind.DETACH, b"", HOLDER, None, False)
    staged.dial()
    assert not staged.spawner.has_orders()
    assert staged.heard_by(HOLDER) == []


def test_a_dial_that_is_given_up_while_it_waits_ends_its_connection(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial()
    [connection] = staged.directory
    staged.say(CONTROL, Kind.DETACH, b"", HOLDER, None, False)
    assert connection.opening is None
    assert connection.closing is not None


def test_a_holder_that_closed_while_there_was_no_broker_is_no_ghost_any_more(
    staged: StagedBroker,
) -> None:
    staged.hello()
    worker = staged.adopt(users=(1,))
    [connection] = staged.directory
    staged.say(CONTROL, Kind.DETACH, connection.id, HOLDER, 4, True)
    assert not connection.ghosts
    assert Kind.DETACH in staged.kinds_heard_by(worker)


def test_its_kinds_are_those_about_holders(staged: StagedBroker) -> None:
    attachments: Attachments = staged.core.attachments
    assert set(attachments.handlers()) == {Kind.ATTACH, Kind.DETACH, Kind.HANDLE}
