"""The facts about a connection that an object knows from the beginning and that do not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["About"]


class About(NamedTuple):
    """The unchanging facts about a connection."""

    scheme: str
    peer: str
    """The peer as users may see it: without secrets."""
    executes: bool
    """The connection executes statements. Otherwise the program reads from it and writes to it."""
    lost: str | None
    """The result of `read` for a lost link, for an object of `Dial`."""
    comes_again: bool
    """The message broker delivers messages again that were not acknowledged."""
    acknowledges: bool
    """The program may acknowledge messages later than it reads them."""
    raising: bool
    """The object was made by `connect`."""

    @classmethod
    def of(cls, info: Mapping[str, Any], *, raising: bool) -> About:
        """Read the facts from the broker's answer to OPEN or ATTACH."""
        return cls(
            scheme=str(info.get("scheme", "")),
            peer=str(info.get("peer", "")),
            executes=info.get("kind") == "database",
            lost=None if info.get("lost_is_none") else "",
            comes_again=bool(info.get("comes_again")),
            acknowledges=bool(info.get("acknowledges")),
            raising=raising,
        )
