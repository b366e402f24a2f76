"""The pocket on its own: what a reader takes from what was sent ahead."""

from __future__ import annotations

from trunkline.proxy.pocket import EMPTY, LOST, Pocket
from trunkline.wire.envelope import Mark

DOWN, UP, END = int(Mark.DOWN), int(Mark.UP), int(Mark.END)


def streaming(*entries: str | bytes | int) -> Pocket:
    pocket = Pocket()
    assert pocket.feed(0, True, False, entries)
    return pocket


def test_entries_come_in_order_and_a_loss_in_its_place() -> None:
    pocket = streaming("a", DOWN, UP, b"b")
    assert [pocket.take() for _ in range(4)] == ["a", LOST, b"b", EMPTY]
    assert pocket.consumed == 4


def test_a_link_that_is_down_stays_lost_until_it_is_up() -> None:
    pocket = streaming(DOWN)
    assert [pocket.take() for _ in range(3)] == [LOST] * 3
    pocket.feed(0, True, False, [UP])
    assert pocket.take() is EMPTY


def test_the_end_is_for_ever() -> None:
    pocket = streaming("a", END)
    assert [pocket.take() for _ in range(3)] == ["a", LOST, LOST]
    assert pocket.take_newest() is LOST


def test_the_newest_discards_the_rest_and_keeps_what_came_after() -> None:
    pocket = streaming("a", DOWN, UP, "b", "c", DOWN)
    assert pocket.take_newest() == "c"
    assert (pocket.consumed, pocket.skipped) == (5, 2)
    assert pocket.take() is LOST
    assert streaming(DOWN).take_newest() is LOST
    assert streaming().take_newest() is EMPTY


def test_a_recall_gives_back_what_was_not_read() -> None:
    pocket = streaming("a", "b", "c")
    pocket.take()
    assert pocket.recall(1) == 1
    assert pocket.take() is EMPTY
    assert not pocket.feed(0, True, False, ["late"])
    assert pocket.feed(1, False, False, ["b"])
    assert pocket.take() == "b"
    assert pocket.recall(1) == 2


def test_entries_of_a_later_epoch_are_a_recall_too() -> None:
    pocket = streaming("a", "b")
    assert pocket.feed(1, False, False, ["a"])
    assert [pocket.take(), pocket.take()] == ["a", EMPTY]
    assert pocket.consumed == 1


def test_what_a_crashed_worker_sent_is_read_first_and_never_given_back() -> None:
    pocket = streaming("a", "b")
    pocket.take()
    pocket.lose(Mark.DOWN)
    assert pocket.will_be_down()
    pocket.feed(0, True, False, [UP, "c"])
    assert not pocket.will_be_down()
    assert pocket.recall(1) < 0
    assert [pocket.take(), pocket.take()] == ["b", LOST]
    assert pocket.consumed == 0
    pocket.feed(1, True, False, [UP, "c"])
    assert pocket.take() == "c"


def test_the_newest_of_a_crashed_worker_is_here() -> None:
    pocket = streaming("a", "b")
    pocket.lose(Mark.DOWN)
    assert pocket.has_newest()
    assert pocket.take_newest() == "b"
    assert pocket.skipped == 0
    assert pocket.take() is LOST


def test_discarding_leaves_nothing_and_what_is_on_its_way_is_void() -> None:
    pocket = streaming("a", "b")
    pocket.take()
    pocket.discard()
    assert pocket.consumed == 1
    assert not pocket.feed(0, True, False, ["late"])
    assert pocket.feed(1, False, False, ["newest"])
    assert pocket.take_newest() == "newest"


def test_what_came_from_dead_workers_is_known_in_messages() -> None:
    pocket = Pocket()
    pocket.feed(0, True, False, ["a", int(Mark.DOWN), int(Mark.UP), "b", "c"], 0)
    assert [pocket.take() for _ in range(3)] == ["a", LOST, "b"]
    pocket.recall(1)  # c goes back
    pocket.feed(1, True, False, ["c", "d"], 4)
    pocket.lose(Mark.DOWN)
    assert pocket.had == 4
    assert pocket.take() == "c"
    pocket.lose(Mark.DOWN)  # the next worker dies too, and nothing had come from it
    assert pocket.had == 4
    assert [pocket.take() for _ in range(3)] == ["d", LOST, LOST]
    pocket.feed(0, True, False, ["e", "f"], 0)
    assert pocket.take() == "e"
    pocket.discard()  # f goes back
    pocket.lose(Mark.DOWN)
    assert pocket.had == 5
