"""What the readers of a stream are told of its link: its mark, the cause, and the number of outages."""

from __future__ import annotations

from trunkline.actors.stream.lane import Entry
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["LinkNews"]


class LinkNews:
    """Whether the link is up (`UP`), lost (`DOWN`) or lost for good (`END`), as the readers are told."""

    __slots__ = ("cause", "mark", "outages")

    def __init__(self) -> None:
        self.mark: Mark = Mark.UP
        self.cause: Loss | None = None
        """Why the link is down; None while it is up, and where the reason is not known."""
        self.outages = 0
        """How often the link was lost."""

    def change(self, mark: Mark, cause: Loss | None) -> bool:
        """The link has changed; `cause` says why it was lost. False where that is no news."""
        if mark is Mark.DOWN and self.mark is not Mark.UP:
            return False
        if mark is not Mark.UP:
            self.outages += self.mark is Mark.UP
        self.mark, self.cause = mark, cause
        return True

    def entry(self) -> int:
        """The present mark as an entry of the buffer, with its cause where that is known."""
        return int(self.mark) if self.cause is None else self.cause

    def for_newcomer(self, *, down: bool, is_queued: bool) -> Entry | None:
        """The mark that a holder needs which takes the link to be `down` or not; None where it needs none.
        `is_queued`: a mark that the holder will read is among the entries already."""
        if self.mark is Mark.UP:
            return int(Mark.UP) if down else None
        return None if is_queued or (down and self.mark is Mark.DOWN) else self.entry()
