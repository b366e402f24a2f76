"""Which messages of the workers before this one did reach a holder: the correction of their figures. Pure."""

from __future__ import annotations

__all__ = ["Handover"]


class Handover:
    """A worker that is killed cannot know which messages, among those that it had sent ahead, still reach a
    holder: it has counted them by its own guess. Each holder tells the next worker how many it really had."""

    def __init__(self, given: dict[bytes, int]) -> None:
        """`given`: how many messages the former workers took each holder to have, as far as they said so."""
        self.given = given
        """How many messages of former workers each holder had."""
        self.settled = 0
        """So many more messages were read, and fewer were dropped, than the former workers have counted; may
        be less than 0."""

    def settle(self, holder: bytes, had: int) -> None:
        """The holder says that it had so many messages of the former workers."""
        # Of a holder that the former workers left no number of, nothing can be corrected.
        self.settled += had - self.given.get(holder, had)
        self.given[holder] = had

    def rename(self, old: bytes, new: bytes) -> None:
        """The holder has another name. It may have spoken under the new name before."""
        if (before := self.given.pop(old, None)) is not None:
            self.settled += self.given.setdefault(new, before) - before

    def forget(self, holder: bytes) -> None:
        """The holder has left."""
        self.given.pop(holder, None)
