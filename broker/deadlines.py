"""The deadlines of the parts of the broker, and the order of the checks."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.broker.adoption import Adoption
from trunkline.broker.clients import Clients
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.ending import Ending
from trunkline.broker.holders import Holders
from trunkline.broker.lives import Lives
from trunkline.broker.opening import Dials
from trunkline.broker.schedule import Schedule
from trunkline.broker.spawning import Spawning
from trunkline.broker.workers import Workers

__all__ = ["STALL_S", "Deadlines"]

STALL_S = 2.0
"""Seconds. After a check so late, the broker itself was stopped, or the machine slept."""


@dataclass(slots=True)
class Deadlines:
    """Checks the deadlines of all parts of the broker."""

    directory: Directory
    lives: Lives
    holders: Holders
    dials: Dials
    workers: Workers
    spawning: Spawning
    clients: Clients
    adoption: Adoption
    ending: Ending
    schedule: Schedule

    def look_at_time(self, now: float) -> None:
        """Do all that is due at `now`, and set the time of the next check."""
        if self.schedule.begin_look(now) > STALL_S:
            self._forgive_silence(now)
        self.clients.drop_lost_clients(now)
        self.workers.end_waits_for_words(now)
        for connection in self.directory:
            self._look_at_connection(connection, now)
        self.spawning.kill_if_silent(now)
        self.adoption.deliver_when_complete()
        self.ending.stop_if_idle()

    def _forgive_silence(self, now: float) -> None:
        """Forget the silence of all peers: the broker was stopped, and messages are still
        queued."""
        for connection in self.directory:
            connection.heard = now
        self.spawning.heard = now
        self.clients.forgive_silence(now)

    def _look_at_connection(self, connection: Connection, now: float) -> None:
        """Do at most one of the things that end or replace a worker, the most certain first."""
        self.dials.fail_late_joins(connection, now)
        self.holders.drop_lost_ghosts(connection, now)
        if self.workers.notice_end(connection):
            return
        if self.lives.look_at_time(connection, now) or connection.closing is not None:
            return
        if self.dials.fail_if_late(connection, now):
            return
        if connection.lonely_since is not None and not connection.holders:
            if self.holders.is_patience_over(connection, now):
                self.lives.close(connection, "nobody held it any more")
            return
        self.workers.kill_if_silent(connection, now)
