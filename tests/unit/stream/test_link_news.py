"""A loss is news once, and a newcomer is told of the link what it cannot know."""

from __future__ import annotations

import pytest

from trunkline.actors.stream.link_news import LinkNews
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss


def test_a_loss_is_news_once_and_counts_once() -> None:
    news = LinkNews()
    assert news.change(Mark.DOWN, None)
    assert not news.change(Mark.DOWN, None)
    assert news.change(Mark.END, None), "given up after the loss"
    assert news.outages == 1


def test_the_entry_of_a_loss_has_its_cause_until_the_link_is_there_again() -> None:
    news = LinkNews()
    cause = Loss.of(Mark.DOWN, "reset", 104)
    news.change(Mark.DOWN, cause)
    assert news.entry() is cause
    news.change(Mark.UP, None)
    assert (news.entry(), news.cause, news.outages) == (Mark.UP, None, 1)


@pytest.mark.parametrize(
    ("mark", "down", "is_queued", "told"),
    [
        (Mark.UP, False, False, None),
        (Mark.UP, True, False, Mark.UP),
        (Mark.DOWN, False, False, Mark.DOWN),
        (Mark.DOWN, True, False, None),
        (Mark.DOWN, False, True, None),
        (Mark.END, True, False, Mark.END),
        (Mark.END, False, True, None),
    ],
)
def test_a_newcomer_is_told_what_it_cannot_know(
    mark: Mark, down: bool, is_queued: bool, told: Mark | None
) -> None:
    news = LinkNews()
    news.change(mark, None)
    assert news.for_newcomer(down=down, is_queued=is_queued) == told
