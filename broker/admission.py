"""Whether an OPEN or ATTACH is handled: its program is known and still waits for the answer."""

from __future__ import annotations

from trunkline.broker.directory import Directory
from trunkline.broker.incoming import Incoming
from trunkline.broker.outbox import Outbox
from trunkline.broker.schedule import Schedule
from trunkline.errors import BrokerGone
from trunkline.wire.envelope import Kind

__all__ = ["ABANDONED_S", "Admission"]

ABANDONED_S = 60.0
"""Seconds that the OPEN of a given-up Dial may arrive after the DETACH."""


class Admission:
    """Checks an OPEN or ATTACH before it is carried out."""

    def __init__(self, directory: Directory, outbox: Outbox, schedule: Schedule) -> None:
        self._directory = directory
        self._outbox = outbox
        self._schedule = schedule
        self._abandoned: dict[bytes, float] = {}
        """Holders of given-up Dials, and when each was given up."""

    def abandon(self, holder: bytes) -> None:
        """Note a given-up Dial. The OPEN or ATTACH uses another socket, and may arrive later."""
        now = self._schedule.now()
        self._abandoned = {h: at for h, at in self._abandoned.items() if now - at < ABANDONED_S}
        self._abandoned[holder] = now

    def forget_abandoned(self, holder: bytes) -> bool:
        """Whether the Dial of this holder was given up. The note holds for one message only."""
        return self._abandoned.pop(holder, None) is not None

    def refuse_stranger(self, message: Incoming, control: bytes) -> bool:
        """Refuse a message of a program without a HELLO at this broker. Returns whether it was
        refused.

        After a lost broker, an OPEN may arrive before the program's HELLO. The broker must not
        accept it: a connection whose program is not watched would never end.
        """
        if control in self._directory.clients:
            return False
        self._outbox.refuse(
            message, Kind.FAILED, BrokerGone("the broker was replaced meanwhile; try again")
        )
        return True
