"""The holders of connections: the worker is told of each holder that comes or goes.

A connection ends when its last holder has gone and no former holder may come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.broker.adoption import ADOPT_S
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.figures import RETURN_S, Bequests
from trunkline.broker.lives import Lives
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.system.processes import is_alive
from trunkline.wire.envelope import Kind

__all__ = ["Holders"]


@dataclass(slots=True)
class Holders:
    """Adds and drops holders, for all connections."""

    directory: Directory
    outbox: Outbox
    lives: Lives
    bequests: Bequests
    schedule: Schedule

    def tell_of_holder(
        self, connection: Connection, holder: bytes, control: bytes, old: bytes = b"", epoch: int = 0,
        consumed: int = 0, kept: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        """Tell the worker of a further holder; the arguments are the fields of `HolderCame`.

        A worker without a socket at this broker is told when it registers.
        """
        rest = (old, epoch, consumed, list(kept))
        connection.changes.attached(self.schedule.now(), holder, *rest)
        if connection.worker is not None:
            self.outbox.say(connection.worker, Kind.ATTACH, 0, holder, control, *rest)

    def drop_holder(
        self,
        connection: Connection,
        holder: bytes,
        consumed: int | None = None,
        closed: bool = False,
    ) -> None:
        """Drop a holder, and tell the worker.

        `consumed`: how many messages the holder has read; None where the broker does not know.
        `closed`: the program called `close()`; False: it died, or the object was garbage-collected.
        """
        del connection.holders[holder]
        connection.joining = [each for each in connection.joining if each.holder != holder]
        # A Dial that was given up while its worker is still dialling: no answer is owed any more.
        if connection.opening is not None and connection.opening.holder == holder:
            connection.opening = None
            self.bequests.settle(connection.id, opened=False)
        self._tell_of_leaving(connection, holder, consumed, closed)

    def drop_holders_of(self, connection: Connection, control: bytes) -> None:
        """Drop the holders of a program. `control`: the program's control socket."""
        for holder in [held for held, by in connection.holders.items() if by == control]:
            self.drop_holder(connection, holder)

    def drop_ghost(
        self,
        connection: Connection,
        holder: bytes,
        consumed: int | None = None,
        closed: bool = False,
    ) -> None:
        """Drop a holder of the previous broker's time, so that the worker sends it no more.

        The arguments are those of `drop_holder`.
        """
        connection.ghosts.discard(holder)
        self._tell_of_leaving(connection, holder, consumed, closed)

    def _tell_of_leaving(
        self, connection: Connection, holder: bytes, consumed: int | None, closed: bool
    ) -> None:
        """Tell the worker of a holder's end, and note it for a worker that cannot hear now."""
        connection.changes.left(self.schedule.now(), holder, consumed, closed)
        if connection.worker is not None:
            self.outbox.say(connection.worker, Kind.DETACH, 0, holder, consumed, closed)

    def end_if_unwanted(self, connection: Connection) -> None:
        """End a connection without holders; where holders may come back, begin their time."""
        if connection.holders or connection.closing is not None:
            return
        if not connection.kept and not self._may_return(connection):
            self.lives.close(connection, "its last holder has closed it")
        elif connection.lonely_since is None:
            connection.lonely_since = self.schedule.now()

    def patience_s(self, connection: Connection) -> float:
        """How many seconds a connection without holders waits for one."""
        if connection.kept and not self._may_return(connection):
            return connection.linger_s
        patience = ADOPT_S
        if self._is_awaited(connection):
            patience = RETURN_S
        if connection.kept:
            return max(patience, connection.linger_s)
        return patience

    def is_patience_over(self, connection: Connection, now: float) -> bool:
        """Whether a connection has been without holders for too long."""
        if connection.lonely_since is None or connection.holders:
            return False
        return now - connection.lonely_since >= self.patience_s(connection)

    def drop_lost_ghosts(self, connection: Connection, now: float) -> None:
        """Drop the holders of the previous broker that will not come back."""
        if connection.ghosts and self._are_ghosts_lost(connection, now):
            for holder in list(connection.ghosts):
                self.drop_ghost(connection, holder)

    def _are_ghosts_lost(self, connection: Connection, now: float) -> bool:
        """Whether the objects of the previous broker's time have had their time to come back."""
        if not any(map(is_alive, connection.expected)):
            return True
        waited_s = now - connection.adopted_at
        return waited_s > RETURN_S or (waited_s > ADOPT_S and not self._is_awaited(connection))

    def _may_return(self, connection: Connection) -> bool:
        """Whether objects that the previous broker knew as holders have yet to come back."""
        return bool(connection.ghosts) or self._is_awaited(connection)

    def _is_awaited(self, connection: Connection) -> bool:
        """Whether a living process that used the connection under the previous broker may
        return."""
        here = {client.pid for client in self.directory.clients.values()}
        return any(pid not in here and is_alive(pid) for pid in connection.expected)
