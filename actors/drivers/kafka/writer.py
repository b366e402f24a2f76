"""The producer: a write is done when the broker says so.

librdkafka would keep a message and send it again and again; a write here ends with its caller's patience. So
each message either went out once, or is taken back out of the library's queues:

* Nothing is sent twice by the library (`retries=0`); what it says was *not* taken (a partition moves, a topic
  is being made) is given to it again by us, as long as the writer waits.
* At a write's deadline everything that is still queued is purged. Its own message then was not written, or is
  on the wire, which nobody can undo: unconfirmed. Other writers' messages that were purged with it go back
  into the queue, in their order.
* When the link is lost all is purged, and all writers are told at once.
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
_AGAIN_S = 0.05
_CREATION_S = 5.0
"""So long a topic that is unknown may be on its way into being."""
_REPORT_S = 0.1
"""After a purge, for its reports."""


class Route(NamedTuple):
    """Where a message goes, and what goes with it."""

    topic: str
    key: str | bytes | None
    partition: int
    """-1: by the key, or any."""
    headers: tuple[tuple[str, bytes | None], ...]


class _Write:
    """One message on its way."""

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
        """Its writer waits no longer."""
        self.unknown_until = Deadline(_CREATION_S)

    @property
    def size(self) -> int:
        return len(self.payload or b"")


class Writer:
    """See the module. Public methods are called on the loop."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        self._say = say
        self._why: KafkaError | None = None
        self._count = 0
        self._writes: set[_Write] = set()
        self._reports: list[tuple[_Write, KafkaError | None]] = []
        self._busy = threading.Event()
        self._ended = asyncio.Event()
        self._closed = False
        self._lost: str | None = None
        self._producer: Any = self._make()
        self._thread = threading.Thread(
            target=self._run, args=(self._producer,), name="trunkline-kafka-write", daemon=True
        )
        self._thread.start()

    def _make(self) -> Any:
        logger = quiet_logger(self._log, self.plan.debug)
        try:
            return Producer({**self.plan.producer, "error_cb": self._heard}, logger=logger)
        except KafkaException as error:
            raise settings_failure(error) from None

    def own_route(self) -> Route:
        """Where the address says that messages go."""
        plan = self.plan
        partition = -1 if plan.partition is None else plan.partition
        return Route(plan.write_topic, plan.key, partition, plan.headers)

    async def send(self, data: str | bytes | None, route: Route, deadline: Deadline) -> int:
        """Write one message (None: without a value) and wait for the broker's word. The bytes of `data`; 0
        when it was not sent by the deadline, or OperationTimeout where 0 is the length of `data`;
        `Unconfirmed`, `RefusedError`, ConnectionError."""
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
        """The link is gone: nothing is sent any more, all writers hear of it."""
        if self._lost is None:
            self._lost = why
            self._purge(everything=True)
            for write in list(self._writes):
                self._broken(write)

    async def close(self, seconds: float) -> None:
        """End at once; what is not confirmed is not waited for."""
        self.lost("the connection was closed")
        self._closed = True
        self._producer = None
        self._busy.set()
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()

    # one write

    def _produce(self, write: _Write) -> None:
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
        except BufferError:  # its queue is full
            self._loop.call_later(_AGAIN_S, self._produce, write)
        except KafkaException as error:
            self._failed(write, error.args[0])
        else:
            if not self._busy.is_set():
                self._busy.set()

    def _report(self, write: _Write, error: KafkaError | None, _: object) -> None:
        """In the thread: what became of a message."""
        self._reports.append((write, error))

    def _reported(self, reports: list[tuple[_Write, KafkaError | None]]) -> None:
        back: list[tuple[_Write, KafkaError]] = []
        for write, error in reports:
            if write.result.done():
                continue
            if error is None:
                write.result.set_result(write.size)
            else:
                back.append((write, error))
        # Purged messages are told of in no order, and those that go out again shall keep theirs.
        for write, error in sorted(back, key=lambda each: each[0].number):
            self._failed(write, error)

    def _failed(self, write: _Write, error: KafkaError) -> None:
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
        if write.result.done():
            return
        if isinstance(outcome, int) and (outcome or write.size):
            write.result.set_result(outcome)
        elif isinstance(
            outcome, int
        ):  # 0 says that it was not sent, and of an empty message also that it was
            write.result.set_exception(
                OperationTimeout("the message was not sent in the time allowed")
            )
        else:
            write.result.set_exception(outcome)

    def _broken(self, write: _Write) -> None:
        self._end(write, ConnectionError(f"{self._lost}; the message may have arrived"))

    # the deadline

    def _expire(self, write: _Write) -> None:
        """Take it back if it is still here; the report of that comes in a moment, or it is on the wire."""
        if write.result.done() and not write.result.cancelled():
            return
        write.over = True
        self._purge(everything=False)
        self._loop.call_later(_REPORT_S, self._unconfirmed, write)

    def _unconfirmed(self, write: _Write) -> None:
        why = f" ({cause(self._why, self.plan.peer)})" if self._why is not None else ""
        text = f"{self.plan.peer} did not confirm the message in the time allowed{why}; it may have arrived"
        self._end(write, Unconfirmed(text))

    def _purge(self, *, everything: bool) -> None:
        if self._producer is not None:
            with contextlib.suppress(KafkaException):
                self._producer.purge(in_queue=True, in_flight=everything, blocking=False)
            self._busy.set()

    # the thread

    def _run(self, producer: Any) -> None:
        try:
            while not self._closed:
                self._busy.wait()
                self._busy.clear()
                # It stays a while after the last one: to be woken for the next takes longer than to be there.
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
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
                self._loop.call_soon_threadsafe(self._ended.set)

    def _hand_over(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._reported, reports)

    def _heard(self, error: KafkaError) -> None:
        """What the library tells: writes do not wait for the link's end, which the reader finds."""
        self._why = error

    def _log(self, text: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._say, text)
