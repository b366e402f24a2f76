"""Carries out the actions that `trunkline.broker.lifecycle` decides on.

Every event of a connection's life goes through `Lives`, which passes the event to the connection's
`Life` and carries out the returned actions in their order.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Any

from trunkline.broker.adoption import Adoption
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.figures import Bequests
from trunkline.broker.lifecycle import (
    Action,
    CloseWorker,
    FailDials,
    Forget,
    GiveUp,
    KillWorker,
    OrderWorker,
    TellEnd,
    WaitForNext,
)
from trunkline.broker.outbox import Outbox
from trunkline.broker.remains import remove_files, take_last_figures
from trunkline.broker.schedule import Schedule
from trunkline.broker.spawner import Spawner
from trunkline.broker.supervisor import describe_exit
from trunkline.errors import WorkerDied, to_wire
from trunkline.wire.envelope import Kind

__all__ = ["Lives"]


@dataclass(slots=True)
class Lives:
    """Tells the lives of connections about events. `address`: the broker's."""

    address: str
    directory: Directory
    outbox: Outbox
    spawner: Spawner
    bequests: Bequests
    adoption: Adoption
    schedule: Schedule

    # events

    def order_first_worker(self, connection: Connection, timeout_ms: float) -> None:
        """Order the worker of a Dial. `timeout_ms`: milliseconds for its first link."""
        self._carry_out(connection, connection.life.order_worker(), timeout_ms)

    def order_again(self, connection: Connection) -> None:
        """Order a worker from another spawner, if the former one ended with an open order."""
        opening, left_ms = connection.opening, None
        if opening is not None:
            left_ms = max(1.0, (opening.deadline - self.schedule.now()) * 1000)
        self._carry_out(connection, connection.life.order_again(), left_ms)

    def fail_dials(self, connection: Connection, error: dict[str, Any]) -> None:
        """Answer a connection's waiting Dials with an error. `error`: its fields on the wire."""
        self._carry_out(connection, connection.life.fail_dials(error))

    def lose_worker(self, connection: Connection, status: int | None) -> None:
        """Note the end of the worker. `status`: its exit status; None where the broker does not
        know."""
        how = describe_exit(status)
        if connection.closing is None:
            self._note_crash(connection, how)
        is_dialled = bool(connection.all_opening())
        now = self.schedule.now()
        self._carry_out(connection, connection.life.lose_worker(now, how, is_dialled=is_dialled))

    def refuse_worker(self, connection: Connection, why: str) -> None:
        """Note that the ordered worker could not be started. `why`: the reason in words."""
        how = f"could not be started ({why})"
        self._note_crash(connection, how)
        is_dialled = bool(connection.all_opening())
        now = self.schedule.now()
        self._carry_out(connection, connection.life.refuse_worker(now, how, is_dialled=is_dialled))

    def look_at_time(self, connection: Connection, now: float) -> bool:
        """Do all that is due at `now`. Returns whether an action was due."""
        actions = connection.life.look_at_time(now)
        self._carry_out(connection, actions)
        return bool(actions)

    def close(self, connection: Connection, reason: str) -> None:
        """End a connection in good order. A second call does nothing.

        `reason`: a text for the holders, where no other reason is known.
        """
        actions = connection.life.end(self.schedule.now())
        if actions:
            connection.reason = connection.reason or reason
        self._carry_out(connection, actions)

    # actions

    def _carry_out(
        self, connection: Connection, actions: list[Action], timeout_ms: float | None = None
    ) -> None:
        """Carry out actions in their order. `timeout_ms`: for the worker of a Dial."""
        for action in actions:
            match action:
                case OrderWorker(incarnation):
                    self._order_worker(connection, incarnation, timeout_ms)
                case CloseWorker():
                    if connection.worker is not None:
                        self.outbox.say(connection.worker, Kind.CLOSE)
                case KillWorker():
                    if connection.watch is not None:
                        connection.watch.kill()
                case FailDials(error):
                    self._answer_dials(connection, error)
                case WaitForNext(due, how):
                    self._announce_next(connection, due, how)
                case GiveUp(why):
                    self._give_up(connection, why)
                case TellEnd():
                    self.outbox.tell_holders(connection, final=True)
                case Forget():
                    self._forget(connection)

    def _order_worker(
        self, connection: Connection, incarnation: int, timeout_ms: float | None
    ) -> None:
        """Order a worker from the spawner, with everything that it has to know at its start."""
        now = self.schedule.now()
        identity = b"w" + connection.id + incarnation.to_bytes(4, "big") + secrets.token_bytes(4)
        self.directory.set_worker(connection, identity)
        connection.heard = now
        until = None
        if timeout_ms is not None:
            until = now + timeout_ms / 1000
        stats = {}
        if incarnation > 1 or connection.inherits:
            stats = connection.figures()
        self.spawner.start(
            connection.id.hex(),
            {
                "identity": identity,
                "broker": self.address,
                "broker_pid": os.getpid(),
                "incarnation": incarnation,
                # Not where the previous worker has never opened: a Dial waits for the first link,
                # and has its own timeout.
                "succeeds": (incarnation > 1 and connection.opening is None)
                or bool(connection.former),
                "until": until,
                "holders": [[holder, control] for holder, control in connection.holders.items()],
                "users": self.directory.user_pids(connection),
                "stats": stats,
                "had": list(connection.had.items()),
                "bequest": connection.bequest,
                "record": connection.record(),
            },
        )

    def _answer_dials(self, connection: Connection, error: dict[str, Any] | None) -> None:
        """Answer the waiting Dials with an error. None: the end of the worker is the reason."""
        if error is None:
            peer = connection.stats.get("peer", "")
            text = f"the connection to {peer} could not be opened: {connection.reason}"
            error = to_wire(WorkerDied(text))
        waiting = connection.all_opening()
        connection.opening, connection.joining = None, []
        # keep the former figures for the next attempt
        self.bequests.settle(connection.id, opened=False)
        for opening in waiting:
            self.outbox.say(opening.holder, Kind.FAILED, opening.request_id, error)

    def _note_crash(self, connection: Connection, how: str) -> None:
        """Note the end of a worker as the reason, and take the figures that it has left."""
        connection.reason = f"its worker {how}"
        connection.stats = {**connection.stats, "last_error": connection.reason}
        take_last_figures(self.address, connection)

    def _announce_next(self, connection: Connection, due: float, how: str) -> None:
        """Tell holders and users that another worker takes over from a crashed one."""
        connection.crashed_at = connection.crashed_at or self.schedule.now()
        peer = connection.stats.get("peer", "")
        self.outbox.log_for_users(connection, f"the worker of {peer} {how}; a new one takes over")
        self.outbox.tell_holders(connection, final=False)
        self.schedule.look_by(due)

    def _give_up(self, connection: Connection, why: str) -> None:
        """Tell holders and users that no worker takes over from a crashed one."""
        remove_files(self.address, connection)
        connection.reason = f"{connection.reason}{why}"
        peer = connection.stats.get("peer", "")
        text = f"the connection to {peer} has ended: {connection.reason}; dial again"
        self.outbox.log_for_users(connection, text)
        self.outbox.tell_holders(connection, final=True)

    def _forget(self, connection: Connection) -> None:
        """Remove a connection, its claims and its files.

        A connection that had replaced a lost one leaves its figures for further objects of the lost
        one.
        """
        self.directory.remove(connection)
        self.bequests.settle(connection.id, opened=False)
        if connection.former and connection.has_opened:
            self.bequests.leave(
                connection.former, connection.stats, connection.had_by_former_names()
            )
        self.adoption.note_end()
        remove_files(self.address, connection)
