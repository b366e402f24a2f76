"""The actor behind everything that is read and written: link, buffer, reconnecting, keepalive. Long
because a link's whole life is told in it, once for all schemes.

Everything generic about a stream is here, once for all schemes; what is particular is in the driver
(one object per attempt at a link) and in the pure modules buffer, backoff, text and compression.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import time
from collections import deque
from collections.abc import Coroutine, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

from trunkline.actors.driver import Delivery, Ending, FatalError, Overflow, PeerClosed, StreamDriver
from trunkline.actors.net import tls
from trunkline.actors.net.backoff import backoff_of
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.peer_words import first_line, own_secrets, without_secrets
from trunkline.actors.stream.buffer import Action, Buffer, Notify, Push, Recall, Stamp, Welcome
from trunkline.actors.stream.compression import Codec, CompressionError
from trunkline.actors.stream.drops import DropReport
from trunkline.actors.stream.early import Arrival, EarlyArrivals
from trunkline.actors.stream.flapping import Flapping
from trunkline.actors.stream.lane import Run
from trunkline.actors.stream.link import (
    Action as LinkAction,
)
from trunkline.actors.stream.link import (
    Connect,
    GiveUp,
    LinkLife,
    Lost,
    Opened,
    TellFailure,
    Wait,
)
from trunkline.actors.stream.link_watch import LinkWatch
from trunkline.actors.stream.pace import pace_of
from trunkline.actors.stream.seeking import Seeking
from trunkline.actors.stream.settling import Settling
from trunkline.actors.stream.text import Utf8Splitter
from trunkline.address.host import join_host_port
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    DialError,
    DialTimeout,
    OperationTimeout,
    TrunklineError,
    Unsupported,
    to_wire,
)
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, Mark, header
from trunkline.wire.loss import Loss
from trunkline.wire.outgoing import Outgoing
from trunkline.wire.place import Place
from trunkline.wire.stats import Stats

if TYPE_CHECKING:
    from trunkline.actors.process.worker import Worker

__all__ = ["StreamActor"]

TORN_CHARACTER_S = 0.5
"""How long the first bytes of a character wait for the rest before they are handed over as bytes."""
SAME_WARNING_S = 5.0
_ARGUMENTS = {"correlation": "correlation_id", "answers": "an answer", "null": "no value (None)"}
"""Fields of `Outgoing` as users know them, where that is not their name."""
_DECODER = codecs.getincrementaldecoder("utf-8")
PAYLOAD_S = 10.0
DRIVER_S = 0.2
"""For a driver that does not keep a write's deadline."""
LAST_WORDS_S = 1.5
"""How long the reason is waited for when a payload cannot be sent: a close frame may be on its way."""


class Link:
    """The sink of one driver object. What arrives before the link counts as open waits here."""

    def __init__(self, actor: StreamActor) -> None:
        self._actor = actor
        drops = actor.buffer.overflow is Overflow.DROP_OLDEST
        self._early: EarlyArrivals | None = EarlyArrivals(
            actor.buffer.limit, actor.buffer.limit_bytes, drops=drops
        )
        self.driver: StreamDriver = actor.driver_class(actor.address, self)
        self.driver.had_link = actor.life.had_link
        self.driver.inherited = actor.inherited
        self.splitter = Utf8Splitter() if actor.splits else None
        self.decoder = _DECODER(errors="replace") if actor.decodes else None
        self.ended = asyncio.Event()
        self.reason: BaseException | None = None

    def message(self, data: str | bytes) -> None:
        self.messages((data,))

    def messages(self, batch: Sequence[str | bytes]) -> None:
        if self._early is not None:
            self._keep(Arrival(batch))
        elif self._actor.link is self:
            self._actor.received(batch)

    def deliver(self, batch: Sequence[Delivery]) -> None:
        if self._early is not None:
            self._keep(Arrival((), batch))
        elif self._actor.link is self:
            self._actor.delivered(self, batch)

    def _keep(self, arrival: Arrival) -> None:
        """Keep what came before the link counts as open; a peer that can wait has to, where that is much."""
        assert self._early is not None
        self._early.add(arrival)
        if self._actor.buffer.overflow is Overflow.BACK_PRESSURE and self._early.is_full:
            self.driver.pause()

    def lost(self, reason: BaseException | None) -> None:
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def warn(self, text: str) -> None:
        self._actor.warn(text)

    def dropped(self, count: int) -> None:
        self._actor.dropped_elsewhere += count

    def decoded(self, batch: Sequence[str | bytes]) -> list[str | bytes]:
        """`decode=text` on a byte stream: a character may be split between two chunks."""
        assert self.decoder is not None
        texts = [m if isinstance(m, str) else self.decoder.decode(m) for m in batch]
        return [text for text in texts if text]

    def rest(self) -> list[str | bytes]:
        """The beginning of a character whose end did not come."""
        if self.splitter is not None:
            return self.splitter.flush()
        text = self.decoder.decode(b"", True) if self.decoder is not None else ""
        return [text] if text else []

    def admit(self) -> None:
        """The link counts as open: what came early comes now."""
        early, self._early = self._early, None
        if early is None:
            return
        paused = self._actor.buffer.overflow is Overflow.BACK_PRESSURE and early.is_full
        self._actor.drop_early(early.dropped)
        for arrival in early.take():
            if arrival.enveloped:
                self.deliver(arrival.enveloped)
            else:
                self.messages(arrival.plain)
        if paused and not self._actor.buffer.throttled:
            self.driver.resume()

    def admit_before_end(self) -> None:
        """The link has ended before it counted as open: what can come only once is kept for the readers.
        What the message broker sends again is not, for nobody has acknowledged it."""
        early, self._early = self._early, None
        if early is None:
            return
        self._actor.drop_early(early.dropped)
        for arrival in early.take():
            once = [each for each in arrival.enveloped if each.token is None]
            if once:
                self.deliver(once)
            elif arrival.plain:
                self.messages(arrival.plain)

    def last_words(self) -> str:
        """The first line of the newest message that came before the link counted as open."""
        return "" if self._early is None else first_line(self._early.last())


class StreamActor:
    """See the module."""

    def __init__(self, worker: Worker, driver: type[StreamDriver]) -> None:
        self.worker = worker
        self.address = worker.address
        self.driver_class = driver
        option = self.address.option
        self.splits = driver.byte_stream and option("decode") == "auto"
        self.decodes = driver.byte_stream and option("decode") == "text"
        self.buffer = Buffer(
            int(option("buffer")), driver.overflow_for(self.address), int(option("buffer_bytes"))
        )
        self._comes_again = driver.redelivers(self.address)
        self._owed: dict[Hashable, list[Run]] = {}
        self._settling = Settling(
            self.buffer, lambda: self.link, lambda holder: worker.mailbox.hear(holder), self._flush_soon
        )
        self._seeking = Seeking(self.buffer, lambda: self.link, self._went_elsewhere)
        self._redelivered = 0
        self.link: Link | None = None
        self.life = LinkLife(bool(option("reconnect")), backoff_of(self.address), Flapping())
        self._decode = str(option("decode"))
        self._codec = self._make_codec()
        self._pace = pace_of(option("limit"))
        self._drops = DropReport()
        self._living: asyncio.Task[None] | None = None
        """Carries out the actions of `life`, from the loss of one link to the next link."""
        self._timers: list[asyncio.Task[None]] = []
        self._torn: asyncio.TimerHandle | None = None
        self._flushing = False
        self._write_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned: dict[str, float] = {}
        self._data_at = 0.0
        self._opened_at = 0.0
        self._may_help = True
        """Another attempt to dial may soon succeed, as far as the last one tells."""
        self._base = worker.base_stats()
        self.inherited = self._bequest = worker.inherited()
        self._last_error: str | None = self._base.last_error
        self._last_message_at: float | None = self._base.last_message_at
        self._bytes_in = self._messages_out = self._bytes_out = self._errors = 0
        self.dropped_elsewhere = 0
        self._dropped_early = 0
        self._early: dict[bytes, tuple[bool, bool]] = {}
        self._returning: dict[bytes, tuple[bytes, int, int, list[Any]]] = {}
        """Holders that a former worker had and that have yet to say START here, for `Buffer.replace`."""
        self._had, self._settled = worker.former(), 0
        if worker.succeeds:
            self.buffer.link = Mark.DOWN  # its holders were told by the broker
            # Each loss is followed by one new link: with one loss less, the link was up when its worker died.
            self.buffer.outages = max(0, self._base.reconnects + 1 - self._base.outages)
            self.life.take_over(time.monotonic())

    def _make_codec(self) -> Codec | None:
        method = self.address.option("compress")
        if not method:
            return None
        return Codec(
            str(method), str(self.address.option("mode")), max_size=int(self.address.option("max_size"))
        )

    # the link

    async def open(self, deadline: Deadline) -> None:
        """The first link: one attempt, so that a wrong address is told at once. A worker that replaces
        a crashed one keeps trying as after any outage."""
        if self.worker.succeeds:
            self._living = asyncio.create_task(self._carry_out(self.life.note_parted()))
            return
        self.life.dial()
        try:
            link = await self._attempt(deadline)
            for action in self.life.note_opened(time.monotonic()):
                if isinstance(action, Opened):
                    self._came_up(link, action.outage_s)
        except Exception as error:
            self.life.note_failure(is_refusal=self._is_refusal(error))
            self._last_error = str(error)
            raise

    async def _attempt(self, deadline: Deadline) -> Link:
        """One attempt: dial, send the payload. Raises in words for users."""
        link = Link(self)
        try:
            # The driver keeps the deadline itself and says in words what did not answer; this is for one
            # that does not.
            async with asyncio.timeout(deadline.left() + 0.5 if deadline.timeout() is not None else None):
                await self._open_link(link, deadline)
            await self._introduce(link)
        except BaseException as error:
            words = link.last_words()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(link.driver.end(Ending.LOST), 1)
            self._keep_early(link)
            raise self._in_words(error, words) from None
        return link

    async def _open_link(self, link: Link, deadline: Deadline) -> None:
        """Note whether another attempt may soon succeed where this one did not."""
        self._may_help = True
        try:
            await link.driver.open(deadline)
        except Exception as error:
            passing = isinstance(error, (*self.driver_class.transient, TimeoutError))
            self._may_help = passing and not isinstance(error, FatalError)
            raise

    async def _introduce(self, link: Link) -> None:
        """Send the payloads. A link that ends meanwhile fails with the peer's reason for it."""
        try:
            await self._send_payload(link)
        except TrunklineError:
            raise
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):
                raise
            with contextlib.suppress(TimeoutError):  # what the peer said is perhaps still on its way
                async with asyncio.timeout(LAST_WORDS_S):
                    await link.ended.wait()
            raise link.reason or self._closed_at_once(link) or error from None
        if link.ended.is_set():
            raise link.reason or BrokenError("the peer closed the link at once")

    def _closed_at_once(self, link: Link) -> Exception | None:
        if not link.ended.is_set():
            return None
        return ConnectionError("the peer closed the link while the payload was sent")

    def _keep_early(self, link: Link) -> None:
        """A link that worked before could not be had again: what the peer said meanwhile is read all the
        same. After a first dial nobody could read; the peer's last words are in the error."""
        if self.life.had_link:
            self.link = link  # for the pieces of its texts
            link.admit_before_end()
            self._flush_torn(link)
            self.link = None
            self._flush_soon()

    def _loss(self, mark: Mark, reason: BaseException | None) -> Loss:
        """Why the link was lost, fit to be shown."""
        said = getattr(reason, "strerror", None) or str(reason)  # without the number that str() has
        text = "closed by the peer" if reason is None else said or type(reason).__name__
        text = tls.lost(reason) or text
        secrets = own_secrets(self.address) if isinstance(reason, PeerClosed) else ()
        words = without_secrets(reason.reason, secrets) if isinstance(reason, PeerClosed) else None
        return Loss.of(mark, without_secrets(text, secrets) if secrets else text, _code(reason), words)

    def _broken(self, what: str, cause: BaseException | Loss | None) -> BrokenError:
        """The error of a call that finds the link gone: `what` with the cause, its code and reason."""
        if cause is None:
            return BrokenError(what)
        loss = cause if isinstance(cause, Loss) else self._loss(Mark.DOWN, cause)
        return BrokenError(f"{what}: {loss.text}", code=loss.code, reason=loss.reason)

    def _in_words(self, error: BaseException, said: str) -> BaseException:
        """A failed attempt as what users read; `said` is what the peer said last."""
        if isinstance(error, TrunklineError) and not isinstance(error, DialTimeout):
            return error
        if isinstance(error, TimeoutError):
            text = str(error) or "no answer in the time allowed"
            return DialTimeout(self._with_place("could not be opened", text))
        if isinstance(error, (OSError, EOFError)):
            loss = self._loss(Mark.DOWN, error)
            text = tls.lost(error) or str(getattr(error, "strerror", None) or loss.text)
            if said:
                text += f"; it said last: {without_secrets(said, own_secrets(self.address))}"
            text = self._with_place("could not be opened", text)
            return DialError(text, code=loss.code, reason=loss.reason)
        return error

    def _with_place(self, what: str, text: str) -> str:
        """`text` as a sentence about the connection: it names the peer once, not once more than it does."""
        place = f"{join_host_port(self.address.host or '', None)}:"
        if self.address.display in text or (self.address.host and place in text):
            return text
        return f"{self.address.display} {what}: {text}"

    async def _send_payload(self, link: Link) -> None:
        payloads: Sequence[str] = self.address.option("payload") or ()
        for index, payload in enumerate(payloads):
            if index:
                await asyncio.sleep(int(self.address.option("payloadInterval")) / 1000)
            await self._take_turn(Deadline(None))
            deadline = Deadline(PAYLOAD_S)
            data = self._codec.outgoing(payload) if self._codec else payload
            async with asyncio.timeout(PAYLOAD_S):
                sent = await link.driver.send(data, deadline)
            if not sent and payload:
                raise DialTimeout(f"{self.address.display} did not take the payload within {PAYLOAD_S:.0f} s")
            self._wrote(sent)

    def _came_up(self, link: Link, outage_s: float | None) -> None:
        """Serve a new link. `outage_s`: how long there was no link; None for the first link."""
        self.link = link
        if self.buffer.link is not Mark.UP:
            self.buffer.mark(Mark.UP)
        if self.buffer.throttled:
            link.driver.pause()
        self._data_at = time.monotonic()
        self._living = asyncio.create_task(self._watch(link))
        watch = self._watch_over(link)
        self._timers = [asyncio.create_task(job) for job in watch.jobs()]
        if outage_s is None and (why := watch.unsaid()) is not None:
            self.warn(why)
        link.admit()
        self._flush_soon()
        if outage_s is None:
            self._opened_at = time.time()
        self.worker.say_state()
        if outage_s is not None:
            # As loud as the loss, so that a log tells when an outage ended and how long it was.
            place = self.address.display
            self.worker.log("warning", f"the link to {place} is there again after {outage_s:.1f} s")

    def _watch_over(self, link: Link) -> LinkWatch:
        return LinkWatch(
            self.address,
            link.driver,
            send=lambda text, seconds: self._send_keepalive(link, text, seconds),
            lost=link.lost,
            counted=lambda: Traffic(self._bytes_in, self._bytes_out),
            paused=lambda: self.buffer.throttled,
            message_at=lambda: self._data_at,
        )

    async def _send_keepalive(self, link: Link, text: str, seconds: float) -> None:
        deadline = Deadline(seconds)
        if await self._take_turn(deadline):
            await self._transmit(link, text, deadline)

    async def _watch(self, link: Link) -> None:
        """Wait for the end of the link, then do what the options say."""
        await link.ended.wait()
        self._flush_torn(link)
        await self._carry_out(self.life.note_loss(time.monotonic()), link)

    async def _carry_out(self, actions: list[LinkAction], lost: Link | None = None) -> None:
        """Do what the life of the link asks for, until a link is open or no link follows. `lost`: the link
        that has just ended; None after the end of another worker."""
        link: Link | None = None
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            if isinstance(action, Wait):
                await asyncio.sleep(action.seconds)
                todo += self.life.end_wait(time.monotonic())
            elif isinstance(action, Connect):
                try:
                    link = await self._attempt(Deadline(float(self.address.option("timeout"))))
                except Exception as error:
                    todo += self._note_failure(error)
                else:
                    todo += self.life.note_opened(time.monotonic())
            elif isinstance(action, Opened):
                assert link is not None
                self._came_up(link, action.outage_s)
            elif isinstance(action, Lost):
                assert lost is not None
                self._went_down(lost, action.is_final)
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(lost.driver.end(Ending.LOST), 1.5)
                todo += self.life.note_parted()
            elif isinstance(action, TellFailure):
                self._tell_failure(action.wait_s)
            elif isinstance(action, GiveUp):
                self._give_up(f"{action.failures} attempts in a row have failed: {self._last_error}")

    def _went_down(self, link: Link, is_final: bool) -> None:
        for timer in self._timers:
            timer.cancel()
        with contextlib.suppress(Exception):  # what was read a moment ago: a client may outlive its link
            self._hand_back()
        self.bequest()
        self.link = None
        self._remember_owed()
        loss = self._loss(Mark.END if is_final else Mark.DOWN, link.reason)
        why = self._last_error = loss.text
        self.buffer.mark(Mark(loss), loss)
        self._flush_soon()
        self.worker.say_state()
        what = "dial again, or give reconnect=true" if is_final else "reconnecting"
        self.worker.log("warning", f"the link to {self.address.display} was lost ({why}); {what}")

    def _note_failure(self, error: Exception) -> list[LinkAction]:
        self._last_error = str(error)
        return self.life.note_failure(
            is_refusal=self._is_refusal(error), retry_after_s=getattr(error, "retry_after_s", None)
        )

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the attempt failed for a reason that seldom goes away by itself. Where the link had worked,
        even a refused login, a certificate or HTTP 403 may be gone at a later attempt."""
        return isinstance(error, FatalError) or not self._may_help

    def _tell_failure(self, wait_s: float) -> None:
        failure = self._last_error or ""
        what = self._with_place("could not be reached", failure)
        self.warn(f"{what}; the next attempt is in {wait_s:.3g} s")
        self._last_error = failure

    def _give_up(self, why: str) -> None:
        self._last_error = why
        former = self.buffer.cause
        code, reason = (former.code, former.reason) if former is not None else (None, None)
        self.buffer.mark(Mark.END, Loss.of(Mark.END, why, code, reason))
        self._flush_soon()
        self.worker.say_state()
        self.worker.log("error", f"the link to {self.address.display} is given up: {why}")

    def _remember_owed(self) -> None:
        """What was acknowledged to nobody comes again, and was received already: see `_fresh`."""
        former = {name: [run for run in runs if run.done] for name, runs in self._owed.items()}
        self._owed = self.buffer.owed()
        if len(former) <= self.buffer.limit:  # of two outages in a row; else others have it by now
            for name, runs in former.items():
                if runs:
                    self._owed.setdefault(name, []).extend(runs)

    async def close(self, ending: Ending) -> None:
        for task in (self._living, *self._timers, *self._tasks):
            if task is not None:
                task.cancel()
        self._flush()  # what was read until now is acknowledged
        self.life.close()
        link, self.link = self.link, None
        if link is not None:
            await link.driver.end(ending)

    # receiving

    def received(self, batch: Sequence[str | bytes]) -> None:
        """Messages of the present link: unpack, decode, buffer; pushed once per turn of the loop."""
        at = self._noted(batch)
        if self._codec is not None and self._codec.receives:
            batch = self._decompressed(batch)
        if self.splits:
            batch = self._unsplit(batch)
        elif self.decodes and self.link is not None:
            batch = self.link.decoded(batch)
        else:
            batch = self._in_form(batch)
        if batch:
            self.buffer.extend(batch, at)
            self._flush()

    def delivered(self, link: Link, batch: Sequence[Delivery]) -> None:
        """The same for messages with an envelope."""
        if self._owed:
            batch = self._fresh(link, batch)
        entries: Sequence[str | bytes] = [each.data for each in batch]
        at = self._noted(entries)
        self._redelivered += [each.redelivered for each in batch].count(True)
        if self._codec is not None and self._codec.receives:
            both = [(self._plain(each.data), each) for each in batch]
            # What cannot be unpacked now never can: it must not come again and again.
            link.driver.settle([each.token for data, each in both if data is None and each.token is not None])
            batch = [each for data, each in both if data is not None]
            entries = [data for data, _ in both if data is not None]
        if batch:
            self.buffer.deliver(self._in_form(entries), batch, at, link)
            self._flush()

    def _noted(self, batch: Sequence[str | bytes]) -> int:
        """Something arrived: when, in nanoseconds."""
        at = time.time_ns()
        self._data_at = time.monotonic()
        self._last_message_at = at / 1e9
        self._bytes_in += sum(map(len, batch))
        return at

    def _fresh(self, link: Link, batch: Sequence[Delivery]) -> list[Delivery]:
        """Without the messages that came before over a lost link and were acknowledged to nobody: those that
        are still unread are acknowledged over this link later, the others now."""
        fresh, read = [], []
        for each in batch:
            runs = self._owed.get(each.identity) if each.redelivered and each.identity is not None else None
            if not runs:
                fresh.append(each)
                continue
            run = runs.pop(0)
            if not runs:
                del self._owed[each.identity]
            if run.done:
                read.append(each.token)
            else:
                run.take_over(link, each.token)
        if read:
            link.driver.settle(read)
        return fresh

    def _in_form(self, batch: Sequence[str | bytes]) -> Sequence[str | bytes]:
        """Whole messages as option `decode` says."""
        if self._decode == "auto":
            kinds = set(map(type, batch))
            if bytes not in kinds:
                return batch
            if len(kinds) == 1:
                with contextlib.suppress(UnicodeDecodeError):  # text throughout, nearly always
                    return [m.decode() for m in batch]  # type: ignore[union-attr]
            return [_as_text(m) if isinstance(m, bytes) else m for m in batch]
        if self._decode == "bytes":
            return [m.encode() if isinstance(m, str) else m for m in batch]
        return [m.decode(errors="replace") if isinstance(m, bytes) else m for m in batch]

    def _decompressed(self, batch: Sequence[str | bytes]) -> list[str | bytes]:
        return [plain for plain in map(self._plain, batch) if plain is not None]

    def _plain(self, message: str | bytes) -> str | bytes | None:
        assert self._codec is not None
        try:
            return self._codec.incoming(message)
        except CompressionError as error:
            self._errors += 1
            self.warn(f"a message of {len(message)} bytes from {self.address.display} was discarded: {error}")
            return None

    def _unsplit(self, batch: Sequence[str | bytes]) -> list[str | bytes]:
        splitter = self.link.splitter if self.link else None
        if splitter is None:
            return list(batch)
        whole: list[str | bytes] = []
        for chunk in batch:
            whole += splitter.feed(chunk if isinstance(chunk, bytes) else chunk.encode())
        if self._torn is not None:
            self._torn.cancel()
            self._torn = None
        if splitter.pending():
            self._torn = self.worker.loop.call_later(TORN_CHARACTER_S, self._flush_torn, self.link)
        return whole

    def _flush_torn(self, link: Link | None) -> None:
        """The rest of a character did not come: hand over what is there."""
        if link is not None and (rest := link.rest()):
            self.buffer.extend(rest, time.time_ns())
            self._flush_soon()

    def warn(self, text: str) -> None:
        """A line for the user's log; the same words at most every few seconds."""
        self._last_error = text
        now = time.monotonic()
        key = text[:40]
        if now - self._warned.get(key, -SAME_WARNING_S) >= SAME_WARNING_S:
            self._warned[key] = now
            self.worker.log("warning", text)

    # holders

    def attach(
        self, holder: bytes, control: bytes, old: bytes, epoch: int, consumed: int, kept: list[Any]
    ) -> None:
        """The broker says that there is a further holder; it is served when it says START."""
        if old:
            self._rename(old, holder)
            self._returning.pop(old, None)
            early = self._early.pop(holder, None)
            if old in self.buffer.holders:
                self.buffer.replace(old, holder, epoch, consumed, kept)
            elif early is not None:
                self._come_back(holder, (old, epoch, consumed, kept), *early)
            else:  # we do not know yet by which way it can be reached
                self._returning[holder] = old, epoch, consumed, kept
        elif holder in self._early:
            down, envelopes = self._early.pop(holder)
            self.buffer.attach(holder, down=down, envelopes=envelopes)
        self._flush_soon()

    def start(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        """A holder is ready to be served (and may be so before the broker has introduced it)."""
        if holder in self.buffer.holders:  # it has another name or another pipe, and waits for our word
            self._act(Welcome(holder))
        self._serve(holder, down, had, envelopes)

    def _serve(self, holder: bytes, down: bool, had: int, envelopes: bool) -> None:
        self._settle(holder, had)
        if holder in self.buffer.holders:
            return
        returning = self._returning.pop(holder, None)
        if holder not in self.worker.holders:
            self._early[holder] = down, envelopes
        elif returning is not None:
            self._come_back(holder, returning, down, envelopes)
            self._flush_soon()
        else:
            self.buffer.attach(holder, down=down, envelopes=envelopes)
            self._flush_soon()

    def _come_back(
        self, holder: bytes, former: tuple[bytes, int, int, list[Any]], down: bool, envelopes: bool
    ) -> None:
        """A holder that another worker or broker knew before can be reached here now."""
        old, epoch, consumed, kept = former
        self.buffer.replace(old, holder, epoch, consumed, kept, down=down, envelopes=envelopes)

    def _settle(self, holder: bytes, had: int) -> None:
        """A holder says how many messages it had of the workers before this one. Those could not know what
        still reached it: the difference was read and not dropped, or the other way round."""
        # Of one they left no word of, nobody knows what they took it to have.
        self._settled += had - self._had.get(holder, had)
        self._had[holder] = had

    def _rename(self, old: bytes, new: bytes) -> None:
        """A holder has another name; it may have spoken under it before we heard of that."""
        if (before := self._had.pop(old, None)) is not None:
            self._settled += self._had.setdefault(new, before) - before

    def left(self, sender: bytes) -> None:
        """A write that has begun goes on: half a message would break the link."""

    def detach(self, holder: bytes, consumed: int | None) -> None:
        self.buffer.detach(holder, consumed)
        self._returning.pop(holder, None)
        self._had.pop(holder, None)
        self._flush_soon()

    def receive(
        self, sender: bytes, kind: Kind, request_id: int, fields: list[Any], body: list[bytes]
    ) -> None:
        if kind is Kind.ACK:
            self.buffer.ack(*fields)
            self._flush_soon()
        elif kind is Kind.READ:
            ask = messages.Read(*fields)
            if ask.holder in self.worker.holders:  # its START may have been sent before this worker was there
                self._serve(ask.holder, True, ask.had, ask.envelopes)
            self.buffer.ack(ask.holder, ask.consumed, ask.skipped)
            self.buffer.ask(
                ask.holder,
                ask.number,
                ask.epoch,
                ask.consumed,
                wait=ask.wait,
                newest=ask.newest,
                envelopes=ask.envelopes,
            )
            self._flush()
        elif kind is Kind.CANCEL:
            self.buffer.cancel(*fields)
            self._flush()
        elif kind is Kind.KEEP:
            self.buffer.keep(*fields)
        elif kind is Kind.SETTLE:
            self._start(self._settle_kept(sender, request_id, fields))
        elif kind is Kind.RECALLED:
            self.buffer.recalled(*fields)
            self._flush()
        elif kind is Kind.WRITE:
            timeout_ms, text, until, addressed = messages.Write(*fields)
            left_ms = self.worker.mailbox.left_ms(timeout_ms, until)
            if left_ms <= 0 or addressed or not self._written_at_once(sender, request_id, body[0], text):
                self._start(self._write(sender, request_id, body[0], left_ms, text, addressed))
        elif kind is Kind.SEEK:
            timeout_ms, until, *place = messages.Seek(*fields)
            left_ms = self.worker.mailbox.left_ms(timeout_ms, until)
            self._start(self._seek(sender, request_id, left_ms, place))
        elif kind is Kind.REQUEST:
            timeout_ms, text, until = messages.Request(*fields)
            left_ms = self.worker.mailbox.left_ms(timeout_ms, until)
            self._start(self._request(sender, request_id, body[0], left_ms, text))
        else:
            what = "exec" if kind is Kind.EXEC else "this operation"
            error = Unsupported(f"{self.address.scheme}:// has no {what}: use read and write")
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    def _start(self, job: Any) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.worker.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self.buffer.flush()
        actions, self.buffer.actions = self.buffer.actions, []
        self.note()  # before a holder can have what is not in it
        if self.buffer.dropped or self.dropped_elsewhere:
            self._tell_drops()
        for action in actions:
            self._act(action)
        self._hand_back()

    def _hand_back(self) -> None:
        """The tokens of what was read or discarded, to the link that gave them."""
        if not self.buffer.settled:
            return
        settled, self.buffer.settled = self.buffer.settled, []
        link = self.link
        # Those of a link that is gone mean nothing any more.
        tokens = [token for whose, given in settled if whose is link for token in given]
        if None in tokens:
            tokens = [token for token in tokens if token is not None]
        if link is not None and tokens:
            link.driver.settle(tokens)

    def _act(self, action: Action) -> None:
        send = self.worker.mailbox.send
        if isinstance(action, Push):
            stamped = action.stamps is not None
            entries = action.entries if action.stamps is None else [*action.entries, _packed(action.stamps)]
            losses = [[n, *e.to_wire()] for n, e in enumerate(action.entries) if isinstance(e, Loss)]
            push = messages.Push(
                action.epoch, action.stream, action.more, action.first, stamped, losses, action.answer
            )
            head = header(Kind.PUSH, 0, *push)
            send(action.holder, head, msgpack.packb(entries, use_bin_type=True))
        elif isinstance(action, Recall):
            control = self.worker.holders.get(action.holder, b"")
            send(control, header(Kind.RECALL, 0, *action))
        elif isinstance(action, Notify):
            send(action.holder, header(Kind.CANCELLED, 0, action.ask))
        elif isinstance(action, Welcome):
            send(action.holder, header(Kind.START))
        elif self.link is not None:
            (self.link.driver.pause if action.on else self.link.driver.resume)()

    # writing

    def _written_at_once(self, sender: bytes, request_id: int, body: bytes, text: bool) -> bool:
        """The usual write: the link is up and takes the data now, so that it needs no task of its own."""
        link = self.link
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
        except TrunklineError as error:  # before the OSErrors, which some of them are
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))
            return True
        except (OSError, EOFError, UnicodeDecodeError):
            return False  # the long way says it in words
        self._wrote(sent)
        self.worker.mailbox.send(sender, header(Kind.REPLY, request_id), values.pack(sent))
        return True

    async def _settle_kept(self, sender: bytes, request_id: int, fields: list[Any]) -> None:
        try:
            await self._settling.settle(*fields)
            self.worker.mailbox.send(sender, header(Kind.REPLY, request_id), b"")
        except Exception as error:
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    async def _seek(self, sender: bytes, request_id: int, timeout_ms: float, fields: list[Any]) -> None:
        deadline = Deadline.after_ms(timeout_ms)
        try:
            if timeout_ms <= 0:
                raise OperationTimeout("the order was longer on its way to the worker than the time allowed")
            if not self.driver_class.seeks:
                scheme = self.address.scheme
                raise Unsupported(f"{scheme}:// has no seek: only kafka keeps messages that were read")
            await self._seeking.seek(Place.from_wire(fields), deadline, self.address.display)
            self.worker.mailbox.send(sender, header(Kind.REPLY, request_id), b"")
        except Exception as error:
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    def _went_elsewhere(self) -> None:
        """After a seek nothing counts as known that comes (again)."""
        self._owed.clear()
        self._flush()

    async def _write(
        self, sender: bytes, request_id: int, body: bytes, timeout_ms: float, text: bool, packed: bytes
    ) -> None:
        deadline = Deadline.after_ms(timeout_ms)
        try:
            data: str | bytes = body.decode() if text else body
            outgoing = self._addressed(packed) if packed else None
            sent = await self._write_now(data, deadline, outgoing)
            head, answer = header(Kind.REPLY, request_id), values.pack(sent)
            self.worker.mailbox.send(sender, head, answer)
        except Exception as error:
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    def _addressed(self, packed: bytes) -> Outgoing:
        """What a write says beside its data; Unsupported where the scheme has no place for it."""
        outgoing = Outgoing.unpack(packed)
        takes = self.driver_class.addressing
        missing = outgoing.fields() - takes
        if missing:
            names = ", ".join(sorted(_ARGUMENTS.get(name, name) for name in missing))
            known = ", ".join(sorted(_ARGUMENTS.get(name, name) for name in takes))
            raise Unsupported(
                f"{self.address.scheme}:// writes no message with {names} of its own"
                + (f"; it takes {known}" if known else ": say it in the address")
            )
        return outgoing

    async def _request(
        self, sender: bytes, request_id: int, body: bytes, timeout_ms: float, text: bool
    ) -> None:
        try:
            data: str | bytes = body.decode() if text else body
            answer = await self._request_now(data, Deadline.after_ms(timeout_ms))
            reply = values.pack(self._in_form((answer.data,))[0])
            self.worker.mailbox.send(sender, header(Kind.REPLY, request_id), reply)
        except Exception as error:
            self.worker.mailbox.send(sender, header(Kind.ERROR, request_id, to_wire(error)))

    async def _request_now(self, data: str | bytes, deadline: Deadline) -> Delivery:
        link = self.link
        if link is None:
            what = f"the link to {self.address.display} is down; nothing was asked"
            raise self._broken(what, self.buffer.cause)
        if not await self._take_turn(deadline):
            raise OperationTimeout(f"no turn came in the time allowed: limit={self.address.option('limit')}")
        if link is not self.link:
            what = f"the link to {self.address.display} was lost; nothing was asked"
            raise self._broken(what, self.buffer.cause)
        try:
            async with asyncio.timeout(deadline.left() + DRIVER_S):
                answer = await link.driver.request(
                    self._codec.outgoing(data) if self._codec else data, deadline
                )
        except TrunklineError:
            raise
        except TimeoutError:
            raise OperationTimeout(f"{self.address.display} gave no answer in the time allowed") from None
        except (OSError, EOFError) as error:
            raise self._broken(f"the link to {self.address.display} broke", error) from None
        self._wrote(len(data.encode() if isinstance(data, str) else data))
        if self._codec is None or not self._codec.receives:
            return answer
        plain = self._plain(answer.data)
        if plain is None:
            raise BrokenError(f"the answer of {self.address.display} could not be decompressed")
        return answer._replace(data=plain)

    async def _write_now(
        self, data: str | bytes, deadline: Deadline, outgoing: Outgoing | None = None
    ) -> int:
        link = self.link
        if link is None:
            what = f"the link to {self.address.display} is down; nothing was written"
            raise self._broken(what, self.buffer.cause)
        if deadline.expired():
            raise OperationTimeout("the data was longer on its way to the worker than the time allowed")
        if not await self._take_turn(deadline):
            raise OperationTimeout(f"no turn came in the time allowed: limit={self.address.option('limit')}")
        try:
            # The driver keeps the deadline itself, for it alone knows how much was taken by then.
            async with asyncio.timeout(deadline.left() + DRIVER_S):
                sent = await self._transmit(link, data, deadline, outgoing)
        except TrunklineError:
            raise
        except TimeoutError:
            sent = 0
        if not sent and len(data):
            raise OperationTimeout(f"{self.address.display} did not take the data in the time allowed")
        return sent

    async def _take_turn(self, deadline: Deadline) -> bool:
        """Wait until option `limit` allows the next write; False at the deadline, when that was before."""
        if self._pace is None:
            return True
        now = time.monotonic()
        turn = self._pace.reserve(now, now + deadline.left())
        await asyncio.sleep(deadline.left() if turn is None else turn - now)
        return turn is not None and not deadline.expired()  # this process may have been stopped

    async def _transmit(
        self, link: Link, data: str | bytes, deadline: Deadline, outgoing: Outgoing | None = None
    ) -> int:
        packed = self._codec.outgoing(data) if self._codec else data
        # Where each write waits for its confirmation, the next need not wait for that too.
        async with contextlib.nullcontext() if link.driver.confirms else self._write_lock:
            if link is not self.link:
                what = f"the link to {self.address.display} is down; nothing was written"
                raise self._broken(what, self.buffer.cause)
            try:
                if outgoing is None:
                    sent = await link.driver.send(packed, deadline)
                else:
                    sent = await link.driver.send_to(None if outgoing.null else packed, outgoing, deadline)
            except TrunklineError:
                raise
            except (OSError, EOFError) as error:
                raise self._broken(f"the link to {self.address.display} broke", error) from None
        if packed is not data and sent:  # what the caller gave counts, not what it was packed into
            sent = len(data.encode() if isinstance(data, str) else data)
        self._wrote(sent)
        return sent

    def _wrote(self, count: int) -> None:
        self._messages_out += bool(count)
        self._bytes_out += count
        self.note()

    # figures

    def tick(self) -> None:
        """Called each second: the last dropped messages of a burst are told, too."""
        self._tell_drops()

    def _tell_drops(self) -> None:
        total = self.buffer.dropped + self.dropped_elsewhere
        if not (new := self._drops.due(total, time.monotonic())):
            return
        option = "buffer_bytes" if self.buffer.too_large > self.buffer.dropped // 2 else "buffer"
        why = f"the reader is too slow: read faster, or give {option}=n"
        if not self.buffer.dropped and not self._dropped_early:
            why = "they were lost before they could be buffered"
        count = f"{new} message was" if new == 1 else f"{new} messages were"
        self.worker.log("warning", f"{self.address.display}: {count} dropped, {total} in all ({why})")

    def drop_early(self, count: int) -> None:
        """So many messages were more than the buffer holds, before the link counted as open."""
        self.dropped_elsewhere += count
        self._dropped_early += count

    def note(self) -> None:
        """Keep the counters where they outlive this process."""
        ledger = self.worker.ledger
        if ledger is None:
            return
        base, buffer, again = self._base, self.buffer, self._comes_again
        given = self._had.copy()
        queued = buffer.unread
        for holder in buffer.holders.values():
            queued -= holder.out
            given[holder.id] = given.get(holder.id, 0) + holder.read + holder.out
        ledger.write(
            (
                base.messages_in + buffer.received + self.dropped_elsewhere,
                base.bytes_in + self._bytes_in,
                base.messages_out + self._messages_out,
                base.bytes_out + self._bytes_out,
                base.read + buffer.read + self._settled,
                base.dropped + buffer.dropped + self.dropped_elsewhere - (0 if again else self._settled),
                base.skipped + buffer.skipped,
                queued,
                buffer.unread,
                base.outages + buffer.outages,
                base.reconnects + self.life.reconnects,
                base.errors + self._errors,
                base.peak if base.peak > buffer.peak else buffer.peak,
                base.returned - (self._settled if again else 0),
                base.redelivered + self._redelivered,
            ),
            given,
        )

    def bequest(self) -> dict[str, Any]:
        """What the next worker's drivers are to know, should this one be killed."""
        if self.link is not None:
            with contextlib.suppress(Exception):  # a driver's own must not end the heartbeat
                self._bequest = self.link.driver.bequeath()
        return self._bequest

    def stats(self) -> Stats:
        base, buffer, again = self._base, self.buffer, self._comes_again
        return Stats(
            id=str(self.worker.record["number"]),
            scheme=self.address.scheme,
            lost_is_none=self.driver_class.lost_is_none,
            comes_again=again,
            acknowledges=self.driver_class.acknowledges(self.address),
            peer=self.address.display,
            state=self.life.state.value,
            pid=os.getpid(),
            incarnation=self.worker.incarnation,
            opened_at=self._opened_at or base.opened_at,
            messages_in=base.messages_in + buffer.received + self.dropped_elsewhere,
            bytes_in=base.bytes_in + self._bytes_in,
            messages_out=base.messages_out + self._messages_out,
            bytes_out=base.bytes_out + self._bytes_out,
            read=base.read + buffer.read + self._settled,
            buffered=buffer.unread,
            queued=buffer.queued,
            peak=max(base.peak, buffer.peak),
            dropped=base.dropped + buffer.dropped + self.dropped_elsewhere - (0 if again else self._settled),
            skipped=base.skipped + buffer.skipped,
            returned=base.returned - (self._settled if again else 0),
            redelivered=base.redelivered + self._redelivered,
            lag=self.link.driver.lag() if self.link is not None else None,
            errors=base.errors + self._errors,
            reconnects=base.reconnects + self.life.reconnects,
            outages=base.outages + buffer.outages,
            holders=len(self.worker.holders),
            last_error=self._last_error,
            last_message_at=self._last_message_at,
        )


def _code(reason: BaseException | None) -> str | int | None:
    """The code of a loss: the peer's, else the system's."""
    found = getattr(reason, "code", None)
    found = getattr(reason, "errno", None) if found is None else found
    return found if isinstance(found, (str, int)) else None


def _run(job: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that does not have to wait."""
    try:
        job.send(None)
    except StopIteration as end:
        return int(end.value)
    job.close()
    raise RuntimeError("a driver that would not wait has waited")


def _packed(stamps: Sequence[Stamp]) -> bytes:
    """Stamps as the proxy takes them. What of an envelope cannot travel as it is goes as text."""
    rows: list[list[Any]] = [
        [size, at] if delivery is None else [size, at, *delivery[1:10]] for size, at, delivery in stamps
    ]
    try:
        return values.pack(rows)
    except (TypeError, ValueError):
        return values.pack([[_as_texts(v) if isinstance(v, dict) else v for v in row] for row in rows])


def _as_texts(items: dict[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in items.items()}


def _as_text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
