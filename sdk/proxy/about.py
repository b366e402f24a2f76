"""What an object knows of its connection from the beginning, and what does not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["About"]


class About(NamedTuple):
    scheme: str
    peer: str
    """The other end as users may see it: without secrets."""
    executes: bool
    """It executes statements; otherwise it is read from and written to."""
    lost: str | None
    """What `read` of an object of `Dial` returns for a lost link."""
    comes_again: bool
    """A message broker sends again what was not acknowledged."""
    acknowledges: bool
    """Messages can be acknowledged later than they are read."""
    raising: bool
    """It is an object of `connect`."""

    @classmethod
    def of(cls, info: Mapping[str, Any], *, raising: bool) -> About:
        """From the broker's answer to OPEN or ATTACH."""
        return cls(
            scheme=str(info.get("scheme", "")),
            peer=str(info.get("peer", "")),
            executes=info.get("kind") == "database",
            lost=None if info.get("lost_is_none") else "",
            comes_again=bool(info.get("comes_again")),
            acknowledges=bool(info.get("acknowledges")),
            raising=raising,
        )
