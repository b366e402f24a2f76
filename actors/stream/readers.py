"""The holders as they come, come back under another name, and leave.

A holder is served when two messages have come: the broker's word that there is such a holder (`attach`), and
the holder's own START, by its pipe or through the router (`start`). They come by different ways, in either
order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.handover import Handover
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.serving import Serving

__all__ = ["Readers"]


class _Former(NamedTuple):
    """A holder as another worker or broker knew it: arguments of `Buffer.replace`."""

    old: bytes
    epoch: int
    consumed: int
    kept: list[Any]


class _Early(NamedTuple):
    """What a holder has said in its START, before the broker has introduced the holder."""

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
        self._returning: dict[bytes, _Former] = {}
        """Holders that a former worker had and that have yet to say START here."""

    def attach(self, holder: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]) -> None:
        """The broker says that there is a further holder; it is served when it says START. `old`: its name
        with the broker or the worker before; b"" for a new holder. The rest is as in `Buffer.replace`."""
        if old:
            self._attach_again(holder, _Former(old, epoch, consumed, kept))
        elif holder in self._early:
            early = self._early.pop(holder)
            self._buffer.attach(holder, down=early.down, envelopes=early.envelopes)
        self._serving.flush_soon()

    def _attach_again(self, holder: bytes, former: _Former) -> None:
        self._handover.rename(former.old, holder)
        self._returning.pop(former.old, None)
        early = self._early.pop(holder, None)
        if former.old in self._buffer.holders:
            self._buffer.replace(former.old, holder, former.epoch, former.consumed, former.kept)
        elif early is not None:
            self._replace(holder, former, early)
        else:  # the way by which it can be reached is not known before its START
            self._returning[holder] = former

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """A holder says START. `down`: it takes the link to be down. `had`: how many messages it had of the
        workers before this one. `envelopes`: it wants them."""
        if (
            holder in self._buffer.holders
        ):  # it has another name or another pipe, and waits for our word
            self._serving.welcome(holder)
        self.serve(holder, down, had, envelopes)

    def serve(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """The same of a holder whose START may have been sent before this worker was there."""
        self._handover.settle(holder, had)
        if holder in self._buffer.holders:
            return
        returning = self._returning.pop(holder, None)
        if holder not in self._host.holders:
            self._early[holder] = _Early(down, envelopes)
        elif returning is not None:
            self._replace(holder, returning, _Early(down, envelopes))
            self._serving.flush_soon()
        else:
            self._buffer.attach(holder, down=down, envelopes=envelopes)
            self._serving.flush_soon()

    def _replace(self, holder: bytes, former: _Former, said: _Early) -> None:
        """A holder that another worker or broker knew before can be reached here now."""
        old, epoch, consumed, kept = former
        self._buffer.replace(
            old, holder, epoch, consumed, kept, down=said.down, envelopes=said.envelopes
        )

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """A holder has left; `consumed`: how many entries it has consumed, None where it has died."""
        self._buffer.detach(holder, consumed)
        self._returning.pop(holder, None)
        self._handover.forget(holder)
        self._serving.flush_soon()
