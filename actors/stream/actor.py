"""The actor behind every connection that is read and written.

`StreamActor` joins the parts and gives each message of the worker to the part that deals with it:

| part | what it does |
|---|---|
| `LinkLife`, `LinkKeeper` | decide about the link (pure), and open, watch and replace it |
| `Dialling`, `SinkMaker` | one attempt at a link, and the driver with its sink |
| `Inbound`, `Outbound` | messages from the peer, and messages to the peer |
| `Buffer`, `Serving`, `Readers` | decide who gets which entry (pure), send, attach holders |
| `Seeking`, `Settling` | reading on at another place, and acknowledging after the work |
| `Counters`, `Figures`, `Handover` | counters for `stats()`, also across workers |

These parts serve all schemes. A driver adds the rules of its protocol alone. All parts run on the
worker's event loop: between two `await` of one part, no other part runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from trunkline.actors.driver import Ending, StreamDriver
from trunkline.actors.net.backoff import backoff_of
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.compression import codec_of
from trunkline.actors.stream.current import CurrentLink
from trunkline.actors.stream.dialling import Dialling
from trunkline.actors.stream.figures import Counters, Figures
from trunkline.actors.stream.flapping import Flapping
from trunkline.actors.stream.handover import Handover
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.inbound import Inbound
from trunkline.actors.stream.keeper import LinkKeeper
from trunkline.actors.stream.link import LinkLife
from trunkline.actors.stream.outbound import Outbound
from trunkline.actors.stream.readers import Readers
from trunkline.actors.stream.seeking import Seeking
from trunkline.actors.stream.serving import Serving
from trunkline.actors.stream.settling import Settling
from trunkline.actors.stream.sink import SinkMaker
from trunkline.actors.stream.user_log import UserLog
from trunkline.actors.stream.words import LinkWords
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, Unsupported, to_wire
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, Mark, header
from trunkline.wire.place import Place
from trunkline.wire.stats import Stats

__all__ = ["StreamActor"]


class StreamActor:
    """Serves one connection that is read and written: joins the parts and dispatches messages.

    The worker calls the methods (protocol `Actor` in `actors/process/worker.py`)."""

    def __init__(self, host: Host, driver_class: type[StreamDriver]) -> None:
        address = host.address
        option = address.option
        base = host.base_stats()
        current = CurrentLink()
        counters = Counters(base)
        handover = Handover(host.former())
        codec = codec_of(address)
        words = LinkWords(address)
        life = LinkLife(bool(option("reconnect")), backoff_of(address), Flapping())
        buffer = self._buffer = Buffer(
            int(option("buffer")), driver_class.overflow_for(address), int(option("buffer_bytes"))
        )
        if host.succeeds:
            # The broker has told the holders of the loss already, so no mark is queued.
            buffer.news.mark = Mark.DOWN
            # Each loss is followed by one reconnect. Where the former workers counted as many
            # losses as reconnects, the link was up when the last worker died. That loss is counted
            # here.
            buffer.news.outages = max(0, base.reconnects + 1 - base.outages)
            life.take_over(time.monotonic())
        self._host = host
        self._driver_class = driver_class
        figures = self._figures = Figures(
            host, driver_class, buffer, counters, handover, life, current, base
        )
        log = self._log = UserLog(host, buffer, counters)
        serving = self._serving = Serving(host, buffer, current, counters, figures, log)
        inbound = self._inbound = Inbound(host, buffer, current, counters, serving, log, codec)
        outbound = self._outbound = Outbound(
            host, driver_class, buffer, current, counters, figures, inbound, words, codec
        )
        sinks = SinkMaker(
            address, driver_class, host.inherited(), buffer, current, counters, inbound, log
        )
        dialling = Dialling(driver_class, life, sinks, current, inbound, outbound, serving, words)
        self._keeper = LinkKeeper(
            host,
            life,
            buffer,
            current,
            counters,
            figures,
            log,
            words,
            serving,
            inbound,
            outbound,
            dialling,
        )
        self._readers = Readers(host, buffer, handover, serving)
        self._settling = Settling(
            buffer,
            lambda: current.link,
            lambda holder: host.mailbox.hear(holder),
            serving.flush_soon,
        )
        self._seeking = Seeking(buffer, lambda: current.link, self._forget_old_messages)
        self._tasks: set[asyncio.Task[None]] = set()
        """Requests that wait for the peer, the pace or a holder."""

    # life

    async def open(self, deadline: Deadline) -> None:
        """Open the first link by the deadline. Errors are worded for users."""
        await self._keeper.open(deadline)

    async def close(self, ending: Ending) -> None:
        """End the link, and cancel all requests that wait."""
        self._keeper.stop()
        for task in self._tasks:
            task.cancel()
        # Acknowledges the messages that were read until now.
        self._serving.flush()
        await self._keeper.close(ending)

    # holders

    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None:
        """Take the broker's ATTACH of a further holder; see `Readers.attach`."""
        self._readers.attach(holder, old, epoch, consumed, kept)

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """Take a holder's START, which may come before ATTACH; see `Readers.start`."""
        self._readers.start(holder, down, had, envelopes)

    def detach(self, holder: bytes, consumed: int | None) -> None:
        """Remove a holder; see `Readers.detach`."""
        self._readers.detach(holder, consumed)

    def left(self, sender: bytes) -> None:
        """Ignore the end of a caller's socket: a write that has begun goes on, because half a
        message would break the link."""

    # messages

    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None:
        """Handle a message of a holder, or of a thread of the holder's program.

        Messages about reading change the buffer at once. Requests (write, settle, seek, request)
        are answered to `sender`, most of them later by a task of their own."""
        if kind is Kind.ACK:
            self._buffer.ack(*fields)
            self._serving.flush_soon()
        elif kind is Kind.READ:
            ask = messages.Read(*fields)
            # The holder's START may have gone to the former worker, so a READ does the same.
            if ask.holder in self._host.holders:
                self._readers.serve(ask.holder, True, ask.had, ask.envelopes)
            self._buffer.ack(ask.holder, ask.consumed, ask.skipped)
            self._buffer.ask(
                ask.holder,
                ask.number,
                ask.epoch,
                ask.consumed,
                wait=ask.wait,
                newest=ask.newest,
                envelopes=ask.envelopes,
            )
            self._serving.flush()
        elif kind is Kind.CANCEL:
            self._buffer.cancel(*fields)
            self._serving.flush()
        elif kind is Kind.KEEP:
            self._buffer.keep(*fields)
        elif kind is Kind.RECALLED:
            self._buffer.recalled(*fields)
            self._serving.flush()
        elif kind is Kind.WRITE:
            timeout_ms, text, until, addressed = messages.Write(*fields)
            left_ms = self._host.mailbox.left_ms(timeout_ms, until)
            # A write without an envelope goes out here where the driver need not wait: no task.
            may_be_usual = left_ms > 0 and not addressed
            if not (
                may_be_usual and self._outbound.write_at_once(sender, request_id, body[0], text)
            ):
                deadline = Deadline.after_ms(left_ms)
                write = partial(self._outbound.write, body[0], deadline, text, addressed)
                self._answer_later(sender, request_id, write)
        elif kind is Kind.SETTLE:
            self._answer_later(sender, request_id, partial(self._settling.settle, *fields))
        elif kind is Kind.SEEK:
            timeout_ms, until, *place = messages.Seek(*fields)
            left_ms = self._host.mailbox.left_ms(timeout_ms, until)
            self._answer_later(sender, request_id, partial(self._seek, left_ms, place))
        elif kind is Kind.REQUEST:
            timeout_ms, text, until = messages.Request(*fields)
            deadline = Deadline.after_ms(self._host.mailbox.left_ms(timeout_ms, until))
            request = partial(self._outbound.request, body[0], deadline, text)
            self._answer_later(sender, request_id, request)
        else:
            what = "exec" if kind is Kind.EXEC else "this operation"
            scheme = self._host.address.scheme
            self._fail(
                sender, request_id, Unsupported(f"{scheme}:// has no {what}: use read and write")
            )

    async def _seek(self, left_ms: float, fields: list[Any]) -> None:
        address, deadline = self._host.address, Deadline.after_ms(left_ms)
        if left_ms <= 0:
            raise OperationTimeout(
                "the order was longer on its way to the worker than the time allowed"
            )
        if not self._driver_class.seeks:
            raise Unsupported(
                f"{address.scheme}:// has no seek: only kafka keeps messages that were read"
            )
        await self._seeking.seek(Place.from_wire(fields), deadline, address.display)

    def _forget_old_messages(self) -> None:
        """After a seek: forget lost links' messages, and send the buffer's recalls."""
        self._inbound.forget_owed()
        self._serving.flush()

    def _answer_later(
        self, sender: bytes, request_id: int, job: Callable[[], Awaitable[object]]
    ) -> None:
        """Run the job in a task of its own, which answers the request with the result or error."""
        task = asyncio.create_task(self._answer(sender, request_id, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, sender: bytes, request_id: int, job: Callable[[], Awaitable[object]]
    ) -> None:
        try:
            result = await job()
            reply = b"" if result is None else values.pack(result)
            self._host.mailbox.send(sender, header(Kind.REPLY, request_id), reply)
        except Exception as error:
            self._fail(sender, request_id, error)

    def _fail(self, sender: bytes, request_id: int, error: Exception) -> None:
        self._host.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    # figures

    def tick(self) -> None:
        """Called each second: log dropped messages, also the last of a burst."""
        self._log.tell_drops()

    def note(self) -> None:
        """Write the counters into the ledger."""
        self._figures.note()

    def bequest(self) -> dict[str, Any]:
        """Values for the drivers of the next worker, in case this worker is killed."""
        return self._figures.bequest()

    def stats(self) -> Stats:
        """The figures of the connection."""
        return self._figures.stats()
