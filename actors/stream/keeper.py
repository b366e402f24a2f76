"""Keeping the link: `LinkKeeper` carries out the decisions of `LinkLife` on the event loop.

One task at a time keeps the link. The task waits until the open link ends. Then it carries out the
actions of `LinkLife` until another link is open, starts the next task for that link, and ends.
`stop` cancels the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque

from trunkline.actors.driver import Ending
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.current import CurrentLink, Link
from trunkline.actors.stream.dialling import Dialling
from trunkline.actors.stream.figures import Counters, Figures
from trunkline.actors.stream.host import Host
from trunkline.actors.stream.inbound import Inbound
from trunkline.actors.stream.link import (
    Action,
    Connect,
    GiveUp,
    LinkLife,
    Lost,
    Opened,
    TellFailure,
    Wait,
)
from trunkline.actors.stream.link_watch import LinkWatch
from trunkline.actors.stream.outbound import Outbound
from trunkline.actors.stream.serving import Serving
from trunkline.actors.stream.sink import LinkSink
from trunkline.actors.stream.user_log import UserLog
from trunkline.actors.stream.words import LinkWords
from trunkline.deadline import Deadline
from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss

__all__ = ["LinkKeeper"]

PART_S = 1.5
"""Seconds that the driver of a lost link may take to end: `Driver.close` promises about one second.
A driver that takes longer is left behind, so that reconnecting is not held up."""


class LinkKeeper:
    """Opens, watches and replaces the link of one connection."""

    def __init__(
        self,
        host: Host,
        life: LinkLife,
        buffer: Buffer,
        current: CurrentLink,
        counters: Counters,
        figures: Figures,
        log: UserLog,
        words: LinkWords,
        serving: Serving,
        inbound: Inbound,
        outbound: Outbound,
        dialling: Dialling,
    ) -> None:
        self._host = host
        self._address = host.address
        self._life = life
        self._buffer = buffer
        self._current = current
        self._counters = counters
        self._figures = figures
        self._log = log
        self._words = words
        self._serving = serving
        self._inbound = inbound
        self._outbound = outbound
        self._dialling = dialling
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.Task[None]] = []

    async def open(self, deadline: Deadline) -> None:
        """Open the first link by one attempt, so that `Dial` reports a wrong address at once.

        A worker that replaces a crashed worker returns at once, then reconnects as after a loss."""
        if self._host.succeeds:
            self._task = asyncio.create_task(self._carry_out(self._life.note_parted()))
            return
        self._life.dial()
        try:
            sink = await self._dialling.attempt(deadline)
            for action in self._life.note_opened(time.monotonic()):
                if isinstance(action, Opened):
                    self._serve(sink, action.outage_s)
        except Exception as error:
            self._life.note_failure(is_refusal=self._dialling.is_refusal(error))
            self._counters.last_error = str(error)
            raise

    def stop(self) -> None:
        """Stop watching the link, and stop replacing a lost link."""
        for task in (self._task, *self._timers):
            if task is not None:
                task.cancel()

    async def close(self, ending: Ending) -> None:
        """End the open link, if any. The caller has called `stop` before."""
        self._life.close()
        # Taken out before the wait for the driver's end: meanwhile writes find no link.
        link, self._current.link = self._current.link, None
        if link is not None:
            await link.driver.end(ending)

    async def _watch(self, link: Link) -> None:
        """Wait for the end of the link, then reconnect or not, as the options say."""
        await link.ended.wait()
        # The rest of a character cut in two will not come.
        self._inbound.flush_character(link)
        await self._carry_out(self._life.note_loss(time.monotonic()), link)

    async def _carry_out(self, actions: list[Action], lost: Link | None = None) -> None:
        """Carry out the actions of `LinkLife` until a link is open or no link follows.

        `lost`: the link that has just ended; None in a worker that replaces another worker."""
        sink: LinkSink | None = None
        # After an action, the keeper reports the outcome to `LinkLife`, and appends the next
        # actions.
        todo = deque(actions)
        while todo:
            action = todo.popleft()
            if isinstance(action, Wait):
                await asyncio.sleep(action.seconds)
                todo += self._life.end_wait(time.monotonic())
            elif isinstance(action, Connect):
                try:
                    sink = await self._dialling.attempt(
                        Deadline(float(self._address.option("timeout")))
                    )
                except Exception as error:
                    todo += self._note_failure(error)
                else:
                    todo += self._life.note_opened(time.monotonic())
            elif isinstance(action, Opened):
                assert sink is not None
                self._serve(sink, action.outage_s)
            elif isinstance(action, Lost):
                assert lost is not None
                self._tell_loss(lost, action.is_final)
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(lost.driver.end(Ending.LOST), PART_S)
                todo += self._life.note_parted()
            elif isinstance(action, TellFailure):
                self._tell_failure(action.wait_s)
            elif isinstance(action, GiveUp):
                failure = self._counters.last_error
                self._give_up(f"{action.failures} attempts in a row have failed: {failure}")

    def _serve(self, sink: LinkSink, outage_s: float | None) -> None:
        """Serve a new link. `outage_s`: seconds without a link before; None for the first link."""
        link, buffer = sink.link, self._buffer
        self._current.link = link
        # The mark goes into the buffer before the early arrivals (`sink.admit` below): programs
        # read the end of the outage before the messages of the new link.
        if buffer.news.mark is not Mark.UP:
            buffer.mark(Mark.UP)
        # The buffer may be full since before the outage. The new driver was not told yet.
        if buffer.throttled:
            link.driver.pause()
        self._counters.data_at = time.monotonic()
        # A reconnect runs in the former task, which ends soon. The new task keeps the new link.
        self._task = asyncio.create_task(self._watch(link))
        watch = self._watch_over(link)
        self._timers = [asyncio.create_task(job) for job in watch.jobs()]
        if outage_s is None and (why := watch.unsaid()) is not None:
            self._log.warn(why)
        sink.admit()
        self._serving.flush_soon()
        if outage_s is None:
            self._counters.opened_at = time.time()
        self._host.say_state()
        if outage_s is not None:
            # A warning, as for the loss: the log shows the end and the length of an outage.
            place = self._address.display
            self._host.log("warning", f"the link to {place} is there again after {outage_s:.1f} s")

    def _watch_over(self, link: Link) -> LinkWatch:
        """The timers (keepalive, idle) of this link."""
        counters = self._counters
        return LinkWatch(
            self._address,
            link.driver,
            send=lambda text, seconds: self._outbound.send_keepalive(link, text, seconds),
            lost=link.note_end,
            counted=lambda: Traffic(counters.bytes_in, counters.bytes_out),
            paused=lambda: self._buffer.throttled,
            message_at=lambda: counters.data_at,
        )

    def _tell_loss(self, link: Link, is_final: bool) -> None:
        """Tell the holders, the broker and the log that the link is lost. `is_final`: for good."""
        for timer in self._timers:
            timer.cancel()
        # Acknowledge messages that were read a moment ago: the client library of a message broker
        # may still be able to do so. An error here must not stop the reconnect.
        with contextlib.suppress(Exception):
            self._serving.hand_back()
        # Before the link is taken out, because the bequest comes from the present link's driver.
        self._figures.bequest()
        self._current.link = None
        # After `hand_back`: the peer sends messages without acknowledgement again.
        self._inbound.remember_owed()
        loss = self._words.describe_loss(Mark.END if is_final else Mark.DOWN, link.reason)
        self._counters.last_error = loss.text
        self._buffer.mark(Mark(loss), loss)
        self._serving.flush_soon()
        self._host.say_state()
        what = "dial again, or give reconnect=true" if is_final else "reconnecting"
        place = self._address.display
        self._host.log("warning", f"the link to {place} was lost ({loss.text}); {what}")

    def _note_failure(self, error: Exception) -> list[Action]:
        """Report a failed attempt to `LinkLife`. Returns the next actions."""
        self._counters.last_error = str(error)
        return self._life.note_failure(
            is_refusal=self._dialling.is_refusal(error),
            retry_after_s=getattr(error, "retry_after_s", None),
        )

    def _tell_failure(self, wait_s: float) -> None:
        """Log the failure of the last attempt, and the wait before the next attempt."""
        failure = self._counters.last_error or ""
        what = self._words.name_peer("could not be reached", failure)
        self._log.warn(f"{what}; the next attempt is in {wait_s:.3g} s")
        # `warn` has noted the whole line as the last error. Only the failure belongs there.
        self._counters.last_error = failure

    def _give_up(self, why: str) -> None:
        """Tell the holders, the broker and the log that no further attempt follows."""
        self._counters.last_error = why
        # The new mark keeps the code and the reason of the loss that began the outage.
        former = self._buffer.news.cause
        code, reason = (former.code, former.reason) if former is not None else (None, None)
        self._buffer.mark(Mark.END, Loss.of(Mark.END, why, code, reason))
        self._serving.flush_soon()
        self._host.say_state()
        self._host.log("error", f"the link to {self._address.display} is given up: {why}")
