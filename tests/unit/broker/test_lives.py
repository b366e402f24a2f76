"""The actions of a connection's life, carried out: what worker, holders and Dials hear of them."""

from __future__ import annotations

from pathlib import Path

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.lifecycle import CLOSE_S, Phase
from trunkline.broker.lives import Lives
from trunkline.broker.supervisor import CRASHES
from trunkline.wire import endpoint
from trunkline.wire.envelope import Kind
from trunkline.wire.state import State


def lives(staged: StagedBroker) -> Lives:
    return staged.core.lives


def test_an_order_has_all_that_the_worker_needs(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial(timeout_ms=2000)
    [connection] = staged.directory
    order = staged.spawner.next_order()
    assert order.key == connection.id.hex()
    spec = order.spec
    assert spec["identity"].startswith(b"w" + connection.id)
    assert staged.directory.by_worker[spec["identity"]] is connection
    assert (spec["broker"], spec["incarnation"], spec["succeeds"]) == (staged.address, 1, False)
    assert (spec["stats"], spec["had"], spec["bequest"]) == ({}, [], {})
    assert spec["record"] == connection.record()


def test_the_next_worker_gets_the_figures_and_the_bequest(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    assert connection.worker is not None
    news = {
        "state": "open",
        "incarnation": 1,
        "messages_in": 5,
        "queued": 2,
        "bequest": {"seen": 9},
    }
    staged.say(connection.worker, Kind.STATE, news)
    lives(staged).lose_worker(connection, -9)
    lives(staged).look_at_time(connection, staged.now)
    spec = staged.spawner.next_order().spec
    assert spec["bequest"] == {"seen": 9}
    figures = spec["stats"]
    assert (figures["state"], figures["dropped"], figures["read"], figures["queued"]) == (
        "down",
        2,
        3,
        0,
    )
    assert figures["last_error"] == "its worker was killed by SIGKILL"


def test_a_dial_whose_worker_dies_fails_with_the_reason(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial()
    staged.register(staged.spawner.next_order(), staged.worker_process())
    [connection] = staged.directory
    staged.lose_worker(connection)
    failed, gone = staged.heard_by(HOLDER)
    assert failed.fields[0]["text"] == (
        "the connection to tcp://x could not be opened: its worker was killed by SIGKILL"
    )
    assert gone.fields[0] is False
    assert not list(staged.directory)


def test_too_many_crashes_end_the_connection_and_say_so(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    for _ in range(CRASHES):
        staged.lose_worker(connection)
        staged.pass_time(3.0)
        staged.register(staged.spawner.next_order(), staged.worker_process(), state="open")
    staged.forget_words()
    staged.lose_worker(connection)
    assert (connection.life.phase, connection.state) == (Phase.FAILED, State.FAILED)
    [word] = staged.heard_by(HOLDER)
    assert word.fields[0] is False
    assert "5 crashes within 30 s were too many" in word.fields[1]
    assert "dial again" in staged.heard_by(CONTROL)[0].fields[1]


def test_a_worker_that_does_not_close_in_time_is_killed(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    assert connection.worker is not None
    lives(staged).close(connection, "because")
    lives(staged).close(connection, "for another reason")
    assert connection.reason == "because"
    assert staged.kinds_heard_by(connection.worker) == [Kind.CLOSE]
    assert not lives(staged).look_at_time(connection, staged.now)
    assert lives(staged).look_at_time(connection, staged.now + CLOSE_S)
    assert staged.has_ended(connection.pid)


def test_a_forgotten_connection_leaves_no_file(staged: StagedBroker, tmp_path: Path) -> None:
    connection = staged.open_connection()
    endpoint.door(staged.address, connection.id).touch()
    endpoint.figures(staged.address, connection.id).touch()
    lives(staged).close(connection, "because")
    staged.lose_worker(connection, 0)
    assert not list(staged.directory)
    assert not list(tmp_path.iterdir())


def test_an_error_for_dials_leaves_the_connection(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial()
    [connection] = staged.directory
    lives(staged).fail_dials(connection, {"name": "DialError", "text": "no", "code": None})
    assert staged.kinds_heard_by(HOLDER) == [Kind.FAILED]
    assert (connection.all_opening(), connection.state, connection.closing) == (
        [],
        State.FAILED,
        None,
    )
