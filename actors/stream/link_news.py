"""The state of the link as readers see it: the mark, its cause and the number of outages. Pure."""

from __future__ import annotations

from trunkline.actors.stream.lane import Entry
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["LinkNews"]


class LinkNews:
    """Whether the link is up (`UP`), lost (`DOWN`) or lost for good (`END`)."""

    __slots__ = ("cause", "mark", "outages")

    def __init__(self) -> None:
        self.mark: Mark = Mark.UP
        self.cause: Loss | None = None
        """Why the link is down; None while the link is up, and for an unknown reason."""
        self.outages = 0
        """How often the link was lost."""

    def change(self, mark: Mark, cause: Loss | None) -> bool:
        """Note a change of the link. `cause`: why the link was lost. False where nothing is new."""
        # A failed attempt during an outage is no further outage.
        if mark is Mark.DOWN and self.mark is not Mark.UP:
            return False
        if mark is not Mark.UP:
            self.outages += self.mark is Mark.UP
        self.mark, self.cause = mark, cause
        return True

    def entry(self) -> int:
        """The present mark as an entry of the buffer, with its cause where the cause is known."""
        return int(self.mark) if self.cause is None else self.cause

    def for_newcomer(self, *, down: bool, is_queued: bool) -> Entry | None:
        """The mark for a new holder to read first; None where the holder needs no mark.

        `down`: the holder takes the link to be down. `is_queued`: the buffer has a mark for the
        holder already."""
        if self.mark is Mark.UP:
            return int(Mark.UP) if down else None
        return None if is_queued or (down and self.mark is Mark.DOWN) else self.entry()
