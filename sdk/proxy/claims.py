"""Claims: the notes of this process that a `Dial` waits for a connection.

Signal handlers run in the main thread and may raise (Ctrl-C), even a second time, while the code
still deals with the first exception. An interrupted Dial may therefore be unable to tell the broker
that the connection is not wanted any more.

So every Dial makes a claim before it asks the broker, and holds the claim's lock in a `with` block
while it works. The end of the block releases the lock, whatever was raised. Python runs no signal
handler in the control thread. The control thread looks for claims with a free lock and without a
living object, and tells the broker.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.proxy.connection import Connection

__all__ = ["Claim", "Claims"]


class Claim:
    """The claim of a Dial.

    `lock` is held while the Dial works. `connection` is the object made by the Dial.
    """

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.connection: weakref.ref[Connection] | None = None


class Claims:
    """The claims of this process, by the names under which the broker was asked.

    Any thread may call these methods: each change of the dict is atomic.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, Claim] = {}

    def add(self, holder: bytes, claim: Claim) -> None:
        """Note a claim, before the broker is asked under this name."""
        self._claims[holder] = claim

    def drop(self, holder: bytes) -> None:
        """Forget a claim: the broker needs to hear no more about the claim."""
        self._claims.pop(holder, None)

    def forsaken(self) -> list[bytes]:
        """The names without a working Dial and without a living object. For the control thread.

        Forgets these names. Where an object has a new name by now, its claim goes on under the new
        name.
        """
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
    """The present name of the claim's object at its broker; b"" for a closed object, None without
    object."""
    connection = None if claim.connection is None else claim.connection()
    if connection is None:
        return None
    member = connection._member
    return b"" if member.detached else member.holder_id
