"""The figures of a worker that was lost with its broker go to one connection, for good once it is open."""

from __future__ import annotations

from pathlib import Path

import pytest

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
