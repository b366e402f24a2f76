"""What a worker has missed of its connection's holders, `trunkline.broker.changes`."""

from __future__ import annotations

from trunkline.broker.changes import KEPT_S, HolderChanges
from trunkline.wire.envelope import Kind


def renamed_twice() -> HolderChanges:
    changes = HolderChanges()
    changes.attached(0, b"a", b"", 0, 0, [])
    changes.attached(1, b"b", b"a", 1, 10, [])
    changes.attached(2, b"c", b"b", 2, 20, [[20, 5]])
    return changes


def test_a_worker_that_knows_all_hears_nothing() -> None:
    assert list(renamed_twice().missed([b"c"], {b"c": b"control"})) == []


def test_a_former_name_is_replaced_in_one_step() -> None:
    for known in (b"a", b"b"):
        words = list(renamed_twice().missed([known], {b"c": b"control"}))
        assert words == [(Kind.ATTACH, (b"c", b"control", known, 2, 20, [[20, 5]]))]


def test_a_holder_that_came_and_one_that_went() -> None:
    changes = HolderChanges()
    changes.attached(0, b"new", b"", 0, 0, [])
    changes.left(0, b"closed", 7, True)
    came, *went = changes.missed([b"closed", b"dead"], {b"new": b"control"})
    assert came == (Kind.ATTACH, (b"new", b"control", b"", 0, 0, []))
    assert {fields[0]: fields for _, fields in went} == {
        b"closed": (b"closed", 7, True),
        b"dead": (b"dead", None, False),
    }


def test_one_that_came_and_went_is_no_news() -> None:
    changes = renamed_twice()
    changes.left(3, b"c", 30, False)
    assert list(changes.missed([], {})) == []
    assert list(changes.missed([b"c"], {})) == [(Kind.DETACH, (b"c", 30, False))]


def test_names_are_followed_to_the_present_one() -> None:
    changes = renamed_twice()
    assert [changes.name_now(name) for name in (b"a", b"b", b"c", b"x")] == [b"c", b"c", b"c", b"x"]


def test_what_is_long_ago_is_forgotten() -> None:
    changes = renamed_twice()
    changes.left(KEPT_S + 1.5, b"z", 1, False)
    assert changes.name_now(b"a") == b"a"
    assert changes.name_now(b"b") == b"c"
    words = list(changes.missed([b"a"], {b"c": b"control"}))
    assert words == [
        (Kind.ATTACH, (b"c", b"control", b"b", 2, 20, [[20, 5]])),
        (Kind.DETACH, (b"a", None, False)),
    ]
