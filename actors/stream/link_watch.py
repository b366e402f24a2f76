"""The timers of one link: keepalives (options `ping...`) and the time without data (`idle`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from trunkline.actors.driver import StreamDriver
from trunkline.actors.net.liveness import Keepalive, Quiet, Traffic, answer_time
from trunkline.address import Address
from trunkline.errors import BrokenError, TrunklineError

__all__ = ["LinkWatch"]


class LinkWatch:
    """Sends keepalives over one link and decides when the link counts as lost.

    Runs on the worker's event loop, as tasks of the keeper."""

    def __init__(
        self,
        address: Address,
        driver: StreamDriver,
        *,
        send: Callable[[str, float], Awaitable[object]],
        lost: Callable[[BaseException], None],
        counted: Callable[[], Traffic],
        paused: Callable[[], bool],
        message_at: Callable[[], float],
    ) -> None:
        """The watch calls these functions.

        `send(text, seconds)`: write a keepalive that is a message. `lost(reason)`: end the link.
        `counted()`: the traffic by whole messages. `paused()`: whether the driver is paused now
        because the buffer is full. `message_at()`: `time.monotonic` of the last message."""
        self._address, self._driver = address, driver
        self._send, self._lost, self._counted = send, lost, counted
        self._paused, self._message_at = paused, message_at
        self._sending: asyncio.Task[None] | None = None

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Coroutines to run while the link is up, by the options. The caller cancels them after."""
        jobs = []
        if self._address.option("pingInterval"):
            jobs.append(self._keep_alive(int(self._address.option("pingInterval")) / 1000))
        if self._address.option("idle"):
            jobs.append(self._watch_data(int(self._address.option("idle")) / 1000))
        return jobs

    def unsaid(self) -> str | None:
        """Why a given `pingMessage` will never be sent; None where it is sent, or is not given."""
        option = self._address.option
        if not option("pingMessage"):
            return None
        if not option("pingInterval"):
            return "pingMessage= is not sent: give pingInterval= beside it"
        if self._text() is None:
            return "pingMessage= is not sent, for the protocol's own pings carry no text: give pingType=text"
        return None

    def _traffic(self) -> Traffic:
        return self._driver.traffic() or self._counted()

    def _text(self) -> str | None:
        """The text of a keepalive that is a message; None for the protocol's own ping."""
        option = self._address.option
        # Where the protocol has no ping of its own, the message is the only keepalive there is.
        bare = type(self._driver).ping is StreamDriver.ping and option("pingMessage")
        return (
            str(option("pingMessage") or "ping") if option("pingType") == "text" or bare else None
        )

    async def _keep_alive(self, every_s: float) -> None:
        """Send a keepalive every `every_s` seconds, and end the link when the peer stays silent."""
        text = self._text()
        answer_s = answer_time(
            every_s, self._address.options.get("pingTimeout"), control=text is None
        )
        if text is None and self._driver.traffic() is None:
            answer_s = None  # the driver checks the answers to its pings itself
        alive = Keepalive(answer_s)
        next_at = time.monotonic() + every_s
        try:
            while True:
                await asyncio.sleep(max(0.0, min(next_at, alive.due()) - time.monotonic()))
                now = time.monotonic()
                # While the driver is paused, the peer's answers are not read: no judgement.
                if self._paused():
                    alive.excuse()
                elif alive.look(now, self._traffic()):
                    self._lost(_silence(answer_s or 0.0))
                    return
                if now >= next_at:
                    next_at = now + every_s
                    if not await self._ask(text, every_s):
                        return
                    if not self._paused():
                        alive.asked(time.monotonic(), self._traffic())
        finally:
            if self._sending is not None:
                self._sending.cancel()

    async def _ask(self, text: str | None, every_s: float) -> bool:
        """Send a keepalive, unless one still waits to be sent. False when the link broke."""
        # A text keepalive goes out in a task of its own: a write may wait, and meanwhile the caller
        # must go on to look for signs of life.
        try:
            if text is None:
                await self._driver.ping()
            elif self._sending is None or self._sending.done():
                self._sending = asyncio.create_task(self._send_text(text, every_s))
        except (OSError, TrunklineError) as error:
            self._lost(error)
            return False
        return True

    async def _send_text(self, text: str, every_s: float) -> None:
        """Write one text keepalive. Gives up when the next keepalive is due."""
        try:
            async with asyncio.timeout(every_s):
                await self._send(text, every_s)
        except TimeoutError:
            pass  # not taken or not confirmed in time: whether the peer answers decides
        except (OSError, BrokenError) as error:
            self._lost(error)
        except TrunklineError as error:
            self._driver.sink.warn(f"the keepalive was refused: {error}")

    async def _watch_data(self, limit_s: float) -> None:
        """End the link after `limit_s` seconds without data (option `idle`)."""
        quiet = Quiet(limit_s, time.monotonic())
        while True:
            now = time.monotonic()
            if self._paused():
                quiet.excuse(now)
            traffic = self._driver.traffic()
            if quiet.look(now, self._message_at(), traffic.data if traffic is not None else None):
                self._lost(TimeoutError(f"no data for {limit_s * 1000:.0f} ms (option idle)"))
                return
            await asyncio.sleep(max(0.001, quiet.left(now)))


def _silence(answer_s: float) -> TimeoutError:
    return TimeoutError(
        f"nothing came from the peer for {answer_s:.3g} s after a ping; the link is lost"
    )
