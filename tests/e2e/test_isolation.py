"""Drivers that misbehave on purpose: neither the strategy nor another connection feels it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import trunkline
from tests.support.programs import Remains, until
from tests.support.sockets import SocketServer, echo
from trunkline import Connection, Dial, connect

pytestmark = pytest.mark.own_broker

_EVIL = Path(__file__).parents[1] / "support" / "evil"


@pytest.fixture
def remains(_no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Remains:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(_EVIL))
    return Remains()


@pytest.fixture
def neighbour(remains: Remains) -> Iterator[Connection]:
    """Another connection of the same strategy; it has to work before, and each test looks at it last."""
    with SocketServer(echo) as server, connect(server.url) as conn:
        assert works(conn)
        yield conn


def works(conn: Connection) -> bool:
    return conn.write("well") == 4 and conn.read(5000) == "well"


def test_the_driver_does_what_it_should_when_it_is_told_to(neighbour: Connection) -> None:
    with connect("unix:///echo") as conn:
        assert works(conn)


@pytest.mark.parametrize(
    ("way", "why"),
    [("fail", "failed on purpose"), ("segfault-0", "SIGSEGV"), ("exit-0", "status 3")],
)
def test_a_driver_that_cannot_open_is_answered_at_once(
    way: str, why: str, neighbour: Connection
) -> None:
    assert Dial(f"unix:///{way}") is None
    assert why in (trunkline.last_error() or "")
    assert works(neighbour)


def test_a_driver_that_blocks_in_open_is_killed_at_the_deadline(
    neighbour: Connection, remains: Remains
) -> None:
    assert Dial("unix:///hang", 1) is None
    assert works(neighbour)
    until(lambda: not remains.processes("trunk-unix"), "the end of the worker")


@pytest.mark.parametrize(("way", "why"), [("segfault-3", "SIGSEGV"), ("exit-3", "status 3")])
def test_a_driver_that_crashes_after_messages_loses_none_of_them(
    way: str, why: str, neighbour: Connection
) -> None:
    with connect(f"unix:///{way}") as conn:
        assert [conn.read(5000) for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(trunkline.BrokenError):
            conn.read(5000)
        assert why in (conn.stats().last_error or "")
    assert works(neighbour)


def test_a_driver_that_crashes_again_and_again_is_given_up(neighbour: Connection) -> None:
    conn = Dial("unix:///segfault-1|reconnect=true&interval=1")
    assert conn is not None
    outages = []

    def over() -> bool:
        outages.append(conn.read(100))
        return conn._member.gone is not None

    until(over, "the end", 30)
    assert "SIGSEGV, 5 crashes within 30 s were too many" in (conn.stats().last_error or "")
    assert works(neighbour)


def test_a_driver_that_floods_stays_within_its_buffer(neighbour: Connection) -> None:
    with connect("unix:///flood") as conn:
        for _ in range(3000):
            assert conn.read(5000) == "x" * 100
        stats = conn.stats()
        assert stats.peak <= 7000
        assert stats.buffered <= 2000
        assert stats.dropped > 0
        assert works(neighbour)


@pytest.mark.parametrize("way", ["stubborn", "hang"])
def test_a_driver_that_does_not_end_is_ended(
    way: str, neighbour: Connection, remains: Remains
) -> None:
    conn = Dial(f"unix:///{way}", 1)
    if conn is not None:
        conn.close()
    assert works(neighbour)
    until(lambda: not remains.processes("trunk-unix"), "the end of the worker")


def test_what_crashed_left_its_last_words_in_the_log(neighbour: Connection) -> None:
    assert Dial("unix:///segfault-0") is None
    log = Path(os.environ["TRUNKLINE_BROKER"].removeprefix("ipc://")).with_name("broker.log")
    assert "Segmentation fault" in log.read_text()
