"""Dialling a database whose link is not there: how often, how long, and what is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.waiting import Background, until
from trunkline.actors.database import redial as module
from trunkline.actors.database.redial import Redial
from trunkline.actors.driver import FatalError
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, OperationTimeout


class Server:
    """Fails the first attempts."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.attempts = 0

    def attempt(self, deadline: Deadline) -> None:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)


def make(lines: list[str] | None = None, **options: Any) -> Redial:
    address = parse_address("postgres://user@db.test/data", {"interval": 1, **options})
    return Redial(address, (OSError, DialError), (lines if lines is not None else []).append)


def wanted() -> bool:
    return False


def test_attempts_are_made_until_one_succeeds() -> None:
    server, lines = Server(DialError("refused"), OSError("no route")), []
    redial = make(lines, reconnect=True, maxInterval=1)
    redial.dial(server.attempt, Deadline(10), wanted)
    assert server.attempts == 3
    assert redial.reason == ""
    told, regained = lines
    assert told.endswith("could not be reached: refused; trying again while statements wait")
    assert "is reached again, after 0." in regained


def test_without_reconnect_one_attempt_is_made() -> None:
    server, lines = Server(DialError("refused")), []
    redial = make(lines, reconnect=False)
    with pytest.raises(DialError, match="refused"):
        redial.dial(server.attempt, Deadline(10), wanted)
    assert server.attempts == 1
    assert redial.reason == "refused"
    assert lines[0].endswith("the next statement tries again")


@pytest.mark.parametrize("error", [FatalError("login refused"), ValueError("a bug")])
def test_an_error_that_stays_ends_the_attempts(error: Exception) -> None:
    server = Server(error)
    with pytest.raises(type(error)):
        make(reconnect=True).dial(server.attempt, Deadline(10), wanted)
    assert server.attempts == 1


def test_the_last_attempt_leaves_time_to_tell_its_reason() -> None:
    server = Server(*[OSError(f"attempt {number}") for number in range(10)])
    redial = make(reconnect=True, interval=60_000)
    with pytest.raises(OSError, match="attempt 1"):
        redial.dial(server.attempt, Deadline(module.LAST_S + 0.5), wanted)
    assert server.attempts == 2


def test_an_attempt_has_the_time_of_the_option_or_of_the_statement() -> None:
    left: list[float] = []

    def attempt(deadline: Deadline) -> None:
        left.append(deadline.left())

    redial = make(timeout=30)
    redial.dial(attempt, Deadline(None), wanted)
    redial.dial(attempt, Deadline(1), wanted)
    assert 20 < left[0] <= 30
    assert left[1] <= 1


def test_after_so_many_failures_the_link_is_given_up() -> None:
    server = Server(*[OSError("no route")] * 10)
    redial = make(reconnect=True, retry=2, maxInterval=1)
    assert not redial.over
    with pytest.raises(OSError, match="no route"):
        redial.dial(server.attempt, Deadline(10), wanted)
    assert server.attempts == 2
    assert redial.over
    assert "was given up after 2 attempts in a row (option retry): no route" in str(
        redial.end_error()
    )


def test_an_explicit_reconnect_false_ends_the_connection_at_its_first_loss() -> None:
    redial = make(reconnect=False)
    redial.link_lost()
    assert redial.ends_at_loss
    assert redial.over
    assert "with reconnect=false the connection has ended" in str(redial.end_error())
    assert not make().ends_at_loss


@pytest.mark.parametrize("stop", [Redial.stop, Redial.wake], ids=["stop", "wake"])
def test_a_wait_ends_when_the_statement_is_unwanted(stop: Callable[[Redial], None]) -> None:
    server, unwanted = Server(*[OSError("no route")] * 10), threading.Event()
    redial = make(reconnect=True, interval=60_000)
    dialling = Background(lambda: redial.dial(server.attempt, Deadline(None), unwanted.is_set))
    until(lambda: redial.reason)
    began = time.monotonic()
    unwanted.set()
    stop(redial)
    with pytest.raises(
        OperationTimeout, match=r"given up while its server was dialled \(no route\)"
    ):
        dialling.result()
    assert time.monotonic() - began < 30
    assert server.attempts == 1


def test_a_wake_does_not_end_the_wait_of_a_statement_that_is_wanted() -> None:
    server = Server(OSError("no route"))
    redial = make(reconnect=True, interval=50)
    dialling = Background(lambda: redial.dial(server.attempt, Deadline(None), wanted))
    until(lambda: redial.reason)
    redial.wake()
    dialling.result()
    assert server.attempts == 2
