"""nats-py's client, made to survive messages that it cannot parse.

The reading loop of nats-py ends silently at any exception of its parser. The connection stays open
and receives no more messages. `GuardedClient` delivers a message with damaged headers without
headers. A subject that is not UTF-8 gets replacement characters. Any further parse error ends the
link.

This module overrides private names of nats-py. The tests in tests/unit/drivers/nats fail when an
update of nats-py has renamed a name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol import parser

from trunkline.actors.drivers.nats.transport import LinkTransport

__all__ = ["GuardedClient"]

_NEVER_S = 10**6

# Servers accept subjects that contain a form feed or a vertical tab. nats-py's own expressions take
# these letters for the end of a word, and then do not recognise the message. So the two expressions
# are replaced for the whole process, which is a worker of a single connection.
_WORD, _GAP = rb"([^ \t\r\n]+)", rb"[ \t]+"
_TO = _GAP + _WORD + _GAP + _WORD + _GAP + rb"(" + _WORD + _GAP + rb")?"
parser.MSG_RE = re.compile(rb"\AMSG" + _TO + rb"(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _TO + rb"(\d+)" + _GAP + rb"(\d+)\r\n")


class GuardedClient(Client):
    """A nats-py client that goes on after damaged messages and counts its own round trips."""

    def __init__(self, damaged: Callable[[str], None], transport: LinkTransport) -> None:
        """Make a client that is not connected yet.

        `damaged`: callback for a message that is delivered although a part of the message is
        damaged; the argument says in words which part. `transport`: the way to the server, used
        instead of a transport of nats-py's own.
        """
        super().__init__()
        self._ps = _Parser(self)
        self._transport = self._link = transport
        self._damaged = damaged
        self._flushes: set[asyncio.Future[None]] = set()
        """Round trips under way. They are tasks because nats-py's reading loop stops when the
        caller of `flush` is cancelled before the PONG has arrived.
        """
        self.unparsed: BaseException | None = None
        """The parse error that has ended the link, or None."""

    async def end_interest(self, subscription: Subscription) -> None:
        """Tell the server to end the subscription.

        Messages under way are still delivered. nats-py's `unsubscribe` would discard such messages.
        """
        await self._send_unsubscribe(subscription._id)

    async def send_ping(self) -> None:
        """Send a PING without waiting for the PONG."""
        await self._send_ping()

    async def wait_until_seen(self) -> None:
        """Wait until the server has processed the bytes written so far: one round trip.

        nats-py's `flush` alone is not enough: the PING would go out before the pending bytes.
        """
        while self.pending_data_size and not self.is_closed:
            await self._link.drain()
            await asyncio.sleep(0)
        # The round trip runs in a task of its own. The task goes on when the caller is cancelled.
        flush = asyncio.ensure_future(self.flush(_NEVER_S))
        self._flushes.add(flush)
        flush.add_done_callback(self._note_flushed)
        await asyncio.shield(flush)

    def cancel_round_trips(self) -> None:
        """Cancel the waiting round trips: the link is over, and no PONG will come."""
        for flush in self._flushes:
            flush.cancel()

    def _note_flushed(self, flush: asyncio.Future[None]) -> None:
        self._flushes.discard(flush)
        if not flush.cancelled():
            flush.exception()  # marks the error as seen; a waiting caller gets it

    async def _process_headers(self, headers: Any) -> Any:
        """Read the headers of a message; None for damaged ones."""
        if not headers:
            return None
        try:
            return await super()._process_headers(headers)
        except (ValueError, LookupError):
            self._damaged("a message came with damaged headers; it is delivered without them")
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:
        """Make the message; a subject that is not UTF-8 gets replacement characters."""
        try:
            to, back = subject.decode(), reply.decode()
        except UnicodeDecodeError:
            self._damaged(
                "a message came with a subject that is not UTF-8; the strange bytes are replaced"
            )
            to = subject.decode(errors="replace")
            back = reply.decode(errors="replace")
        return self.msg_class(
            subject=to, reply=back, data=data, headers=headers, _client=self, _sid=sid
        )


class _Parser(parser.Parser):
    """A parser that turns every exception into a protocol error: nats-py reports only those."""

    async def parse(self, data: bytes = b"") -> None:
        """Parse bytes; note an error that ends the link."""
        try:
            await super().parse(data)
        except (nats.errors.ProtocolError, OSError, asyncio.CancelledError) as error:
            self.nc.unparsed = error if isinstance(error, nats.errors.ProtocolError) else None
            raise
        except Exception as error:
            self.nc.unparsed = error
            raise nats.errors.ProtocolError from error
