"""`trunkline ps` and `trunkline kill`, at the broker."""

from __future__ import annotations

import os

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.inquiries import Inquiries
from trunkline.wire.envelope import Kind

ASKING = b"asking"


def test_the_list_has_connections_with_their_users_and_clients(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(ASKING, Kind.LIST)
    [word] = staged.heard_by(ASKING)
    assert (word.kind, word.request_id) == (Kind.REPLY, 1)
    found = word.value
    assert (found["pid"], found["address"]) == (os.getpid(), staged.address)
    assert found["clients"] == [os.getpid()]
    [row] = found["connections"]
    assert (row["id"], row["state"], row["pid"]) == ("1", "open", connection.pid)
    assert row["users"] == [os.getpid()]


def test_a_kill_ends_a_connection_and_tells_its_holders_why(staged: StagedBroker) -> None:
    connection = staged.open_connection()
    staged.say(ASKING, Kind.KILL, "1")
    [answer] = staged.heard_by(ASKING)
    assert answer.value is True
    [gone] = staged.heard_by(HOLDER)
    assert gone.fields == [False, "it was ended by `trunkline kill`", 1]
    [line] = staged.heard_by(CONTROL)
    assert line.fields[0] == "error"
    assert connection.worker is not None
    assert staged.kinds_heard_by(connection.worker) == [Kind.CLOSE]


def test_a_kill_fails_a_dial_that_waits(staged: StagedBroker) -> None:
    staged.hello()
    staged.dial()
    staged.say(ASKING, Kind.KILL, "1")
    assert staged.kinds_heard_by(HOLDER) == [Kind.FAILED, Kind.GONE]


def test_a_kill_of_a_number_that_is_not_there_says_so(staged: StagedBroker) -> None:
    staged.say(ASKING, Kind.KILL, "9")
    [answer] = staged.heard_by(ASKING)
    assert answer.value is False


def test_its_kinds_are_those_of_the_commands(staged: StagedBroker) -> None:
    inquiries: Inquiries = staged.core.inquiries
    assert set(inquiries.handlers()) == {Kind.LIST, Kind.KILL}
