"""The end of the broker itself: on a signal, or after the last client."""

from __future__ import annotations

from trunkline.broker.adoption import ADOPT_S, Adoption
from trunkline.broker.directory import Directory
from trunkline.broker.holders import Holders
from trunkline.broker.lives import Lives
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.system.processes import is_alive

__all__ = ["FIRST_CLIENT_S", "Ending"]

FIRST_CLIENT_S = 15.0
"""Seconds that a broker without a known starter waits for its first client."""


class Ending:
    """Decides when the broker ends.

    `persistent`: the broker stays when the last client has gone. `starter`: the process id of the
    first client to come. After its death, no client is expected.
    """

    def __init__(
        self, directory: Directory, outbox: Outbox, lives: Lives, holders: Holders, adoption: Adoption,
        schedule: Schedule, *, persistent: bool, starter: int | None,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._outbox = outbox
        self._lives = lives
        self._holders = holders
        self._adoption = adoption
        self._schedule = schedule
        self._persistent = persistent
        self._starter = starter
        self._had_client = False
        self._stops_for_idleness = False
        self.is_stopping = False
        """The broker ends as soon as its connections have ended."""
        self.ended_early = False
        """The broker was stopped within ADOPT_S of its start, while programs were there or had yet
        to come. These programs start another broker."""

    def note_client(self) -> None:
        """Note a new client. A broker that was about to end for want of clients stays."""
        self._had_client = True
        if self._stops_for_idleness:
            self._stops_for_idleness = self.is_stopping = False

    def stop(self) -> None:
        """End all connections in good order, then the broker."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.ended_early = not self._stops_for_idleness and self._is_early()
        for connection in self._directory:
            if connection.closing is None:
                peer = connection.stats.get("peer", "")
                text = f"the connection to {peer} has ended: the broker was stopped; dial again"
                self._outbox.log_for_users(connection, text, level="error")
            self._lives.close(connection, "the broker was stopped")

    def _is_early(self) -> bool:
        """Whether programs will want another broker: present programs, or programs still to
        come."""
        if self._schedule.now() - self._adoption.began >= ADOPT_S:
            return False
        starter_lives = self._starter is not None and is_alive(self._starter)
        return starter_lives or bool(self._directory.clients) or self._adoption.awaits_programs()

    def stop_if_idle(self) -> None:
        """Stop when no client is there and no client is waited for."""
        if self.is_stopping or self._persistent or self._directory.clients:
            return
        if not self._adoption.awaits_programs() and self._is_idle():
            self._stops_for_idleness = True
            self.stop()

    def _is_idle(self) -> bool:
        """Whether no client is waited for. Called only while no client is there."""
        if self._had_client:
            return not self._adoption.awaits_workers() and not any(
                each.lonely_since is not None and self._holders.patience_s(each) > ADOPT_S
                for each in self._directory
            )
        if self._starter is not None and not is_alive(self._starter):
            is_wanted = any(each.closing is None for each in self._directory)
            return not self._adoption.awaits_workers() and not is_wanted
        return self._schedule.now() - self._adoption.began > FIRST_CLIENT_S
