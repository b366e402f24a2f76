"""The figures of a worker that was lost with its broker go to one connection, for good once it is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.broker.directory import Connection
from trunkline.broker.figures import Bequests
from trunkline.wire.ledger import COUNTERS, Ledger

FORMER = [b"old", b"a", False]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "f-00"
    ledger = Ledger(path, 1)
    ledger.publish()
    ledger.write(tuple(range(len(COUNTERS))), {b"a": 3, b"b": 4})
    ledger.close()
    return path


def test_it_goes_to_the_first_object_that_asks(path: Path) -> None:
    bequests = Bequests()
    claimed = bequests.claim(FORMER, b"new a", b"1", path)
    assert claimed is not None
    figures, had = claimed
    assert figures["bytes_in"] == COUNTERS.index("bytes_in")
    assert had == {b"new a": 3, b"b": 4}
    assert bequests.claim([b"old", b"b", False], b"new b", b"2", path) is None
    bequests.settle(b"1", opened=True)
    assert not path.exists()


def test_an_attempt_that_failed_leaves_it_to_the_next(path: Path) -> None:
    bequests = Bequests()
    assert bequests.claim(FORMER, b"new", b"1", path)
    bequests.settle(b"1", opened=False)
    assert path.exists()
    assert bequests.claim([b"old", b"b", False], b"new b", b"2", path)


def test_the_same_object_may_ask_again_before_its_attempt_has_ended(path: Path) -> None:
    bequests = Bequests()
    assert bequests.claim(FORMER, b"new", b"1", path)
    assert bequests.claim(FORMER, b"newer", b"2", path)
    bequests.settle(b"1", opened=False)
    bequests.settle(b"2", opened=True)
    assert not path.exists()


def test_the_next_broker_finds_it_where_this_one_is_killed(path: Path) -> None:
    assert Bequests().claim(FORMER, b"new", b"1", path)
    assert Bequests().claim(FORMER, b"new", b"1", path)


def test_no_ledger_no_figures(tmp_path: Path) -> None:
    assert Bequests().claim(FORMER, b"new", b"1", tmp_path / "f-00") is None


STATS = {"messages_in": 10, "read": 10, "dropped": 0}


def test_what_an_attempt_left_that_opened_too_late_goes_to_the_next(tmp_path: Path) -> None:
    """The connection opened for nobody and has ended; the object dials once more, by another name."""
    path = tmp_path / "f-00"
    connection = Connection(b"1", 1, {}, True, 0)
    connection.former_names[b"first try"] = b"a"
    connection.had = {b"first try": 10, b"b": 4}
    bequests = Bequests()
    bequests.leave(b"old", STATS, connection.had_by_former_names())
    claimed = bequests.claim(FORMER, b"second try", b"2", path)
    assert claimed is not None
    assert claimed[1] == {b"second try": 10, b"b": 4}


@pytest.mark.parametrize("opened", [False, True])
def test_what_was_left_goes_to_the_next_attempt_where_one_fails(
    tmp_path: Path, opened: bool
) -> None:
    path = tmp_path / "f-00"
    bequests = Bequests()
    bequests.leave(b"old", STATS, {b"a": 10})
    assert bequests.claim(FORMER, b"new", b"2", path)
    bequests.settle(b"2", opened=opened)
    assert bool(bequests.claim(FORMER, b"newer", b"3", path)) is not opened
