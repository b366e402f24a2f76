"""Redis (`redis`, `rediss`) on redis-py: pub/sub channels, which deliver at most once, and streams.

A link has two connections to one server. `tells` writes, acknowledges and asks. The other
connection reads: a connection that is subscribed, or waits for entries, can do nothing else. The
neighbours of this module: `plan` (what the address asks for), `line` (a connection),
`subscriptions` and `stream` (the two ways to read), `words` (the server's answers in words for
users). Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from trunkline.actors.driver import Outgoing, Overflow, Sink, StreamDriver
from trunkline.actors.drivers.redis.entries import fields_of
from trunkline.actors.drivers.redis.line import Commands, Line
from trunkline.actors.drivers.redis.plan import Plan, plan_of, sound_headers
from trunkline.actors.drivers.redis.stream import Place, StreamReader
from trunkline.actors.drivers.redis.subscriptions import Subscriptions
from trunkline.actors.drivers.redis.words import REPLIES, code_of, refused_link, refused_message
from trunkline.actors.net import dialer
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.servers import first_that_opens
from trunkline.address import Address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError, Unconfirmed

__all__ = ["RedisDriver"]

_PENDING = 256 * 1024
"""A write waits while more bytes than that are on their way out."""
_LARGEST = 512 * 1024 * 1024
"""The most bytes of a message. A server ends the link for more, unless its proto-max-bulk-len
differs.
"""
_PLACES: dict[int, tuple[Address, Place]] = {}
"""The reading place of each connection, by the identity of its address object.

A driver object lives for one attempt at a link, and the place must live longer. Keeping the
address, too, prevents a new object with the same identity.
"""


class RedisDriver(StreamDriver):
    """A link to a server of the address."""

    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss")
    extra: ClassVar[str | None] = "redis"
    confirms: ClassVar[bool] = True
    addressing: ClassVar[frozenset[str]] = frozenset(("topic", "headers"))

    def __init__(self, address: Address, sink: Sink) -> None:
        super().__init__(address, sink)
        self._plan: Plan | None = None
        self._tells: Commands | None = None
        self._lines: list[Line] = []
        self._reader: StreamReader | None = None
        self._subscriptions: Subscriptions | None = None
        self._turn = asyncio.Lock()
        self._heard: dict[int, int] = {}
        self._rounds = 0
        self._opened = self._over = False

    @classmethod
    def overflow_for(cls, address: Address) -> Overflow:
        return Overflow.BACK_PRESSURE if address.extra.get("streams") else Overflow.DROP_OLDEST

    @classmethod
    def redelivers(cls, address: Address) -> bool:
        """Whether unread messages come again after a crash: a consumer group keeps them."""
        return bool(address.params.get("group"))

    @property
    def peer(self) -> str:
        return self._lines[0].peer if self._lines else super().peer

    # the link

    async def open(self, deadline: Deadline) -> None:
        plan = self._plan = plan_of(self.address)
        await first_that_opens(range(len(plan.servers)), partial(self._attempt, plan), deadline)

    async def _attempt(self, plan: Plan, index: int, deadline: Deadline) -> None:
        """Connect to one server, log in and begin to read.

        A failure closes the connections again.
        """
        try:
            tells = self._tells = Commands(await self._dial(plan, index, deadline), self._lost)
            async with dialer.within(
                deadline, f"{self.peer} took the login and did not answer what follows"
            ):
                await self._check_role(plan, tells)
                await self._begin_reading(plan, index, tells, deadline)
        except BaseException as error:
            await asyncio.shield(self._shut())
            if isinstance(error, REPLIES):
                raise refused_link(error, self.peer, self.address, _reading(plan)) from None
            raise
        self._opened = True
        if self._reader is not None:
            self._reader.start()

    async def _dial(self, plan: Plan, index: int, deadline: Deadline) -> Line:
        """Open one connection to the server and keep it for `close`."""
        line = Line(self.address, plan.servers[index], plan.logins[index], plan.database, plan.name)
        self._lines.append(line)
        await line.dial(deadline)
        return line

    async def _check_role(self, plan: Plan, tells: Commands) -> None:
        """Raise DialError for a replica where writes or acknowledgements are needed.

        Another server may be the primary.
        """
        if plan.write_stream is None and (plan.streams is None or plan.streams.group is None):
            return
        with contextlib.suppress(*REPLIES):  # the user may lack the right to ask
            role = await tells.call("ROLE")
            if role and role[0] == b"slave":
                raise DialError(
                    f"{self.peer} is a replica, which takes no writes: dial the primary, or name both in the "
                    "address",
                    code="READONLY",
                )

    async def _begin_reading(
        self, plan: Plan, index: int, tells: Commands, deadline: Deadline
    ) -> None:
        """Open the reading connection, and subscribe or find the place in the streams."""
        if not plan.reads:
            return
        line = await self._dial(plan, index, deadline)
        if plan.streams is None:
            self._subscriptions = Subscriptions(
                line, plan.channels, plan.patterns, plan.largest, self.sink, self._lost
            )
            await self._subscriptions.open()
            return
        self._reader = StreamReader(
            self.address,
            plan.streams,
            plan.data_field,
            plan.largest,
            Commands(line, self._lost),
            tells,
            self.sink,
            self._place(),
            had_link=self.had_link,
            ended=self._lost,
        )
        await self._reader.open()

    def _place(self) -> Place:
        """Return the place of this connection. A replaced worker's consumer name is taken over."""
        known = _PLACES.get(id(self.address))
        if known is None:
            place = Place()
            if isinstance(consumer := self.inherited.get("consumer"), str):
                place.consumer = consumer
            known = _PLACES[id(self.address)] = (self.address, place)
        return known[1]

    def bequeath(self) -> dict[str, Any]:
        """Return the consumer's name for the next worker, which then gets the unacknowledged
        messages at once.
        """
        return {"consumer": self._place().consumer} if self.address.params.get("group") else {}

    def _lost(self, reason: BaseException) -> None:
        """Report the loss of an open link, once."""
        if self._opened and not self._over:
            self._over = True
            self.sink.lost(reason)

    async def close(self) -> None:
        self._over = True
        await self._shut()

    async def _shut(self) -> None:
        """Close the reader and the connections, in good order if possible."""
        if self._reader is not None:
            await self._reader.close()
        if self._subscriptions is not None:
            await self._subscriptions.close()
        if self._tells is not None:
            await self._tells.close()
        for line in self._lines:
            await line.close()
        self._lines.clear()
        self._reader = self._subscriptions = self._tells = None

    # signs of life

    async def ping(self) -> None:
        """Ask for a sign of life.

        Where a stream is read, the repeated questions for entries serve as pings.
        """
        with contextlib.suppress(ConnectionError):  # the link ends at this moment
            if self._tells is not None and self._tells.line.unsent < _PENDING:
                self._tells.call("PING")
            if self._subscriptions is not None:
                self._subscriptions.ping()

    def traffic(self) -> Traffic | None:
        """Return the figures of the link.

        `received` grows only when bytes have come on every connection of the link since the last
        look: any connection may be dead.
        """
        if not self._lines:
            return None
        each = [line.traffic() for line in self._lines]
        if all(found.received != self._heard.get(index) for index, found in enumerate(each)):
            self._rounds += 1
            self._heard = {index: found.received for index, found in enumerate(each)}
        return Traffic(
            self._rounds, sum(found.sent for found in each), sum(found.waiting for found in each)
        )

    # reading

    def pause(self) -> None:
        if self._reader is not None:
            self._reader.pause()

    def resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()

    def lag(self) -> int | None:
        return self._reader.lag() if self._reader is not None else None

    def settle(self, tokens: Sequence[Any]) -> None:
        if self._reader is not None:
            self._reader.settle(tokens)

    # writing

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Write to the channel or stream of the address; see `_put`."""
        plan = self._living()
        where = plan.write_stream if plan.writes_streams else plan.write_channel
        return await self._put(plan, where, data, plan.headers, deadline)

    async def send_to(
        self, data: str | bytes | None, outgoing: Outgoing, deadline: Deadline
    ) -> int:
        """Write to the message's own channel or stream; see `_put`. Only entries of streams have
        headers.
        """
        plan = self._living()
        headers: Mapping[str, str | bytes] = plan.headers
        if outgoing.headers is not None:
            if not plan.writes_streams:
                raise RefusedError(
                    "a channel's messages have no headers: write without them, or to a stream"
                )
            try:
                headers = sound_headers(outgoing.headers, plan.data_field.decode())
            except ValueError as error:
                raise RefusedError(f"the message cannot be sent: {error}") from None
        own = plan.write_stream if plan.writes_streams else plan.write_channel
        return await self._put(plan, outgoing.topic or own, data or b"", headers, deadline)

    def _living(self) -> Plan:
        """Return the plan of the open link; ConnectionError where there is none."""
        if self._over or self._tells is None or self._plan is None:
            raise ConnectionError("the link is gone")
        return self._plan

    async def _put(
        self,
        plan: Plan,
        where: str | None,
        data: str | bytes,
        headers: Mapping[str, str | bytes],
        deadline: Deadline,
    ) -> int:
        """Write one message, and wait until the server has confirmed it. Returns the size in bytes.

        Returns 0 when the message could not be handed over by the deadline. Raises Unconfirmed when
        the answer does not come by the deadline, and RefusedError when the server does not take the
        message.
        """
        if where is None:
            raise RefusedError(
                "there is no one place to write to; give write_channel= or write_stream="
            )
        payload = data.encode() if isinstance(data, str) else data
        if len(payload) > _LARGEST:
            raise RefusedError(
                f"the message has {len(payload)} bytes; a server takes at most {_LARGEST}"
            )
        words: list[Any] = ["PUBLISH", where, payload]
        if plan.writes_streams:
            bound = [] if plan.maxlen is None else ["MAXLEN", "~", plan.maxlen]
            words = ["XADD", where, *bound, "*", *fields_of(payload, headers, plan.data_field)]
        assert self._tells is not None
        if not await self._room(self._tells, deadline):
            return 0
        answer = self._tells.call(*words)
        kind = "stream" if plan.writes_streams else "channel"
        try:
            async with asyncio.timeout(deadline.timeout()):
                await asyncio.shield(answer)
        except TimeoutError:
            raise Unconfirmed(
                f"{self.peer} did not confirm the message in the time allowed; it may have it"
            ) from None
        except REPLIES as error:
            if code_of(error) in (
                "READONLY",
                "LOADING",
            ):  # perhaps the next link finds another server
                self._lost(refused_link(error, self.peer, self.address))
            raise refused_message(
                error, self.peer, self.address, f"write to {kind} {where}"
            ) from None
        return len(payload)

    async def _room(self, tells: Commands, deadline: Deadline) -> bool:
        """Wait for the turn and for room in the socket.

        Returns False when the deadline came first.
        """
        if tells.line.unsent < _PENDING and not self._turn.locked():
            return True
        try:
            async with asyncio.timeout(deadline.timeout()), self._turn:
                while tells.line.unsent >= _PENDING:
                    await tells.line.drained()
        except TimeoutError:
            return False
        return True


def _reading(plan: Plan) -> str:
    """Return in words what a plan reads, for the text of a refusal."""
    if plan.streams is not None:
        return f"read stream {', '.join(plan.streams.names)}"
    return f"subscribe to {', '.join((*plan.channels, *plan.patterns))}" if plan.reads else ""
