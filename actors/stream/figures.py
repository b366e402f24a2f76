"""The figures of a stream: counters beside those of the buffer, the ledger, `stats()`, the bequest.

The figures of a connection go on when its worker is replaced: `Figures` adds the figures of the
former workers.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from trunkline.actors.driver import StreamDriver
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.current import CurrentLink
from trunkline.actors.stream.handover import Handover
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.link import LinkLife
from trunkline.wire.stats import Stats

__all__ = ["Counters", "Figures"]


class Counters:
    """Counters of a stream's parts since this worker began. Each part changes its own counters."""

    __slots__ = (
        "bytes_in", "bytes_out", "data_at", "dropped_early", "dropped_elsewhere", "errors", "last_error",
        "last_message_at", "messages_out", "opened_at", "redelivered",
    )  # fmt: skip

    def __init__(self, base: Stats) -> None:
        """`base`: the figures of the former workers."""
        self.bytes_in = self.bytes_out = self.messages_out = 0
        self.errors = self.redelivered = 0
        self.dropped_elsewhere = 0
        """Messages that were lost before they reached the buffer."""
        self.dropped_early = 0
        """The part of `dropped_elsewhere` that came before the link counted as open."""
        self.data_at = 0.0
        """When the link opened or the last message came: seconds of the monotonic clock."""
        self.opened_at = 0.0
        """When the first link of this worker opened, wall clock seconds; 0 before."""
        self.last_error: str | None = base.last_error
        self.last_message_at: float | None = base.last_message_at


class Figures:
    """Adds up the counters for the ledger and for `stats()`."""

    def __init__(
        self,
        host: Host,
        driver_class: type[StreamDriver],
        buffer: Buffer,
        counters: Counters,
        handover: Handover,
        life: LinkLife,
        current: CurrentLink,
        base: Stats,
    ) -> None:
        """`base`: the figures of the former workers."""
        self._host = host
        self._driver_class = driver_class
        self._buffer = buffer
        self._counters = counters
        self._handover = handover
        self._life = life
        self._current = current
        self._base = base
        self._bequest = host.inherited()
        self._comes_again = driver_class.redelivers(host.address)

    def note(self) -> None:
        """Write the counters into the ledger, where they outlive this process."""
        # Runs at each flush and each write, so this method must stay cheap.
        ledger = self._host.ledger
        if ledger is None:
            return
        base, buffer, counters, again = self._base, self._buffer, self._counters, self._comes_again
        settled = self._handover.settled
        given = self._handover.given.copy()
        queued = buffer.unread
        for holder in buffer.holders.values():
            queued -= holder.out
            given[holder.id] = given.get(holder.id, 0) + holder.read + holder.out
        ledger.write(
            (
                base.messages_in + buffer.received + counters.dropped_elsewhere,
                base.bytes_in + counters.bytes_in,
                base.messages_out + counters.messages_out,
                base.bytes_out + counters.bytes_out,
                base.read + buffer.read + settled,
                base.dropped
                + buffer.dropped
                + counters.dropped_elsewhere
                - (0 if again else settled),
                base.skipped + buffer.skipped,
                queued,
                buffer.unread,
                base.outages + buffer.news.outages,
                base.reconnects + self._life.reconnects,
                base.errors + counters.errors,
                base.peak if base.peak > buffer.peak else buffer.peak,
                base.returned - (settled if again else 0),
                base.redelivered + counters.redelivered,
            ),
            given,
        )

    def bequest(self) -> dict[str, Any]:
        """Values for the drivers of the next worker, in case this worker is killed."""
        link = self._current.link
        if link is not None:
            # The heartbeat carries the bequest. An error of a driver must not end the heartbeat.
            with contextlib.suppress(Exception):
                self._bequest = link.driver.bequeath()
        return self._bequest

    def stats(self) -> Stats:
        """The figures of the connection now."""
        base, buffer, counters, again = self._base, self._buffer, self._counters, self._comes_again
        host, settled, link = self._host, self._handover.settled, self._current.link
        return Stats(
            id=str(host.record["number"]),
            scheme=host.address.scheme,
            lost_is_none=self._driver_class.lost_is_none,
            comes_again=again,
            acknowledges=self._driver_class.acknowledges(host.address),
            peer=host.address.display,
            state=self._life.state.value,
            pid=os.getpid(),
            incarnation=host.incarnation,
            opened_at=counters.opened_at or base.opened_at,
            messages_in=base.messages_in + buffer.received + counters.dropped_elsewhere,
            bytes_in=base.bytes_in + counters.bytes_in,
            messages_out=base.messages_out + counters.messages_out,
            bytes_out=base.bytes_out + counters.bytes_out,
            read=base.read + buffer.read + settled,
            buffered=buffer.unread,
            queued=buffer.queued,
            peak=max(base.peak, buffer.peak),
            dropped=base.dropped
            + buffer.dropped
            + counters.dropped_elsewhere
            - (0 if again else settled),
            skipped=base.skipped + buffer.skipped,
            returned=base.returned - (settled if again else 0),
            redelivered=base.redelivered + counters.redelivered,
            lag=link.driver.lag() if link is not None else None,
            errors=base.errors + counters.errors,
            reconnects=base.reconnects + self._life.reconnects,
            outages=base.outages + buffer.news.outages,
            holders=len(host.holders),
            last_error=counters.last_error,
            last_message_at=counters.last_message_at,
        )
