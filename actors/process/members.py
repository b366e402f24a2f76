"""The holders of a connection as its worker knows them. Pure: no socket, clock or loop is used.

A holder is an object in a program that uses the connection. The broker tells the worker of each
holder that comes (ATTACH) or goes (DETACH). After a lost broker a holder attaches again under a new
name. Messages under its former name may still arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from trunkline.wire.messages import HolderCame, HolderLeft

__all__ = ["MOST_EARLY", "Members", "Message"]

MOST_EARLY = 64
"""How many early messages are kept, each of a holder unknown so far; the oldest go first."""


class Message(NamedTuple):
    """A message from the mailbox."""

    sender: bytes
    head: bytes
    body: list[bytes]


class Members:
    """The holders of one connection.

    `holders`: the holders at the worker's start, with the control sockets of their programs.
    """

    def __init__(self, holders: Mapping[bytes, bytes]) -> None:
        self._controls = dict(holders)
        self.controls: Mapping[bytes, bytes] = MappingProxyType(self._controls)
        """Holder -> the control socket of its program. Read only."""
        self._new_names: dict[bytes, bytes] = {}
        """Former name -> present name of the same holder."""
        self._early: dict[bytes, Message] = {}
        """Holder -> its last message, which came by the door ahead of the broker's ATTACH."""
        self._closing: set[bytes] = set()
        """Holders whose program has called `close()`, until the broker's DETACH."""
        self._last_was_closed = False
        """Whether the last holder to leave had called `close()`."""

    def current_name(self, holder: bytes) -> bytes:
        """The present name of a holder, which may be the same name."""
        return self._new_names.get(holder, holder)

    def come(self, came: HolderCame) -> Message | None:
        """Add a holder, or give a holder its new name.

        Returns the message that came ahead of ATTACH, for the worker to handle now.
        """
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
        """Remove a holder."""
        self._early.pop(left.holder, None)
        self._controls.pop(left.holder, None)
        self._last_was_closed = bool(left.closed) or left.holder in self._closing
        self._closing.discard(left.holder)

    def keep_early(self, holder: bytes, message: Message) -> None:
        """Keep a message until the broker tells of the holder. Only a holder's last message is
        kept."""
        self._early.pop(holder, None)
        self._early[holder] = message
        if len(self._early) > MOST_EARLY:
            del self._early[next(iter(self._early))]

    def note_closing(self, holder: bytes) -> None:
        """Note that a holder's program has called `close()`. An unknown holder is ignored."""
        if holder in self._controls:
            self._closing.add(holder)

    def all_have_closed(self) -> bool:
        """Whether the remaining holders, or else the last one to leave, have called `close()`."""
        if not self._controls:
            return self._last_was_closed
        return self._controls.keys() <= self._closing
