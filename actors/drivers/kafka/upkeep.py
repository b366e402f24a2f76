"""Recurring tasks while a link is open: commits, ends of partitions, new partitions, silence.

Each task has its own interval. Runs on the reader's thread.
"""

from __future__ import annotations

import contextlib

from confluent_kafka import KafkaException

from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.actors.drivers.kafka.session import Session

__all__ = ["Upkeep"]

_COMMIT_S = 0.5
_ASK_ENDS_S = 5.0
"""Paused partitions are not fetched, and only fetches bring their ends. So the broker is asked, but
rarely.
"""
_ASSIGNMENT_S = 60.0
"""Seconds that a group may need for assigning partitions: it waits for the slowest member."""


class Upkeep:
    """The recurring tasks of one session. All times are seconds of the monotonic clock."""

    def __init__(self, plan: Plan, session: Session, link: LinkState) -> None:
        self._plan = plan
        self._session = session
        self._link = link
        self._commit_at = 0.0
        self._note_ends_at = 0.0
        self._find_partitions_at = 0.0
        self._unassigned_since: float | None = None

    def begin_link(self, now: float, *, is_first: bool) -> None:
        """Begin a link.

        After an outage (not `is_first`) partitions may have been added, so they are looked up at
        once.
        """
        self._find_partitions_at = now + self._plan.ping_s if is_first else 0.0
        self._note_ends_at = 0.0
        self._session.silence.begin_anew()
        self._unassigned_since = None

    def run(self, now: float) -> None:
        """Do the tasks that are due."""
        if self._session.group is not None and now >= self._commit_at:
            self._commit_at = now + _COMMIT_S
            with contextlib.suppress(KafkaException):
                self._session.group.commit()
        if now >= self._note_ends_at:
            self._note_ends(now)
        if now >= self._find_partitions_at:
            self._find_partitions_at = now + self._plan.ping_s
            if not self._plan.group:  # members of a group find them by themselves
                self._session.places.find_new_partitions(held=self._session.fetcher.is_held)
        self._check_assignment(now)

    def _note_ends(self, now: float) -> None:
        """Note the ends of partitions, and end the link where a partition has been silent for too
        long.
        """
        is_held = self._session.fetcher.is_held
        self._note_ends_at = now + (_ASK_ENDS_S if is_held else _COMMIT_S)
        with contextlib.suppress(KafkaException):
            self._session.places.note_ends(ask=is_held)
        if not is_held and (reason := self._session.silence.look()):
            self._link.lose(reason)

    def _check_assignment(self, now: float) -> None:
        """End the link of a member that waits too long for its group, instead of being open and
        silent.
        """
        group = self._session.group
        if group is None or group.assigned:
            self._unassigned_since = None
        elif self._unassigned_since is None:
            self._unassigned_since = now
        elif now - self._unassigned_since > _ASSIGNMENT_S:
            self._link.lose(
                ConnectionError(
                    f"group '{self._plan.group}' gives this member no partitions any more"
                )
            )
