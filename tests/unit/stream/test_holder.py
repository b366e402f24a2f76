"""A holder that does not read keeps the newest marks only."""

from __future__ import annotations

from trunkline.actors.stream.holder import PENDING, Holder


def test_the_oldest_marks_of_a_holder_that_does_not_read_are_dropped() -> None:
    holder = Holder(b"a")
    for number in range(PENDING + 3):
        holder.show_mark(number)
    assert list(holder.pending) == list(range(3, PENDING + 3))
