"""The producer: a write is complete when the broker confirms it.

librdkafka would keep a message and send it again and again. A write here ends with its caller's
deadline. So each message either goes out once, or is taken back out of librdkafka's queues:

* librdkafka sends nothing twice (`retries=0`). Messages that were certainly *not* taken (a
  partition moves, a topic is being made) are given to librdkafka again by `Writer`, as long as the
  caller waits.
* At the deadline of a write everything that is still queued is purged. The message of that write
  then was not written, or it is on the wire and cannot be called back: unconfirmed. Messages of
  other writes that were purged with it go back into the queue, in their order.
* When the link is lost everything is purged, and all callers are told at once.

Two threads meet. Callers and all decisions run on the event loop. A thread of the writer polls
librdkafka and hands its delivery reports to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from trunkline.actors.drivers.kafka.errors import (
    NOT_YET,
    REFUSED,
    cause,
    refusal,
    said,
    settings_failure,
)
from trunkline.actors.drivers.kafka.log import quiet_logger
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.deadline import Deadline
from trunkline.errors import OperationTimeout, RefusedError, Unconfirmed

__all__ = ["Route", "Writer"]

_POLL_S = 0.1
_STAY_S = 1.0
"""Seconds that the thread polls on after the last message."""
_AGAIN_S = 0.05
"""Seconds before a message that librdkafka or the broker does not take yet is tried again."""
_CREATION_S = 5.0
"""Seconds for which an unknown topic may still be in the making."""
_REPORT_S = 0.1
"""Seconds to wait for librdkafka's reports after a purge."""


class Route(NamedTuple):
    """The destination of a message, with its key and headers."""

    topic: str
    key: str | bytes | None
    partition: int
    """-1: librdkafka chooses by the key, or freely without a key."""
    headers: tuple[tuple[str, bytes | None], ...]


class _Write:
    """A message on its way."""

    __slots__ = ("deadline", "number", "over", "payload", "result", "route", "unknown_until")

    def __init__(
        self,
        number: int,
        payload: bytes | None,
        route: Route,
        deadline: Deadline,
        result: asyncio.Future[int],
    ) -> None:
        self.number = number
        self.payload = payload
        self.route = route
        self.deadline = deadline
        self.result = result
        self.over = False
        """Whether the caller has stopped waiting."""
        self.unknown_until = Deadline(_CREATION_S)

    @property
    def size(self) -> int:
        return len(self.payload or b"")


class Writer:
    """Writes messages for one link. Public methods are called on the event loop."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        self._say = say
        self._why: KafkaError | None = None
        """librdkafka's last error, which may explain a missing confirmation."""
        self._count = 0
        self._writes: set[_Write] = set()
        """Writes whose callers wait. The event loop changes the set; the thread only reads it."""
        self._reports: list[tuple[_Write, KafkaError | None]] = []
        """Delivery reports of the present poll. Only the thread uses the list."""
        self._busy = threading.Event()
        """Set by the event loop when the thread must poll."""
        self._ended = asyncio.Event()
        """Set when the thread has ended."""
        self._closed = False
        """Set by `close`; read by the thread after each poll."""
        self._lost: str | None = None
        """Why the link is over; None for an open link."""
        self._producer: Any = self._make()
        self._thread = threading.Thread(
            target=self._run, args=(self._producer,), name="trunkline-kafka-write", daemon=True
        )
        self._thread.start()

    def _make(self) -> Any:
        """Make the producer; FatalError where librdkafka refuses a setting."""
        logger = quiet_logger(self._log, self.plan.debug)
        try:
            return Producer({**self.plan.producer, "error_cb": self._heard}, logger=logger)
        except KafkaException as error:
            raise settings_failure(error) from None

    def own_route(self) -> Route:
        """Return the destination that the address names."""
        plan = self.plan
        partition = -1 if plan.partition is None else plan.partition
        return Route(plan.write_topic, plan.key, partition, plan.headers)

    async def send(self, data: str | bytes | None, route: Route, deadline: Deadline) -> int:
        """Write one message (None: without a value) and wait for the broker's confirmation.

        Returns the length of the value in bytes, or 0 when the message was not sent by the
        deadline. Where both would be 0, an unsent message raises OperationTimeout. Also raises
        `Unconfirmed` (sent, no confirmation by the deadline), `RefusedError` (the broker does not
        take the message) and ConnectionError (the link is gone).
        """
        payload = data.encode() if isinstance(data, str) else data
        self._count += 1
        write = _Write(self._count, payload, route, deadline, self._loop.create_future())
        self._writes.add(write)
        timer: asyncio.TimerHandle | None = None
        if (left := deadline.timeout()) is not None:
            timer = self._loop.call_later(left, self._expire, write)
        try:
            self._produce(write)
            return await write.result
        except asyncio.CancelledError:
            self._expire(write)
            raise
        finally:
            self._writes.discard(write)
            if timer is not None:
                timer.cancel()

    def lost(self, why: str) -> None:
        """End the link: nothing more is sent, and all callers get an error."""
        if self._lost is None:
            self._lost = why
            self._purge(everything=True)
            for write in list(self._writes):
                self._broken(write)

    async def close(self, seconds: float) -> None:
        """End at once, without waiting for confirmations."""
        self.lost("the connection was closed")
        self._closed = True
        self._producer = None
        self._busy.set()
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()

    # a single write

    def _produce(self, write: _Write) -> None:
        """Give a message to librdkafka. While its queue is full, try again after `_AGAIN_S`
        seconds.
        """
        if write.result.done() or write.over:
            return
        if self._lost is not None or self._producer is None:
            self._end(write, ConnectionError(self._lost or "the link is gone"))
            return
        route = write.route
        try:
            self._producer.produce(
                route.topic,
                write.payload,
                route.key,
                route.partition,
                partial(self._report, write),
                headers=list(route.headers) or None,
            )
        except BufferError:  # librdkafka's queue is full
            self._loop.call_later(_AGAIN_S, self._produce, write)
        except KafkaException as error:
            self._failed(write, error.args[0])
        else:
            if not self._busy.is_set():
                self._busy.set()

    def _report(self, write: _Write, error: KafkaError | None, _: object) -> None:
        """Note librdkafka's report on a message. Runs on the writer's thread, inside `poll`."""
        self._reports.append((write, error))

    def _reported(self, reports: list[tuple[_Write, KafkaError | None]]) -> None:
        """Handle a batch of delivery reports. Runs on the event loop."""
        back: list[tuple[_Write, KafkaError]] = []
        for write, error in reports:
            if write.result.done():
                continue
            if error is None:
                write.result.set_result(write.size)
            else:
                back.append((write, error))
        # Purged messages are reported in no particular order. Sorting keeps their order when they
        # go out again.
        for write, error in sorted(back, key=lambda each: each[0].number):
            self._failed(write, error)

    def _failed(self, write: _Write, error: KafkaError) -> None:
        """Decide about a message that librdkafka reports as failed: write it again, or end the
        write.

        A purged message was certainly not sent. It goes out again, unless the purge was due to its
        own deadline.
        """
        code = error.code()
        name = self.plan.peer
        if code == KafkaError._PURGE_QUEUE:
            if write.over:
                self._end(write, 0)
            else:
                self._produce(write)
        elif code in NOT_YET and not (
            code == KafkaError.UNKNOWN_TOPIC_OR_PART and write.unknown_until.expired()
        ):
            if write.over:
                self._end(write, 0)
            else:
                self._loop.call_later(_AGAIN_S, self._produce, write)
        elif code in REFUSED or code in NOT_YET:
            text = refusal(error, write.route.topic, name, write.size)
            self._end(write, RefusedError(text, code=code))
        elif error.fatal():
            self._end(write, ConnectionError(f"librdkafka gave up writing: {said(error)}"))
        else:
            self._end(write, ConnectionError(f"{said(error)}; the message may have arrived"))

    def _end(self, write: _Write, outcome: int | Exception) -> None:
        """End a write with the number of bytes, or with an error."""
        if write.result.done():
            return
        if isinstance(outcome, int) and (outcome or write.size):
            write.result.set_result(outcome)
        elif isinstance(outcome, int):  # 0 would also be the length of an empty message
            write.result.set_exception(
                OperationTimeout("the message was not sent in the time allowed")
            )
        else:
            write.result.set_exception(outcome)

    def _broken(self, write: _Write) -> None:
        self._end(write, ConnectionError(f"{self._lost}; the message may have arrived"))

    # the deadline of a write

    def _expire(self, write: _Write) -> None:
        """Take the message back if librdkafka still has it.

        The report on that comes within `_REPORT_S`. Without a report the message is on the wire.
        """
        if write.result.done() and not write.result.cancelled():
            return
        write.over = True
        self._purge(everything=False)
        self._loop.call_later(_REPORT_S, self._unconfirmed, write)

    def _unconfirmed(self, write: _Write) -> None:
        """End a write whose deadline is over and whose message may have arrived."""
        why = f" ({cause(self._why, self.plan.peer)})" if self._why is not None else ""
        text = f"{self.plan.peer} did not confirm the message in the time allowed{why}; it may have arrived"
        self._end(write, Unconfirmed(text))

    def _purge(self, *, everything: bool) -> None:
        """Drop the messages in librdkafka's queue; with `everything`, those on the wire, too.

        Each dropped message comes back as a report with an error.
        """
        if self._producer is not None:
            with contextlib.suppress(KafkaException):
                self._producer.purge(in_queue=True, in_flight=everything, blocking=False)
            self._busy.set()

    # run on the writer's thread

    def _run(self, producer: Any) -> None:
        """Poll librdkafka while there are messages. The thread sleeps otherwise, until `_busy` is
        set.
        """
        try:
            while not self._closed:
                self._busy.wait()
                self._busy.clear()
                # The thread polls on for a second after the last message. Waking the thread for the
                # next message would take longer than polling on.
                until = Deadline(_STAY_S)
                while not self._closed and not until.expired():
                    producer.poll(_POLL_S)
                    self._hand_over()
                    if self._writes or len(producer):
                        until = Deadline(_STAY_S)
        finally:
            with contextlib.suppress(KafkaException):
                producer.purge(blocking=False)
            del producer
            with contextlib.suppress(RuntimeError):  # the loop is gone, and no caller waits
                self._loop.call_soon_threadsafe(self._ended.set)

    def _hand_over(self) -> None:
        """Give the reports collected since the last call to the event loop, in one piece."""
        if self._reports:
            # Only the writer's thread touches the list: `poll` appends reports on the same thread.
            reports, self._reports = self._reports, []
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._reported, reports)

    def _heard(self, error: KafkaError) -> None:
        """Note an error of librdkafka.

        It does not end writes: the reader notices the end of the link.
        """
        self._why = error

    def _log(self, text: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._say, text)
