"""Dials, from OPEN to the answer: new connections, shared ones, and Dials that are too late or not wanted."""

from __future__ import annotations

import pytest

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.opening import OPEN_GRACE_S
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.state import State

SHARED = {"joins": ["memory", "a"]}
"""A part of an address by which several Dials have one connection."""


def test_a_dial_orders_a_worker_and_is_answered_when_the_link_is_there(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.dial(timeout_ms=1500)
    order = staged.spawner.next_order()
    assert order.spec["until"] == staged.now + 1.5
    assert order.spec["holders"] == [[HOLDER, CONTROL]]
    assert staged.numbers == [1]
    staged.register(order, staged.worker_process())
    assert staged.heard_by(HOLDER) == []
    staged.say(order.spec["identity"], Kind.OPENED, {"state": "open", "peer": "tcp://x"})
    [word] = staged.heard_by(HOLDER)
    assert (word.kind, word.request_id) == (Kind.OPENED, 1)
    assert word.fields == [
        bytes.fromhex(order.key),
        {"state": "open", "peer": "tcp://x", "serving": 1},
    ]


def test_a_program_that_the_broker_does_not_know_is_refused(staged: StagedBroker) -> None:
    staged.dial()
    [word] = staged.heard_by(HOLDER)
    assert word.kind is Kind.FAILED
    assert "replaced" in word.fields[0]["text"]
    assert not staged.spawner.has_orders()


def test_a_dial_without_an_address_is_malformed(staged: StagedBroker) -> None:
    staged.hello()
    with pytest.raises(ValueError, match="no address"):
        staged.say(HOLDER, Kind.OPEN, CONTROL, 1000, True, 0.0, body=(values.pack("tcp://x"),))


def test_a_worker_that_has_no_link_fails_the_dial_and_ends_the_connection(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.dial()
    order = staged.spawner.next_order()
    staged.register(order, staged.worker_process())
    staged.say(
        order.spec["identity"], Kind.FAILED, {"name": "DialError", "text": "refused", "code": None}
    )
    [word] = staged.heard_by(HOLDER)
    assert (word.kind, word.fields[0]["text"]) == (Kind.FAILED, "refused")
    [connection] = staged.directory
    assert (connection.state, connection.reason) == (State.FAILED, "refused")
    assert Kind.CLOSE in staged.kinds_heard_by(order.spec["identity"])


def test_a_dial_whose_worker_does_not_answer_fails_when_its_time_is_over(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.dial(timeout_ms=3000)
    staged.pass_time(2.9 + OPEN_GRACE_S)
    assert staged.heard_by(HOLDER) == []
    staged.pass_time(0.5)
    [word] = staged.heard_by(HOLDER)
    assert "could not be opened in the time allowed" in word.fields[0]["text"]
    [connection] = staged.directory
    assert connection.closing is not None


def test_dials_of_one_name_share_a_connection_and_are_answered_together(
    staged: StagedBroker,
) -> None:
    staged.hello()
    staged.dial(**SHARED)
    staged.dial(b"second", **SHARED)
    order = staged.spawner.next_order()
    assert not staged.spawner.has_orders()
    staged.register(order, staged.worker_process())
    staged.say(order.spec["identity"], Kind.OPENED, {"state": "open"})
    assert staged.kinds_heard_by(HOLDER) == [Kind.OPENED]
    assert staged.kinds_heard_by(b"second") == [Kind.OPENED]


def test_a_dial_that_joins_an_open_connection_is_answered_at_once(staged: StagedBroker) -> None:
    connection = staged.open_connection(**SHARED)
    staged.dial(b"second", joins=["memory", "b"])
    [word] = staged.heard_by(b"second")
    assert word.fields == [connection.id, {**connection.figures(), "number": 1, "serving": 1}]
    assert set(connection.holders) == {HOLDER, b"second"}
    [warning] = staged.heard_by(CONTROL)  # it was dialled with other parameters
    assert "open already" in warning.fields[1]
    assert connection.worker is not None
    assert staged.kinds_heard_by(connection.worker) == [Kind.ATTACH]


def test_a_dial_that_joins_too_late_fails_alone(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(**SHARED)
    staged.dial(b"second", timeout_ms=1000, **SHARED)
    staged.pass_time(2.0)
    assert staged.kinds_heard_by(b"second") == [Kind.FAILED]
    assert staged.heard_by(HOLDER) == []
    [connection] = staged.directory
    assert set(connection.holders) == {HOLDER}


def test_a_dial_brings_the_word_that_the_former_holders_have_left(staged: StagedBroker) -> None:
    former = staged.open_connection(**SHARED)
    staged.dial(b"second", left=[HOLDER], **SHARED)
    assert former.closing is not None
    assert staged.spawner.next_order().key != former.id.hex()


def test_objects_of_a_lost_connection_share_its_heir(staged: StagedBroker) -> None:
    staged.hello()
    lost = b"lost one"
    staged.dial(former=[lost, b"name 1", False])
    staged.start_worker()
    [heir] = staged.directory
    assert heir.former == lost
    staged.dial(b"second", former=[lost, b"name 2", False])
    assert not staged.spawner.has_orders()
    assert heir.former_names == {HOLDER: b"name 1", b"second": b"name 2"}


def test_a_dial_waits_for_the_last_figures_of_an_heir_that_ends(staged: StagedBroker) -> None:
    staged.hello()
    lost = b"lost one"
    staged.dial(former=[lost, b"name", False])
    staged.start_worker(messages_in=3)
    [heir] = staged.directory
    staged.say(HOLDER, Kind.DETACH, heir.id, HOLDER, 3, False)
    staged.dial(b"second", former=[lost, b"name", False])
    assert not staged.spawner.has_orders()
    staged.lose_worker(heir, 0)
    staged.pass_time(0.3)
    assert staged.spawner.next_order().spec["stats"]["messages_in"] == 3


def test_nonsense_about_a_former_connection_is_no_former_connection(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(former=[b"short", "name", 1])
    [connection] = staged.directory
    assert connection.former == b""
