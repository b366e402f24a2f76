"""WebSocket (`ws`, `wss`): one driver over two engines.

picows (extra `fast`) is used where it can be imported, otherwise websocket-client, which is always
installed. The variable `TRUNKLINE_WS_ENGINE` forces one of them. The engines share modules without
I/O: `messages` (the receiving rules), `request` and `handshake` (the opening handshake), `deflate`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar

from trunkline.actors.driver import Ending, FatalError, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.ws.link import Link, gone
from trunkline.actors.drivers.ws.messages import GOING_AWAY, NORMAL
from trunkline.actors.drivers.ws.request import Redirect, Target, redirected, target_of
from trunkline.actors.net import dialer, tls
from trunkline.actors.net.liveness import Traffic
from trunkline.address import Address
from trunkline.address.host import without_zone
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

__all__ = ["ENGINES", "WsDriver", "choose_engine"]

ENGINES = {
    "picows": ("picows", "trunkline.actors.drivers.ws.picows:PicowsLink"),
    "websocket-client": ("websocket", "trunkline.actors.drivers.ws.client:ClientLink"),
}
_MAX_REDIRECTS = 5


def choose_engine(name: str | None = None) -> str:
    """Return the name of the engine: the given one, `TRUNKLINE_WS_ENGINE`, or the fastest installed
    one.
    """
    wanted = name or os.environ.get("TRUNKLINE_WS_ENGINE")
    if wanted and wanted not in ENGINES:
        raise FatalError(f"TRUNKLINE_WS_ENGINE={wanted}: the engines are {' and '.join(ENGINES)}")
    if wanted and find_spec(ENGINES[wanted][0]) is None:
        raise FatalError(f"the engine {wanted} is not installed; pip install 'trunkline[fast]'")
    return wanted or next(name for name, (module, _) in ENGINES.items() if find_spec(module))


def _engine(name: str) -> type[Link]:
    """Import an engine and return its class."""
    module, _, attribute = ENGINES[name][1].partition(":")
    found: type[Link] = getattr(import_module(module), attribute)
    return found


class WsDriver(StreamDriver):
    """One WebSocket link.

    Text messages are `str` (`bytes` where they are not UTF-8), binary messages `bytes`.
    """

    schemes: ClassVar[tuple[str, ...]] = ("ws", "wss")
    overflow: ClassVar[Overflow] = Overflow.DROP_OLDEST

    def __init__(self, address: Address, sink: Sink, engine: str | None = None) -> None:
        super().__init__(address, sink)
        self._engine = engine
        self._link: Link | None = None
        self._over = False
        """Whether the link has ended, or is being closed here."""
        self._opened = False
        """Whether a handshake has succeeded. Only then a loss is reported to the sink at once."""
        self._early: list[BaseException | None] = []
        """Losses during the present attempt, reported when its handshake succeeds."""
        self._reading = True
        """Whether messages are wanted; False between `pause` and `resume`."""
        self._reason: BaseException | None = None
        """Why the link has ended, for later sends."""

    async def open(self, deadline: Deadline) -> None:
        """Make the handshake, and follow up to five redirects."""
        target = target_of(self.address)
        if target.ignored:
            self.warn(
                f"headers: {', '.join(target.ignored)} left out, the handshake sets them itself"
            )
        for hop in range(_MAX_REDIRECTS + 1):
            try:
                return await self._attempt(target, deadline)
            except Redirect as redirect:
                target = redirected(target, redirect.location)
            except DialError as error:
                if hop and target.peer != self.peer:
                    error.args = (f"after a redirect of {self.peer}: {error}",)
                raise
        raise FatalError(
            f"{self.peer} redirects more than {_MAX_REDIRECTS} times; check the address"
        )

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        if self._over or self._link is None:
            raise gone(self._reason)
        return await self._link.send(data, deadline)

    def would_wait(self, size: int) -> bool:
        return self._link is None or self._link.would_wait(size)

    async def close(self) -> None:
        await self.end(Ending.CLOSED)

    async def end(self, ending: Ending) -> None:
        """Close the link: code 1001 for a program that died or never called `close`, otherwise
        1000.
        """
        self._end()
        if self._link is not None:
            await self._link.close(GOING_AWAY if ending is Ending.ABANDONED else NORMAL)

    def pause(self) -> None:
        self._reading = False
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        self._reading = True
        if self._link is not None:
            self._link.resume()

    async def ping(self) -> None:
        if not self._over and self._link is not None:
            self._link.ping()

    def traffic(self) -> Traffic:
        return self._link.traffic() if self._link is not None else Traffic(0)

    # Reports of the link (`link.Owner`).

    def delivered(self, batch: Sequence[str | bytes]) -> None:
        if not self._over:
            self.sink.messages(batch)

    def ended(self, reason: BaseException | None) -> None:
        """Report the end of the link, once; before the link was open, leave it to `_attempt`."""
        if not self._opened:
            self._early.append(reason)  # for `_attempt`: no link was open before
        elif not self._over:
            self._reason = reason
            self._end()
            self.sink.lost(reason)

    def warn(self, text: str) -> None:
        self.sink.warn(text)

    async def _attempt(self, target: Target, deadline: Deadline) -> None:
        """Connect to one target. A failure closes the connection again."""
        context: ssl.SSLContext | None = None
        if target.secure:
            context = await dialer.run_in_thread(lambda: tls.client_context(self.address))
        sock = await dialer.open_connection(
            self.address, deadline, host=target.host, port=target.port
        )
        link = self._link = self._make_link()
        self._early.clear()
        try:
            async with dialer.within(
                deadline, f"{target.peer} did not answer the WebSocket handshake"
            ):
                await link.connect(
                    sock,
                    target,
                    deadline,
                    context=context,
                    hostname=self._hostname(target),
                    deflate=bool(self.address.option("enableCompression")),
                )
        except BaseException as error:
            self._link = None
            with contextlib.suppress(Exception):
                await asyncio.shield(link.close())
            if target.secure and not link.secured and isinstance(error, DialTimeout):
                text = f"no TLS answer from {target.peer} (does this port serve TLS?) in the time allowed"
                raise DialTimeout(text) from None
            raise
        self._opened = True
        if not self._reading:
            link.pause()
        for reason in self._early:
            asyncio.get_running_loop().call_soon(self.ended, reason)

    def _make_link(self) -> Link:
        """Return a link of the chosen engine."""
        strict_text = self.address.option("decode") == "text"
        make = _engine(choose_engine(self._engine))
        return make(self, int(self.address.option("max_size")), strict_text=strict_text)

    def _hostname(self, target: Target) -> str:
        """Return the name for TLS.

        `servername` applies to the address's own host, and not to a redirect's.
        """
        if target.host == self.address.host:
            return tls.server_hostname(self.address)
        return without_zone(target.host)

    def _end(self) -> None:
        self._over = True


# Imported with the driver, so the zygote has the engine before it forks.
with contextlib.suppress(FatalError, ImportError):
    _engine(choose_engine())
