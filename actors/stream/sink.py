"""The sinks of drivers. Early arrivals wait in the sink until the link counts as open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.actors.driver import Delivery, Overflow, StreamDriver
from trunkline.actors.net.peer_words import first_line
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.actors.stream.early import Arrival, EarlyArrivals
from trunkline.actors.stream.figures import Counters
from trunkline.actors.stream.inbound import Inbound
from trunkline.actors.stream.user_log import UserLog
from trunkline.address import Address

__all__ = ["LinkSink", "SinkMaker"]


class LinkSink:
    """The sink of one driver object, from the attempt to dial until the end of the link.

    A peer may send before the link counts as open: answers to the payloads, for example. Early
    arrivals wait in order. Later the sink passes messages of the present link on to the readers,
    and ignores messages that a driver delivers after the loss of its link."""

    def __init__(
        self,
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        inbound: Inbound,
        log: UserLog,
    ) -> None:
        self._buffer = buffer
        self._current = current
        self._counters = counters
        self._inbound = inbound
        self._log = log
        drops = buffer.overflow is Overflow.DROP_OLDEST
        self._early: EarlyArrivals | None = EarlyArrivals(
            buffer.limit, buffer.limit_bytes, drops=drops
        )
        """None once the link counts as open, or has ended."""
        self.link: Link
        """Set by `SinkMaker`, because the driver is made after its sink."""

    def message(self, data: str | bytes) -> None:
        self.messages((data,))

    def messages(self, batch: Sequence[str | bytes]) -> None:
        # A driver may deliver after the loss of its link, when another link is current already.
        if self._early is not None:
            self._keep(Arrival(batch))
        elif self._current.link is self.link:
            self._inbound.receive(self.link, batch)

    def deliver(self, batch: Sequence[Delivery]) -> None:
        if self._early is not None:
            self._keep(Arrival((), batch))
        elif self._current.link is self.link:
            self._inbound.deliver(self.link, batch)

    def lost(self, reason: BaseException | None) -> None:
        self.link.note_end(reason)

    def warn(self, text: str) -> None:
        self._log.warn(text)

    def dropped(self, count: int) -> None:
        self._counters.dropped_elsewhere += count

    def _keep(self, arrival: Arrival) -> None:
        """Keep an early arrival. With back pressure, many arrivals pause the driver."""
        assert self._early is not None
        self._early.add(arrival)
        if self._buffer.overflow is Overflow.BACK_PRESSURE and self._early.is_full:
            self.link.driver.pause()

    def admit(self) -> None:
        """Give the readers the early arrivals, now that the link counts as open."""
        # From here on `messages` and `deliver` pass batches on at once.
        early, self._early = self._early, None
        if early is None:
            return
        paused = self._buffer.overflow is Overflow.BACK_PRESSURE and early.is_full
        self._count_dropped(early.dropped)
        for arrival in early.take():
            if arrival.enveloped:
                self.deliver(arrival.enveloped)
            else:
                self.messages(arrival.plain)
        if paused and not self._buffer.throttled:
            self.link.driver.resume()

    def admit_before_end(self) -> None:
        """Give the readers early arrivals of a link that never counted as open.

        Messages with tokens are left out, because the message broker sends them again."""
        early, self._early = self._early, None
        if early is None:
            return
        self._count_dropped(early.dropped)
        for arrival in early.take():
            once = [each for each in arrival.enveloped if each.token is None]
            if once:
                self.deliver(once)
            elif arrival.plain:
                self.messages(arrival.plain)

    def last_words(self) -> str:
        """The first line of the newest early arrival; "" for none."""
        return "" if self._early is None else first_line(self._early.last())

    def _count_dropped(self, count: int) -> None:
        """Count early arrivals that were dropped at the limits of the buffer."""
        self._counters.dropped_elsewhere += count
        self._counters.dropped_early += count


class SinkMaker:
    """Makes a driver object with its sink for each attempt to dial."""

    def __init__(
        self,
        address: Address,
        driver_class: type[StreamDriver],
        inherited: Mapping[str, Any],
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        inbound: Inbound,
        log: UserLog,
    ) -> None:
        """`inherited`: values that the driver of the former worker has left for the next driver."""
        self._address = address
        self._driver_class = driver_class
        self._inherited = inherited
        self._parts = (buffer, current, counters, inbound, log)
        decode = address.option("decode")
        self._splits = driver_class.byte_stream and decode == "auto"
        self._decodes = driver_class.byte_stream and decode == "text"

    def make(self, *, had_link: bool) -> LinkSink:
        """A new driver with its sink. `had_link`: the connection had a link before."""
        sink = LinkSink(*self._parts)
        driver = self._driver_class(self._address, sink)
        driver.had_link = had_link
        driver.inherited = self._inherited
        sink.link = Link(driver, splits=self._splits, decodes=self._decodes)
        return sink
