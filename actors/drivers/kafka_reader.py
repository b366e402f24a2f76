"""The consumer and the thread that owns it. Long because a partition's way from assignment to commit is one story.

librdkafka connects again by itself, and a consumer that left its group and joins it anew costs every member a
rebalance. So a reader outlives the link: when all brokers are gone it tells its driver, stays as it is, silent, and
the next driver object takes it over as soon as a broker answers. It then goes back to the first message that
was not consumed; what a reader of the connection still holds, or had meanwhile, is known again by partition
and offset.

Messages are taken from librdkafka in batches, as many as the connection's buffer has room for: what is
given out and not consumed never exceeds it. A short stop just does not ask for more; after a second the partitions are
paused, so that the group's member goes on living while a strategy thinks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from trunkline.actors.driver import Delivery, FatalError
from trunkline.actors.drivers.kafka_offsets import Position, Token, settle
from trunkline.actors.drivers.kafka_plan import EARLIEST, LATEST, Plan
from trunkline.actors.drivers.kafka_words import NOT_YET, cause, said, topic_failure
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

__all__ = ["Owner", "Reader", "quiet_logger"]

_POLL_S = 0.1
_BATCH = 1000
_COMMIT_S = 0.5
_HOLD_S = 1.0
"""So long a full buffer just stops asking; then the partitions are paused."""
_FAILURES = 3
"""So many for each server: a host may have several addresses, and librdkafka tries one at a time."""
_CREATION_S = 5.0
"""So long a topic that is unknown may be on its way into being."""
_MOST_CALL_S = 2.0
_QUIET = ("FAIL", "CONFWARN", "REQTMOUT", "GETPID", "TERMINATE", "CLOSE")
"""What librdkafka logs beside telling it as an error, or what is no news."""
_EXPECTED = frozenset(
    (KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID)
)
_make = tuple.__new__


class Owner(Protocol):
    """The driver that reads. Called on the loop."""

    def arrived(self, batch: Sequence[Delivery]) -> None: ...
    def went(self, reason: BaseException) -> None: ...
    def passed_over(self, count: int) -> None: ...
    def say(self, text: str) -> None: ...


class _Stopped(Exception):
    """The reader is to end."""


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], None], everything: bool) -> None:
        super().__init__()
        self._say = say
        self._everything = everything

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        loud = record.levelno >= logging.WARNING and not text.startswith(_QUIET)
        if self._everything or loud:
            self._say(f"librdkafka: {text}")


def quiet_logger(say: Callable[[str], None], everything: bool = False) -> logging.Logger:
    """A logger for librdkafka, which would write to stderr otherwise."""
    logger = logging.Logger("trunkline.kafka", logging.DEBUG)
    logger.propagate = False
    logger.addHandler(_Handler(say, everything))
    return logger


class Reader:
    """See the module. Public methods are called on the loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._owner: Owner | None = None
        self._jobs: deque[tuple[Deadline, Owner, asyncio.Future[None]]] = deque()
        self._wake = threading.Event()
        self._stop = False
        self._paused = False
        self._given = self._settled = 0
        # From here on the thread's own.
        self._consumer: Any = None
        self._positions: dict[str, dict[int, Position]] = {}
        self._shelved: dict[tuple[str, int], Position] = {}
        self._known: dict[str, int] = {}
        self._assigned = False
        self._called_back = False
        self._started = False
        self._flowing = False
        self._held = False
        self._full_since: float | None = None
        self._early: list[Message] = []
        self._fatal: DialError | None = None
        self._why: KafkaError | None = None
        self._failures = self._downs = 0
        self._starts_to_commit = False
        self._commit_at = self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="trunkline-kafka-read", daemon=True)

    # on the loop

    @property
    def useless(self) -> bool:
        """Nobody can read with it any more."""
        return self._fatal is not None or not self._thread.is_alive()

    async def open(self, owner: Owner, deadline: Deadline) -> None:
        """Find the topics and stand where reading begins, or go on where the former owner was. Raises DialError."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._owner = owner
        self._jobs.append((deadline, owner, future))
        self._wake.set()
        if not self._thread.is_alive():
            self._thread.start()
        await future

    def leave(self, owner: Owner) -> None:
        """The owner's link is over; the next one may take over. Nothing more is given to it."""
        if self._owner is owner:
            self._owner = None
            self._wake.set()

    async def close(self, seconds: float) -> None:
        """Commit what was consumed, leave the group, end. What takes longer than so many seconds goes on alone."""
        self._owner = None
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake.set()

    def settle(self, tokens: Sequence[Token]) -> None:
        """Readers have these messages."""
        settle(tokens)
        self._settled += len(tokens)
        if self._full_since is not None:
            self._wake.set()

    # the thread

    def _run(self) -> None:
        try:
            while not self._stop:
                if self._jobs:
                    self._open(*self._jobs.popleft())
                elif self._flowing:
                    self._flow()
                else:
                    self._idle()
        except _Stopped:
            pass
        except Exception as error:
            self._lose(DialError(f"the Kafka reader failed: {type(error).__name__}: {error}"))
        finally:
            for _, _, future in self._jobs:
                self._answer(future, DialError("closed"))
            self._finish()
            self._tell(self._ended.set)

    def _finish(self) -> None:
        """Leave in good order where somebody is there to leave."""
        consumer = self._consumer
        if consumer is not None and self.plan.group and self._flowing:
            with contextlib.suppress(Exception):
                self._commit(wait=True)
                consumer.close()
        # Without a broker closing could take long; destroying it, which the last reference does, does not.
        self._consumer = None

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens
            self._loop.call_soon_threadsafe(call, *arguments)

    def _say(self, text: str) -> None:
        owner = self._owner
        if owner is not None:
            self._tell(owner.say, text)

    def _answer(self, future: asyncio.Future[None], error: BaseException | None) -> None:
        def answer() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._tell(answer)

    # opening

    def _open(self, deadline: Deadline, owner: Owner, future: asyncio.Future[None]) -> None:
        try:
            if self._fatal is not None:
                raise self._fatal
            self._why, self._failures, self._downs = None, 0, 0
            if self._consumer is None:
                self._consumer = self._make()
            self._hold()  # the former link may have been lost a moment ago
            self._find_topics(deadline)
            if self._started:
                self._go_back()
            elif self.plan.group and self.plan.topics:
                self._join()
            elif self.plan.topics:
                self._assign(self._partitions(), deadline)
            self._started = True
            while self.plan.group and self.plan.topics and not self._assigned:
                self._serve(_POLL_S)
                self._check(deadline, f"group '{self.plan.group}' gave no partitions")
            if self._starts_to_commit:
                self._commit_starts(deadline)
        except _Stopped:
            self._answer(future, DialError("closed"))
            raise
        except DialError as error:
            self._hold()
            self._answer(future, error)
        except KafkaException as error:
            self._hold()
            self._answer(future, cause(error.args[0], self.plan.peer))
        except Exception as error:
            self._answer(future, DialError(f"the Kafka reader failed: {type(error).__name__}: {error}"))
            raise
        else:
            self._given = self._settled = 0
            self._why = None
            self._flowing = True
            self._full_since = None
            self._look_at = time.monotonic() + self.plan.ping_s
            self._answer(future, None)

    def _make(self) -> Any:
        callbacks = {"error_cb": self._heard, "on_commit": self._on_commit}
        logger = quiet_logger(self._say, self.plan.debug)
        try:
            return Consumer({**self.plan.consumer, **callbacks}, logger=logger)
        except KafkaException as error:
            raise FatalError(f"librdkafka: {said(error)}") from None

    def _serve(self, seconds: float) -> None:
        """Let librdkafka call back; a message that comes early waits."""
        if self._called_back:
            return
        message = self._consumer.poll(seconds)
        if message is not None:
            self._early.append(message)

    def _check(self, deadline: Deadline, waiting_for: str) -> None:
        """Go on with opening?"""
        self._serve(0)
        if self._stop:
            raise _Stopped
        if self._fatal is not None:
            raise self._fatal
        failures = max(self._failures, self._downs)
        if failures >= _FAILURES * self.plan.servers or (failures and deadline.expired()):
            if self._why is not None:
                raise cause(self._why, self.plan.peer)
            raise DialError(
                f"{self.plan.peer} closed the connection; check the port, and whether it wants a login or TLS"
            )
        if deadline.expired():
            raise DialTimeout(f"{waiting_for} in the time allowed")

    def _ask(self, call: Callable[[float], Any], deadline: Deadline) -> Any:
        """Call something that blocks, in pieces, so that errors are heard in between. The pieces grow: one
        that is too short for the way to the broker and back would never succeed."""
        seconds = 0.05
        while True:
            self._check(deadline, f"no answer from {self.plan.peer}")
            try:
                return call(max(0.01, min(seconds, deadline.left())))
            except KafkaException as error:
                if error.args[0].code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                    raise
            seconds = min(2 * seconds, _MOST_CALL_S)

    def _find_topics(self, deadline: Deadline) -> None:
        """Every topic is there, with a leader for each partition; unknown ones are made where the broker does that."""
        names = dict.fromkeys((*self.plan.topics, self.plan.write_topic))
        for topic in names:
            if topic and not topic.startswith("^"):
                self._known[topic] = self._find_topic(topic, deadline)

    def _find_topic(self, topic: str, deadline: Deadline) -> int:
        patience = Deadline(_CREATION_S)
        pause = 0.01
        while True:
            found = self._ask(lambda seconds: self._consumer.list_topics(topic, timeout=seconds), deadline)
            about = found.topics[topic]
            error = about.error
            if error is None and about.partitions:
                if all(each.leader >= 0 for each in about.partitions.values()):
                    return len(about.partitions)
            elif error is not None and error.code() not in NOT_YET:
                raise topic_failure(error, topic, self.plan.peer, self.plan.group)
            if patience.expired() and error is not None:
                raise topic_failure(error, topic, self.plan.peer, self.plan.group)
            self._check(deadline, f"the topic '{topic}' of {self.plan.peer} has no leader")
            self._serve(pause)
            pause = min(2 * pause, 0.2)

    def _partitions(self) -> list[tuple[str, int]]:
        only = self.plan.partition
        found = []
        for topic in self.plan.topics:
            count = self._known[topic]
            if only is not None and only >= count:
                raise FatalError(
                    f"the topic '{topic}' has the partitions 0 to {count - 1}; check partition={only}"
                )
            found += [(topic, number) for number in (range(count) if only is None else (only,))]
        return found

    def _assign(self, wanted: Iterable[tuple[str, int]], deadline: Deadline) -> None:
        """Read these partitions from where the address says."""
        starts = self._starts(list(wanted), deadline)
        for each in starts:
            self._stand(Position(each.topic, each.partition, each.offset))
        self._consumer.assign(starts)

    def _stand(self, position: Position) -> None:
        self._positions.setdefault(position.topic, {})[position.partition] = position

    def _starts(
        self, wanted: list[tuple[str, int]], deadline: Deadline, start: int | None = None
    ) -> list[TopicPartition]:
        """The offsets to start from, as numbers: whatever is written from now on is after them."""
        plan = self.plan
        if start is None and plan.start >= 0 and not plan.start_is_time:
            return [TopicPartition(*each, plan.start) for each in wanted]
        sought = plan.start if start is None else start
        found = self._offsets_at(wanted, sought, deadline)
        late = [(each.topic, each.partition) for each in found if each.offset < 0]
        if not late:
            return found
        # A time after the last message; or a broker that does not know how to be asked.
        there = [each for each in found if each.offset >= 0]
        for topic, number in late:
            partition = TopicPartition(topic, number)
            low, high = self._ask(lambda seconds, p=partition: self._watermarks(p, seconds), deadline)
            there.append(TopicPartition(topic, number, low if sought == EARLIEST else high))
        return there

    def _offsets_at(
        self, wanted: list[tuple[str, int]], sought: int, deadline: Deadline
    ) -> list[TopicPartition]:
        asked = [TopicPartition(*each, sought) for each in wanted]
        while True:
            found: list[TopicPartition] = self._ask(
                lambda seconds: self._consumer.offsets_for_times(asked, timeout=seconds), deadline
            )
            wrong = next((each for each in found if each.error is not None), None)
            if wrong is None:
                return found
            if wrong.error.code() not in NOT_YET:
                raise topic_failure(wrong.error, wrong.topic, self.plan.peer, self.plan.group)
            self._check(deadline, f"the topic '{wrong.topic}' of {self.plan.peer} gave no offsets")
            self._serve(0.05)

    def _watermarks(self, partition: TopicPartition, seconds: float) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(partition, timeout=seconds)
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = found
        return low, high

    def _go_back(self) -> None:
        """To the first message of each partition that no reader has; called with everything paused."""
        self._early.clear()
        self._shelved.clear()
        again = [position.again() for numbers in self._positions.values() for position in numbers.values()]
        starts = [TopicPartition(each.topic, each.partition, each.base) for each in again]
        for each in again:
            self._stand(each)
        if self.plan.cooperative:
            for start in starts:
                self._consumer.seek(start)
        elif starts:
            self._consumer.assign(starts)
            self._consumer.pause(starts)

    # the group

    def _join(self) -> None:
        self._consumer.subscribe(
            list(self.plan.topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._called_back = True  # librdkafka must not be asked for more from within
        try:
            self._take(consumer, partitions)
        except KafkaException as error:
            self._lose(topic_failure(error.args[0], self.plan.topics[0], self.plan.peer, self.plan.group))
        except DialError as error:
            self._lose(error)
        finally:
            self._called_back = False
        self._assigned = True

    def _take(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Stand where the group is; where it never was, where the address says, which the group then knows
        at once: a member that dies right after must not make the next one start somewhere else."""
        deadline = Deadline(_CREATION_S)
        committed = self._committed(consumer, partitions, deadline) if partitions else []
        new = [(each.topic, each.partition) for each in committed if each.offset < 0]
        # What came into being after we looked has been written after Dial: from its beginning.
        grown = [each for each in new if each[1] >= self._known.get(each[0], 1 << 31)]
        first = [each for each in new if each not in grown]
        starts = self._starts(first, deadline) if first else []
        starts += self._starts(grown, deadline, EARLIEST) if grown else []
        for each in starts:
            self._stand(Position(each.topic, each.partition, each.offset))
        for each in committed:
            if each.offset >= 0:
                starts.append(self._stand_again(each))
        if self.plan.cooperative:
            consumer.incremental_assign(starts)
        else:
            consumer.assign(starts)
            self._shelved.clear()
        if self._held and starts:
            consumer.pause(starts)
        self._starts_to_commit = self._starts_to_commit or bool(new)
        self._commit_at = 0.0

    def _stand_again(self, at: TopicPartition) -> TopicPartition:
        """A partition that the group has read. If it was ours before the rebalance and nobody else has come
        further, we go on: what readers of ours still hold is not read twice."""
        former = self._shelved.pop((at.topic, at.partition), None)
        if former is not None and at.offset <= former.base:
            former.committed = at.offset
            self._stand(former)
            return TopicPartition(at.topic, at.partition, former.next)
        self._stand(Position(at.topic, at.partition, at.offset, committed=at.offset))
        return TopicPartition(at.topic, at.partition, at.offset)

    def _committed(self, consumer: Any, partitions: list[TopicPartition], deadline: Deadline) -> list[Any]:
        wanted = [TopicPartition(each.topic, each.partition) for each in partitions]
        found: list[Any] = consumer.committed(wanted, timeout=deadline.left())
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return found

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        if self._flowing and not self._stop:
            with contextlib.suppress(KafkaException):
                self._commit(wait=True)
        self._let_go(consumer, partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._say(f"group '{self.plan.group}' took the partitions away: this member was silent for too long")
        self._let_go(consumer, partitions)

    def _let_go(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            former = self._positions.get(each.topic, {}).pop(each.partition, None)
            if former is not None and not self.plan.cooperative:
                self._shelved[each.topic, each.partition] = former
        with contextlib.suppress(KafkaException):
            if self.plan.cooperative:
                consumer.incremental_unassign(partitions)
            else:
                self._assigned = False
                consumer.unassign()

    def _commit_starts(self, deadline: Deadline) -> None:
        while self._starts_to_commit:
            try:
                self._commit(wait=True)
                self._starts_to_commit = False
            except KafkaException as error:
                code = error.args[0].code()
                if code in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
                    raise topic_failure(
                        error.args[0], self.plan.topics[0], self.plan.peer, self.plan.group
                    ) from None
                self._check(deadline, f"group '{self.plan.group}' took no commit")
                self._serve(0.05)

    def _commit(self, *, wait: bool = False) -> None:
        """What has been consumed. Without `wait` the answer comes to `_on_commit`."""
        moved = [
            position
            for numbers in self._positions.values()
            for position in numbers.values()
            if position.base > position.committed
        ]
        if not moved:
            return
        bases = [position.base for position in moved]
        offsets = [TopicPartition(p.topic, p.partition, base) for p, base in zip(moved, bases, strict=True)]
        answers = self._consumer.commit(offsets=offsets, asynchronous=not wait)
        for answer in answers or ():
            if answer.error is not None:
                raise KafkaException(answer.error)
        for position, base in zip(moved, bases, strict=True):
            position.committed = base

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        error = error or next((each.error for each in partitions if each.error is not None), None)
        if error is None or error.code() in _EXPECTED:
            return
        for each in partitions:
            position = self._positions.get(each.topic, {}).get(each.partition)
            if position is not None:
                position.committed = -1  # again, with the next one
        if self._flowing:
            self._say(f"group '{self.plan.group}' did not take a commit: {said(error)}; it is tried again")

    # what librdkafka reports

    def _heard(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:
            self._downs += 1
            self._lose(cause(self._why, self.plan.peer) if self._why else None)
            return
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self.plan.group:
            return
        if code in (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._SSL, KafkaError._AUTHENTICATION):
            self._why = error
            self._failures += 1
            reason = cause(error, self.plan.peer)
            if isinstance(reason, FatalError) and not self._flowing:
                self._fatal = reason
            return
        if self.plan.topics:
            reason = topic_failure(error, self.plan.topics[0], self.plan.peer, self.plan.group)
            if isinstance(reason, FatalError) or error.fatal():
                self._fatal = reason
                self._lose(reason)
                return
        self._say(f"librdkafka: {said(error)}")

    def _lose(self, reason: BaseException | None) -> None:
        """The link is gone: say so once, and be silent until somebody takes over."""
        if not self._flowing:
            if isinstance(reason, FatalError):
                self._fatal = reason
            return
        self._flowing = False
        owner = self._owner
        if owner is not None:
            self._tell(owner.went, reason or ConnectionError(f"{self.plan.peer} closed the connection"))

    # reading

    def _idle(self) -> None:
        """Nobody reads: keep librdkafka going, and its messages where they are."""
        self._hold()
        if self._consumer is None or self._fatal is not None:
            self._wake.wait(_POLL_S)
            self._wake.clear()
        else:
            self._serve(_POLL_S)

    def _flow(self) -> None:
        if self._owner is None:
            self._flowing = False
            return
        room = self.plan.limit - self._given + self._settled
        if self._paused or room <= 0:
            self._wait_for_room()
        else:
            self._full_since = None
            if self._held:
                self._release()
            self._read(min(room, _BATCH))
        now = time.monotonic()
        if self.plan.group and now >= self._commit_at:
            self._commit_at = now + _COMMIT_S
            with contextlib.suppress(KafkaException):
                self._commit()
        if now >= self._look_at:
            self._look_at = now + self.plan.ping_s
            self._look()

    def _wait_for_room(self) -> None:
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since >= _HOLD_S:
            self._hold()
            self._serve(_POLL_S)
        else:
            self._wake.wait(_POLL_S)
            self._wake.clear()

    def _hold(self) -> None:
        if self._held or self._consumer is None:
            return
        self._held = True
        with contextlib.suppress(KafkaException):
            self._consumer.pause(self._consumer.assignment())

    def _release(self) -> None:
        self._held = False
        with contextlib.suppress(KafkaException):
            self._consumer.resume(self._consumer.assignment())

    def _read(self, most: int) -> None:
        if self._early:
            batch, self._early = self._early[:most], self._early[most:]
        else:
            batch = self._consumer.consume(most, 0)
            if not batch:
                message = self._consumer.poll(_POLL_S)
                if message is None:
                    return
                batch = [message]
                if most > 1:
                    batch += self._consumer.consume(most - 1, 0)
        owner = self._owner
        if not self._flowing or owner is None:
            return  # lost meanwhile: all this comes again
        found = self._deliveries(batch)
        if found:
            self._given += len(found)
            self._tell(owner.arrived, found)

    def _deliveries(self, batch: list[Message]) -> list[Delivery]:
        """The messages with their envelopes. Each statement here counts: it runs for every message."""
        found: list[Delivery] = []
        positions, max_size = self._positions, self.plan.max_size
        for message in batch:
            if message.error() is not None:
                self._partition_error(message)
                continue
            topic, number, offset = message.topic(), message.partition(), message.offset()
            try:
                position = positions[topic][number]
            except KeyError:
                continue  # of a partition that is no longer ours
            if offset < position.next:
                continue
            position.next = offset + 1
            value, key, headers = message.value(), message.key(), message.headers()
            if value is not None and len(value) > max_size:
                self._too_large(topic, len(value))
                continue
            position.pending.append(offset)
            found.append(
                _make(
                    Delivery,
                    (
                        b"" if value is None else value,
                        topic,
                        None if key is None else _text(key),
                        None if headers is None else _headers(headers),
                        _seconds(message.timestamp()),
                        offset,
                        number,
                        offset < position.seen,
                        None,
                        _TOMBSTONE if value is None else None,
                        (position, offset),
                        (topic, number, offset),
                    ),
                )
            )
        return found

    def _too_large(self, topic: str, size: int) -> None:
        owner = self._owner
        if owner is not None:
            self._tell(owner.passed_over, 1)
        self._say(f"a message of {size} bytes in '{topic}' was passed over: it is larger than max_size")

    def _partition_error(self, message: Message) -> None:
        error = message.error()
        code = error.code()
        topic = message.topic() or (self.plan.topics[0] if self.plan.topics else "")
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._out_of_range(topic, message.partition())
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            self._say(f"group '{self.plan.group}': {said(error)}")
        elif code != KafkaError._PARTITION_EOF:
            reason = topic_failure(error, topic, self.plan.peer, self.plan.group)
            if isinstance(reason, FatalError):
                if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    self._fatal = reason  # the next link would be granted, and lost, again
                self._lose(reason)
            else:
                self._say(f"topic '{topic}', partition {message.partition()}: {said(error)}")

    def _out_of_range(self, topic: str, number: int) -> None:
        """Where we stand there is nothing: deleted by age before we came to it, or the topic is another one.
        Go on with the oldest there is, and count what is missing."""
        position = self._positions.get(topic, {}).get(number)
        if position is None:
            return
        partition = TopicPartition(topic, number)
        try:
            low, high = self._watermarks(partition, _MOST_CALL_S)
            begun = position.next == position.base and not position.pending and position.seen < 0
            to = high if begun and position.next > high else low
            partition.offset = to
            self._consumer.seek(partition)
        except KafkaException as error:
            self._lose(ConnectionError(f"topic '{topic}', partition {number}: {said(error)}"))
            return
        missing = to - position.next
        text = f"topic '{topic}', partition {number} has no offset {position.next}: reading goes on at {to}"
        self._say(text)
        owner = self._owner
        if missing > 0 and not begun and owner is not None:
            self._tell(owner.passed_over, missing)
        position.jump(to)

    def _look(self) -> None:
        """Once in a while: partitions that were added, and whether anybody answers while nothing is read. The
        members of a group do both by themselves."""
        if self.plan.group:
            return
        if not self.plan.topics or self.plan.partition is not None:
            with contextlib.suppress(KafkaException):
                self._consumer.list_topics(self.plan.write_topic, timeout=self.plan.ping_s)
            return
        for topic in self.plan.topics:
            try:
                found = self._consumer.list_topics(topic, timeout=self.plan.ping_s).topics[topic]
            except KafkaException:
                return  # if there is nobody, that is heard of by itself
            count = len(found.partitions)
            if found.error is None and count > self._known[topic]:
                added = [TopicPartition(topic, number, 0) for number in range(self._known[topic], count)]
                for each in added:
                    self._stand(Position(topic, each.partition, 0))
                self._consumer.incremental_assign(added)
                if self._held:
                    self._consumer.pause(added)
                self._known[topic] = count


_TOMBSTONE = {"tombstone": True}


def _text(raw: Any) -> Any:
    """`str` where it is valid UTF-8."""
    if isinstance(raw, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode()
    return raw


def _seconds(timestamp: tuple[int, int]) -> float | None:
    return timestamp[1] / 1000 if timestamp[0] else None


def _headers(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    several: set[str] = set()
    for name, raw in pairs:
        value = _text(raw)
        if name not in found:
            found[name] = value
        elif name in several:
            found[name].append(value)
        else:
            several.add(name)
            found[name] = [found[name], value]
    return found
