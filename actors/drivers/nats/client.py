"""nats-py's client, which one message that it cannot parse does not stop.

As it comes, its reading loop ends without a word at any exception of its parser: the connection is open then
and hears nothing any more. Here a message with damaged headers is delivered without them, and one whose
subject is no UTF-8 with marks in place of the strange bytes. Whatever else cannot be parsed ends the link.

These are private names of nats-py; tests/unit/drivers/nats tells when an update has others.
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

# A server takes subjects with a form feed or a vertical tab in them. nats-py's own expressions take those for
# the end of the word, and then the message for no message at all.
_WORD, _GAP = rb"([^ \t\r\n]+)", rb"[ \t]+"
_TO = _GAP + _WORD + _GAP + _WORD + _GAP + rb"(" + _WORD + _GAP + rb")?"
parser.MSG_RE = re.compile(rb"\AMSG" + _TO + rb"(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _TO + rb"(\d+)" + _GAP + rb"(\d+)\r\n")


class GuardedClient(Client):
    """`damaged` is called with what is wrong with a message that is delivered all the same."""

    def __init__(self, damaged: Callable[[str], None], transport: LinkTransport) -> None:
        """`transport` is the way to the server; nats-py makes none of its own."""
        super().__init__()
        self._ps = _Parser(self)
        self._transport = self._link = transport
        self._damaged = damaged
        self._flushes: set[asyncio.Future[None]] = set()
        """Round trips under way: nats-py stops to read when the answer to a PING is not waited for."""
        self.unparsed: BaseException | None = None
        """What the parser stumbled over; the link has ended then."""

    async def end_interest(self, subscription: Subscription) -> None:
        """Have the server send no more for it; what is under way still comes, other than after nats-py's
        `unsubscribe`."""
        await self._send_unsubscribe(subscription._id)

    async def send_ping(self) -> None:
        """Send a PING, whose answer nothing waits for."""
        await self._send_ping()

    async def wait_until_seen(self) -> None:
        """Wait until the server has looked at all that was written: a round trip. nats-py's `flush` alone
        sends its PING before what is still pending."""
        while self.pending_data_size and not self.is_closed:
            await self._link.drain()
            await asyncio.sleep(0)
        # In a task of its own, which goes on when the caller gives up.
        flush = asyncio.ensure_future(self.flush(_NEVER_S))
        self._flushes.add(flush)
        flush.add_done_callback(self._note_flushed)
        await asyncio.shield(flush)

    def cancel_round_trips(self) -> None:
        """The link is over: no answer will come."""
        for flush in self._flushes:
            flush.cancel()

    def _note_flushed(self, flush: asyncio.Future[None]) -> None:
        self._flushes.discard(flush)
        if not flush.cancelled():
            flush.exception()  # a caller that still waits has it

    async def _process_headers(self, headers: Any) -> Any:
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
    """Every error is one of the protocol, which nats-py tells of; at any other one it only stops."""

    async def parse(self, data: bytes = b"") -> None:
        try:
            await super().parse(data)
        except (nats.errors.ProtocolError, OSError, asyncio.CancelledError) as error:
            self.nc.unparsed = error if isinstance(error, nats.errors.ProtocolError) else None
            raise
        except Exception as error:
            self.nc.unparsed = error
            raise nats.errors.ProtocolError from error
