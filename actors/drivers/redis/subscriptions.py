"""Reading channels: one connection subscribes, and the server sends what is published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunkline.actors.driver import Delivery, Sink
from trunkline.actors.drivers.redis.line import Line, Reply
from trunkline.actors.drivers.redis.patterns import brings, pattern_regex

__all__ = ["Subscriptions"]


class Subscriptions:
    """The reading half of a link that reads channels.

    Messages of one read of the socket are handed over together.
    """

    def __init__(
        self,
        line: Line,
        channels: Sequence[str],
        patterns: Sequence[str],
        largest: int,
        sink: Sink,
        ended: Callable[[BaseException], None],
    ) -> None:
        self._line, self._sink, self._ended, self._largest = line, sink, ended, largest
        self._channels = [name.encode() for name in channels]
        self._patterns = [name.encode() for name in patterns]
        self._exact = frozenset(self._channels)
        self._matchers = [pattern_regex(pattern) for pattern in self._patterns]
        self._missing = len(self._channels) + len(self._patterns)
        """How many subscriptions the server has not confirmed yet."""
        self._in_force: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batch: list[Delivery] = []

    async def open(self) -> None:
        """Subscribe, and return when every subscription is in force.

        Raises one of `REPLIES` where a subscription was refused, ConnectionError where the link
        ended.
        """
        self._line.listen(self._taken, self._over)
        if self._channels:
            self._line.write("SUBSCRIBE", *self._channels)
        if self._patterns:
            self._line.write("PSUBSCRIBE", *self._patterns)
        await self._in_force

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._line.write("PING")

    async def close(self) -> None:
        await self._line.close()
        self._in_force.cancel()

    def _over(self, reason: BaseException) -> None:
        """Report the end of the connection: to `open` while it waits, otherwise to the driver."""
        if self._in_force.done():
            self._ended(reason)
        else:
            self._in_force.set_exception(reason)

    def _taken(self, reply: Reply) -> None:
        """Handle one push of the server: a message, or the confirmation of a subscription."""
        if isinstance(reply, Exception):
            if not self._in_force.done():
                self._in_force.set_exception(reply)
            return
        kind = reply[0] if isinstance(reply, list) else None
        if kind == b"message":
            self._deliver(reply[1], reply[2])
        elif kind == b"pmessage":
            if brings(reply[1], reply[2], self._exact, self._matchers, self._patterns):
                self._deliver(reply[2], reply[3], reply[1])
        elif kind in (b"subscribe", b"psubscribe"):
            self._missing -= 1
            if not self._missing and not self._in_force.done():
                self._in_force.set_result(None)

    def _deliver(self, channel: bytes, data: bytes, pattern: bytes | None = None) -> None:
        """Keep a message for the next hand-over; a too big message is counted as dropped."""
        if len(data) > self._largest:
            self._sink.warn(
                f"a message of {len(data)} bytes was discarded: it is over the option max_size"
            )
            self._sink.dropped(1)
            return
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._hand_over)
        properties = None if pattern is None else {"pattern": pattern.decode(errors="replace")}
        self._batch.append(
            Delivery(data, topic=channel.decode(errors="replace"), properties=properties)
        )

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        self._sink.deliver(batch)
