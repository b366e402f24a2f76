"""Attaching holders to the buffer, renaming and detaching them.

A holder is served when two messages have come: the broker's ATTACH (`Readers.attach`), and the
holder's own START, by the pipe or through the router (`Readers.start`). The two messages come by
different sockets, so either may come first. `_early` and `_returning` keep the first message until
the second comes. All methods run on the worker's event loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.handover import Handover
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.serving import Serving

__all__ = ["Readers"]


class _Former(NamedTuple):
    """A holder as a former worker or broker knew the holder: arguments of `Buffer.replace`."""

    old: bytes
    epoch: int
    consumed: int
    kept: list[Any]


class _Early(NamedTuple):
    """The START of a holder that the broker has not introduced yet."""

    down: bool
    envelopes: bool


class Readers:
    """Attaches holders to the buffer and detaches them."""

    def __init__(self, host: Host, buffer: Buffer, handover: Handover, serving: Serving) -> None:
        self._host = host
        self._buffer = buffer
        self._handover = handover
        self._serving = serving
        self._early: dict[bytes, _Early] = {}
        """Holders with a START and without an ATTACH yet."""
        self._returning: dict[bytes, _Former] = {}
        """Holders of a former worker with an ATTACH and without a START yet."""

    def attach(self, holder: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]) -> None:
        """Take the broker's ATTACH of a further holder. The holder is served after its START.

        `old`: the holder's name with a former broker or worker; b"" for a new holder. The other
        arguments are those of `Buffer.replace`."""
        # A new holder without a START yet needs no note: `serve` finds the holder in
        # `Host.holders`.
        if old:
            self._attach_again(holder, _Former(old, epoch, consumed, kept))
        elif holder in self._early:
            early = self._early.pop(holder)
            self._buffer.attach(holder, down=early.down, envelopes=early.envelopes)
        self._serving.flush_soon()

    def _attach_again(self, holder: bytes, former: _Former) -> None:
        """Attach a holder that a former worker or broker knew by another name."""
        self._handover.rename(former.old, holder)
        self._returning.pop(former.old, None)
        early = self._early.pop(holder, None)
        if former.old in self._buffer.holders:
            self._buffer.replace(former.old, holder, former.epoch, former.consumed, former.kept)
        elif early is not None:
            self._replace(holder, former, early)
        else:
            # Before its START, the worker does not know the socket by which to reach the holder.
            self._returning[holder] = former

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """Take a holder's START.

        `down`: the holder takes the link to be down. `had`: messages of former workers that the
        holder had. `envelopes`: the holder wants envelopes."""
        # An attached holder says START again under a new name or on a new pipe, and waits for the
        # answer. A new holder is answered by `Buffer.attach`.
        if holder in self._buffer.holders:
            self._serving.welcome(holder)
        self.serve(holder, down, had, envelopes)

    def serve(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """As `start`, also for a holder whose START may have gone to the former worker."""
        # The count corrects the figures of former workers, also for a holder served already.
        self._handover.settle(holder, had)
        if holder in self._buffer.holders:
            return
        returning = self._returning.pop(holder, None)
        # `Host.holders` has the holders with an ATTACH.
        if holder not in self._host.holders:
            self._early[holder] = _Early(down, envelopes)
        elif returning is not None:
            self._replace(holder, returning, _Early(down, envelopes))
            self._serving.flush_soon()
        else:
            self._buffer.attach(holder, down=down, envelopes=envelopes)
            self._serving.flush_soon()

    def _replace(self, holder: bytes, former: _Former, said: _Early) -> None:
        """Have the buffer serve a holder that a former worker or broker knew."""
        old, epoch, consumed, kept = former
        self._buffer.replace(
            old, holder, epoch, consumed, kept, down=said.down, envelopes=said.envelopes
        )

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """Remove a holder. `consumed`: entries consumed in total; None where the holder died."""
        self._buffer.detach(holder, consumed)
        self._returning.pop(holder, None)
        self._handover.forget(holder)
        self._serving.flush_soon()
