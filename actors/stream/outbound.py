"""Messages to the peer: payloads, keepalives, writes and requests.

A message goes out by its deadline, at the pace of option `limit`, compressed by option `compress`.
All methods run on the worker's event loop. A lock lets one write after the other reach the driver,
so that the pieces of two messages cannot mix. A driver that waits for confirmations has no lock:
there the writes wait at the same time, and the driver keeps their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from trunkline.actors.driver import Delivery, StreamDriver
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.compression import Codec
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.actors.stream.figures import Counters, Figures
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.inbound import Inbound
from trunkline.actors.stream.pace import pace_of
from trunkline.actors.stream.words import LinkWords
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    DialTimeout,
    OperationTimeout,
    TrunklineError,
    Unsupported,
    to_wire,
)
from trunkline.wire import values
from trunkline.wire.envelope import Kind, header
from trunkline.wire.outgoing import Outgoing

__all__ = ["Outbound"]

PAYLOAD_S = 10.0
"""Seconds that the peer has to take one payload."""
DRIVER_S = 0.2
"""Seconds after the deadline that a driver has to end a write or a request by itself."""
_ARGUMENTS = {"correlation": "correlation_id", "answers": "an answer", "null": "no value (None)"}
"""Names of `Outgoing` fields for users, where these differ from the field names."""


class Outbound:
    """Writes to the present link."""

    def __init__(
        self,
        host: Host,
        driver_class: type[StreamDriver],
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        figures: Figures,
        inbound: Inbound,
        words: LinkWords,
        codec: Codec | None,
    ) -> None:
        """`codec`: the codec by option `compress`; None without the option."""
        self._host = host
        self._address = host.address
        self._addressing = driver_class.addressing
        self._buffer = buffer
        self._current = current
        self._counters = counters
        self._figures = figures
        self._inbound = inbound
        self._words = words
        self._codec = codec
        self._pace = pace_of(self._address.option("limit"))
        self._write_lock = asyncio.Lock()

    def write_at_once(self, sender: bytes, request_id: int, body: bytes, text: bool) -> bool:
        """Write and answer the sender at once, without a task, where the driver need not wait.

        False where the caller has to use `write`: the write may wait, or failed without an error
        that is worded for users."""
        link = self._current.link
        if (
            link is None
            or self._pace is not None
            or self._codec is not None
            or self._write_lock.locked()
            or link.driver.would_wait(len(body))
        ):
            return False
        try:
            sent = _run(link.driver.send(body.decode() if text else body, Deadline(0)))
        except TrunklineError as error:  # first: some of these are OSErrors too
            self._host.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))
            return True
        except (OSError, EOFError, UnicodeDecodeError):
            return False
        self._count_sent(sent)
        self._host.mailbox.send(sender, header(Kind.REPLY, request_id), values.pack(sent))
        return True

    async def write(self, body: bytes, deadline: Deadline, text: bool, packed: bytes) -> int:
        """Write one message and return the number of bytes taken.

        `text`: `body` goes out as str. `packed`: a packed `Outgoing` with the envelope, or b"".
        Raises BrokenError without a link, OperationTimeout at the deadline, Unsupported for an
        envelope without a place in the protocol."""
        data: str | bytes = body.decode() if text else body
        outgoing = self._unpack_outgoing(packed) if packed else None
        link = self._current.link
        if link is None:
            raise self._link_down("nothing was written")
        if deadline.expired():
            raise OperationTimeout(
                "the data was longer on its way to the worker than the time allowed"
            )
        if not await self._take_turn(deadline):
            raise self._no_turn()
        try:
            # The driver keeps the deadline itself, because the driver alone knows how many bytes
            # were taken by then. The timeout is for a driver that hangs.
            async with asyncio.timeout(deadline.left() + DRIVER_S):
                sent = await self.transmit(link, data, deadline, outgoing)
        except TrunklineError:
            raise
        except TimeoutError:
            sent = 0
        if not sent and len(data):
            raise OperationTimeout(
                f"{self._address.display} did not take the data in the time allowed"
            )
        return sent

    async def request(self, body: bytes, deadline: Deadline, text: bool) -> str | bytes:
        """Send a request and return the peer's answer. BrokenError or OperationTimeout."""
        answer = await self._ask(body.decode() if text else body, deadline)
        return self._inbound.in_form((answer.data,))[0]

    async def send_payloads(self, link: Link) -> None:
        """Send the messages of option `payload` over a link that does not count as open yet."""
        payloads: tuple[str, ...] = tuple(self._address.option("payload") or ())
        for index, payload in enumerate(payloads):
            if index:
                await asyncio.sleep(int(self._address.option("payloadInterval")) / 1000)
            await self._take_turn(Deadline(None))
            deadline = Deadline(PAYLOAD_S)
            data = self._codec.outgoing(payload) if self._codec else payload
            async with asyncio.timeout(PAYLOAD_S):
                sent = await link.driver.send(data, deadline)
            if not sent and payload:
                raise DialTimeout(
                    f"{self._address.display} did not take the payload within {PAYLOAD_S:.0f} s"
                )
            self._count_sent(sent)

    async def send_keepalive(self, link: Link, text: str, seconds: float) -> None:
        """Send a keepalive that is a message, unless option `limit` gives no turn in `seconds`."""
        deadline = Deadline(seconds)
        if await self._take_turn(deadline):
            await self.transmit(link, text, deadline)

    async def transmit(
        self, link: Link, data: str | bytes, deadline: Deadline, outgoing: Outgoing | None = None
    ) -> int:
        """Hand a message to the driver and return the bytes taken, counted before compression."""
        packed = self._codec.outgoing(data) if self._codec else data
        # Where a driver waits for the confirmation of each write, writes must not wait in line.
        async with contextlib.nullcontext() if link.driver.confirms else self._write_lock:
            # The link may have been lost while this write waited for the lock.
            if link is not self._current.link:
                raise self._link_down("nothing was written")
            try:
                if outgoing is None:
                    sent = await link.driver.send(packed, deadline)
                else:
                    sent = await link.driver.send_to(
                        None if outgoing.null else packed, outgoing, deadline
                    )
            except TrunklineError:
                raise
            except (OSError, EOFError) as error:
                raise self._link_broke(error) from None
        # The caller's data counts, not its compressed form.
        if packed is not data and sent:
            sent = len(data.encode() if isinstance(data, str) else data)
        self._count_sent(sent)
        return sent

    def _unpack_outgoing(self, packed: bytes) -> Outgoing:
        """Unpack the envelope of a write. Unsupported where the scheme has no place for a field."""
        outgoing = Outgoing.unpack(packed)
        takes = self._addressing
        missing = outgoing.fields() - takes
        if missing:
            names = ", ".join(sorted(_ARGUMENTS.get(name, name) for name in missing))
            known = ", ".join(sorted(_ARGUMENTS.get(name, name) for name in takes))
            raise Unsupported(
                f"{self._address.scheme}:// writes no message with {names} of its own"
                + (f"; it takes {known}" if known else ": say it in the address")
            )
        return outgoing

    async def _ask(self, data: str | bytes, deadline: Deadline) -> Delivery:
        """Have the driver send a request, and return the decompressed answer."""
        link = self._current.link
        if link is None:
            raise self._link_down("nothing was asked")
        if not await self._take_turn(deadline):
            raise self._no_turn()
        # The link may have been lost during the wait for the turn.
        if link is not self._current.link:
            what = f"the link to {self._address.display} was lost; nothing was asked"
            raise self._words.broken(what, self._buffer.news.cause)
        try:
            async with asyncio.timeout(deadline.left() + DRIVER_S):
                answer = await link.driver.request(
                    self._codec.outgoing(data) if self._codec else data, deadline
                )
        except TrunklineError:
            raise
        except TimeoutError:
            raise OperationTimeout(
                f"{self._address.display} gave no answer in the time allowed"
            ) from None
        except (OSError, EOFError) as error:
            raise self._link_broke(error) from None
        self._count_sent(len(data.encode() if isinstance(data, str) else data))
        if self._codec is None or not self._codec.receives:
            return answer
        plain = self._inbound.unpack(answer.data)
        if plain is None:
            raise BrokenError(f"the answer of {self._address.display} could not be decompressed")
        return answer._replace(data=plain)

    async def _take_turn(self, deadline: Deadline) -> bool:
        """Wait until option `limit` allows the next write. False at the deadline without a turn."""
        if self._pace is None:
            return True
        now = time.monotonic()
        turn = self._pace.reserve(now, now + deadline.left())
        await asyncio.sleep(deadline.left() if turn is None else turn - now)
        # The deadline may have passed even so: this process may have been stopped meanwhile.
        return turn is not None and not deadline.expired()

    def _count_sent(self, count: int) -> None:
        self._counters.messages_out += bool(count)
        self._counters.bytes_out += count
        self._figures.note()

    def _no_turn(self) -> OperationTimeout:
        return OperationTimeout(
            f"no turn came in the time allowed: limit={self._address.option('limit')}"
        )

    def _link_down(self, consequence: str) -> BrokenError:
        what = f"the link to {self._address.display} is down; {consequence}"
        return self._words.broken(what, self._buffer.news.cause)

    def _link_broke(self, error: BaseException) -> BrokenError:
        return self._words.broken(f"the link to {self._address.display} broke", error)


def _run(job: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that does not have to wait, without a task. Returns its result."""
    try:
        job.send(None)
    except StopIteration as end:
        return int(end.value)
    job.close()
    raise RuntimeError("a driver that would not wait has waited")
