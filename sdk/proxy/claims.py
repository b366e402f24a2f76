"""What this process has asked the broker for, and for whom.

Signal handlers run in the main thread and may raise (Ctrl-C), again while what the first exception
left is put in order. A Dial or a finalizer that is broken off so may not even have said that nobody
wants its connection any more. So each Dial makes a claim before it asks, and holds the claim's lock
in a `with` block while it works; a lock is given up whatever is raised. The control thread, where
no handler runs, finds the claims that nobody works on and that belong to no living object.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Claim", "Claims"]


class Claim:
    """One Dial's. `lock` is held while the Dial works; `connection` is what has become of it."""

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.connection: weakref.ref[Connection] | None = None


class Claims:
    """Those of this process, by the names under which they were asked for. Each change is one
    step."""

    def __init__(self) -> None:
        self._claims: dict[bytes, Claim] = {}

    def add(self, holder: bytes, claim: Claim) -> None:
        """Before the broker is asked under this name."""
        self._claims[holder] = claim

    def drop(self, holder: bytes) -> None:
        """Everything was said about it."""
        self._claims.pop(holder, None)

    def forsaken(self) -> list[bytes]:
        """The names that nobody uses any more; they are forgotten here. For the control thread."""
        found = []
        for holder, claim in list(self._claims.items()):
            if claim.lock.locked():
                continue
            name = _name(claim)
            if name != holder:
                del self._claims[holder]
                if name is None:
                    found.append(holder)
                elif name:
                    self._claims[name] = claim
        return found


def _name(claim: Claim) -> bytes | None:
    """What the claim's object is called at its broker now; b"" of one that was closed, None where
    there is no object."""
    connection = None if claim.connection is None else claim.connection()
    if connection is None:
        return None
    member = connection._member
    return b"" if member.detached else member.holder_id
