"""Correcting the figures of former workers by the reports of the holders. Pure."""

from __future__ import annotations

__all__ = ["Handover"]


class Handover:
    """The difference between the counts of former workers and the counts of the holders.

    A killed worker cannot know which of the messages sent ahead still reach a holder. Its ledger
    counts them by assumption. Each holder tells the next worker how many messages it really had."""

    def __init__(self, given: dict[bytes, int]) -> None:
        """`given`: messages of each holder by the count of the former workers, where known."""
        self.given = given
        """Messages of former workers that each holder had."""
        self.settled = 0
        """Messages to add to `read` and to take from `dropped` of the former workers.
        May be below 0."""

    def settle(self, holder: bytes, had: int) -> None:
        """Take a holder's report: the number of messages of former workers that the holder had."""
        # Without a count of the former workers no correction is possible.
        self.settled += had - self.given.get(holder, had)
        self.given[holder] = had

    def rename(self, old: bytes, new: bytes) -> None:
        """Give a holder another name. The holder may have reported under the new name before."""
        if (before := self.given.pop(old, None)) is not None:
            self.settled += self.given.setdefault(new, before) - before

    def forget(self, holder: bytes) -> None:
        """Remove a holder that has left."""
        self.given.pop(holder, None)
