"""The holders of a connection as its worker knows them. No socket, clock or loop is used here.

A holder is an object in a program that uses the connection. The broker tells the worker of each holder that
comes (ATTACH) and goes (DETACH). After a lost broker a holder attaches again and has another name; messages
that it sent under its former name may still arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from trunkline.wire.messages import HolderCame, HolderLeft

__all__ = ["MOST_EARLY", "Members", "Message"]

MOST_EARLY = 64
"""So many messages of holders that the broker has not told of yet are kept; the oldest go first."""


class Message(NamedTuple):
    """A message as the mailbox hands it over."""

    sender: bytes
    head: bytes
    body: list[bytes]


class Members:
    """`holders`: the holders at the worker's start, each with the control socket of its program."""

    def __init__(self, holders: Mapping[bytes, bytes]) -> None:
        self._controls = dict(holders)
        self.controls: Mapping[bytes, bytes] = MappingProxyType(self._controls)
        """Holder -> the control socket of its program. To read only."""
        self._new_names: dict[bytes, bytes] = {}
        """Former name -> the name that the same holder has now."""
        self._early: dict[bytes, Message] = {}
        """A message of a holder that came by the door, ahead of the broker's ATTACH."""
        self._closing: set[bytes] = set()
        """Holders whose program has called `close()` and that the broker has not taken away yet."""
        self._last_was_closed = False
        """Whether the holder that left last had called `close()`."""

    def current_name(self, holder: bytes) -> bytes:
        """The name that this holder has now; the same name where it has no other."""
        return self._new_names.get(holder, holder)

    def come(self, came: HolderCame) -> Message | None:
        """Take in a holder, or its new name. What it had said ahead of that, to be received now."""
        if self._controls.pop(came.former, None) is not None:
            for older, newer in self._new_names.items():
                if newer == came.former:
                    self._new_names[older] = came.holder
            self._new_names[came.former] = came.holder
        self._controls[came.holder] = came.control
        if came.former in self._closing:
            self._closing.add(came.holder)
        self._closing.discard(came.former)
        return self._early.pop(came.holder, None)

    def leave(self, left: HolderLeft) -> None:
        """A holder has gone."""
        self._early.pop(left.holder, None)
        self._controls.pop(left.holder, None)
        self._last_was_closed = bool(left.closed) or left.holder in self._closing
        self._closing.discard(left.holder)

    def keep_early(self, holder: bytes, message: Message) -> None:
        """Keep a message until the broker tells of its holder. Of each holder the last one is kept."""
        self._early.pop(holder, None)
        self._early[holder] = message
        if len(self._early) > MOST_EARLY:
            del self._early[next(iter(self._early))]

    def note_closing(self, holder: bytes) -> None:
        """The program of this holder has called `close()`; a stranger's word counts for nothing."""
        if holder in self._controls:
            self._closing.add(holder)

    def all_have_closed(self) -> bool:
        """Whether the connection ends in good order: every holder that is left, or the last one that was
        here, has called `close()`."""
        if not self._controls:
            return self._last_was_closed
        return self._controls.keys() <= self._closing
