"""The consumer and the thread that owns it. Long because all that touches the consumer is that thread's.

librdkafka connects again by itself, and a consumer that left its group and joins it anew costs every member a
rebalance. So a reader outlives the link: when all brokers are gone it tells its driver, stays as it is,
silent, and the next driver object takes it over as soon as a broker answers. It then goes back to the first
message that was not consumed; what a reader of the connection still holds, or had meanwhile, is known again
by partition and offset. Long because opening, losing and taking over are one story.

Messages are taken from librdkafka in batches, as many as the connection's buffer has room for: what is given
out and not consumed never exceeds it. A short stop just does not ask for more; after a second the partitions
are paused, so that the group's member goes on living while a strategy thinks.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from trunkline.actors.driver import Delivery, FatalError
from trunkline.actors.drivers.kafka.damage import Damage
from trunkline.actors.drivers.kafka.finder import MOST_CALL_S, Finder
from trunkline.actors.drivers.kafka.group import Group
from trunkline.actors.drivers.kafka.log import quiet_logger
from trunkline.actors.drivers.kafka.messages import deliveries
from trunkline.actors.drivers.kafka.offsets import Origin, Position, Positions, Token, settle
from trunkline.actors.drivers.kafka.places import Places
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.actors.drivers.kafka.seek import Seeker, Void
from trunkline.actors.drivers.kafka.silence import Silence
from trunkline.actors.drivers.kafka.words import (
    DAMAGED,
    UNKNOWN_TOPIC,
    UNREADABLE,
    cause,
    fenced_member,
    missing_topic,
    said,
    settings_failure,
    topic_failure,
)
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, TrunklineError
from trunkline.wire.place import Place

__all__ = ["Owner", "Reader"]

_POLL_S = 0.1
_BATCH = 1000
_COMMIT_S = 0.5
_HOLD_S = 1.0
"""So long a full buffer just stops asking; then the partitions are paused."""
_RECENT_S = 5.0
_ASK_ENDS_S = 5.0
_ASSIGNMENT_S = 60.0
"""So long a group may take to share its partitions: it waits for its slowest member."""
_GRACE_S = 1.5
"""A host may have several addresses, and librdkafka tries one at a time: the first refusal is not the last
word. It also reports the same failure only once, so that a later attempt hears nothing of it."""


class Owner(Protocol):
    """The driver that reads. Called on the loop."""

    def arrived(self, batch: Sequence[Delivery]) -> None: ...
    def went(self, reason: BaseException) -> None: ...
    def passed_over(self, count: int) -> None: ...
    def say(self, text: str) -> None: ...


class _Stopped(Exception):
    """The reader is to end."""


class Reader:
    """See the module. Public methods are called on the loop."""

    def __init__(self, plan: Plan, former: Reader | None = None, *, makes_topics: bool = True) -> None:
        """`former` is a reader of the same address that is useless (its login was refused, say). Without a
        group nobody but it knows where reading was, so this one goes on there. `makes_topics`: the broker may
        make topics that it does not know."""
        self.plan = plan
        self._known = former.known_topics() if former is not None else {}
        self._makes_topics = makes_topics
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._owner: Owner | None = None
        self._jobs: deque[tuple[Deadline, Owner, asyncio.Future[None]]] = deque()
        self._seeks: deque[tuple[Place, Deadline, asyncio.Future[Void]]] = deque()
        self._wake = threading.Event()
        self._stop = False
        self._paused = False
        self._given = self._settled = 0
        # From here on the thread's own.
        self._consumer: Any = None
        self._finder: Any = None
        self._places: Any = None
        self._damage: Any = None
        self._seeker: Any = None
        self._silence: Any = None
        self._group: Group | None = None
        known = former.positions_to_resume() if former is not None else None
        self._positions: Positions = known or Positions()
        self._started: bool = known is not None
        self._flowing = False
        self._held = False
        self._full_since: float | None = None
        self._early: list[Any] = []
        self._fatal: DialError | None = None
        self.fenced = False
        """Another member with the same group.instance.id has taken this one's place in the group."""
        self._trouble: DialError | None = None
        self._why_at = 0.0
        self._why: KafkaError | None = None
        self._down = False
        self._begun = 0.0
        self._commit_at = self._look_at = self._ends_at = 0.0
        self._unassigned_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="trunkline-kafka-read", daemon=True)

    # on the loop

    @property
    def useless(self) -> bool:
        """Nobody can read with it any more."""
        broken = self._group is not None and self._group.broken
        dead = self._fatal is not None and not self.fenced
        return broken or dead or not self._thread.is_alive()

    def positions_to_resume(self) -> Positions | None:
        """Where reading was, for the next reader; None where the group knows that, or nothing was read."""
        return self._positions if self._started and not self.plan.group else None

    def known_topics(self) -> dict[str, int]:
        """How many partitions the topics had at the first link."""
        return dict(self._finder.known) if self._finder is not None else dict(self._known)

    def lag(self) -> int | None:
        """How many messages the topics have that no reader has taken; None while their end is not known."""
        positions = list(self._positions)
        if not self.plan.topics or any(each.end < 0 for each in positions):
            return None
        return sum(each.unread for each in positions)

    async def open(self, owner: Owner, deadline: Deadline) -> None:
        """Find the topics and stand where reading begins, or go on where the former owner was. DialError."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._owner = owner
        self._jobs.append((deadline, owner, future))
        self._wake.set()
        if not self._thread.is_alive():
            self._thread.start()
        await future

    async def seek(self, place: Place, deadline: Deadline) -> Void:
        """Go on reading at `place`; see `StreamDriver.seek`."""
        future: asyncio.Future[Void] = self._loop.create_future()
        self._seeks.append((place, deadline, future))
        self._wake.set()
        if not self._thread.is_alive():
            raise ConnectionError("the link is gone")
        return await future

    def leave(self, owner: Owner) -> None:
        """The owner's link is over; the next one may take over. Nothing more is given to it."""
        if self._owner is owner:
            self._owner = None
            self._wake.set()

    async def close(self, seconds: float) -> None:
        """Commit what was consumed, leave the group, end. What takes longer goes on alone."""
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
                elif self._seeks:
                    self._seek(*self._seeks.popleft())
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
            for _, _, sought in self._seeks:
                self._answer(sought, ConnectionError("the connection was closed"))
            self._finish()
            self._tell(self._ended.set)

    def _finish(self) -> None:
        """Leave in good order where somebody is there to leave."""
        if self._group is not None and self._flowing:
            self._group.leave()
        # Without a broker closing could take long; destroying it, which the last reference does, does not.
        for each in (self._group, self._finder, self._places, self._damage):
            if each is not None:
                each.consumer = None
        if self._seeker is not None:
            self._seeker.forget_consumer()
        self._consumer = None

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens
            self._loop.call_soon_threadsafe(call, *arguments)

    def _say(self, text: str) -> None:
        owner = self._owner
        if owner is not None:
            self._tell(owner.say, text)

    def _pass_over(self, count: int) -> None:
        """Count messages that are lost, or that are not given out."""
        owner = self._owner
        if owner is not None:
            self._tell(owner.passed_over, count)

    def _answer(self, future: asyncio.Future[Any], error: BaseException | None, value: object = None) -> None:
        if error is not None:
            # Its frames refer to the consumer, which lives as long.
            error.__traceback__ = error.__context__ = None

        def answer() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self._tell(answer)

    # opening

    def _open(self, deadline: Deadline, owner: Owner, future: asyncio.Future[None]) -> None:
        try:
            if self._fatal is not None:
                raise self._fatal
            self._trouble = None
            self._begun = time.monotonic()
            if self._consumer is None:
                self._make()
            self._hold()  # the former link may have been lost a moment ago
            self._finder.find_topics(deadline)
            relinked = self._started
            self._stand(deadline)
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
            self._why, self._down = None, False
            self._flowing = True
            self._full_since = None
            # Partitions may have been added during an outage.
            self._look_at = 0.0 if relinked else time.monotonic() + self.plan.ping_s
            self._ends_at = 0.0
            self._silence.begin_anew()
            self._unassigned_since = None
            self._answer(future, None)

    def _make(self) -> None:
        plan = self.plan
        callbacks = {"error_cb": self._heard, "on_commit": self._on_commit}
        try:
            logger = quiet_logger(self._say, plan.debug, self._heard_log)
            consumer = Consumer({**plan.consumer, **callbacks}, logger=logger)
        except KafkaException as error:
            raise settings_failure(error) from None
        self._consumer = consumer
        finder = Finder(
            consumer, plan, self._check, self._serve, known=self._known, makes_topics=self._makes_topics
        )
        self._finder = finder
        self._damage = Damage(consumer, plan.peer, self._positions, self._say, self._pass_over)
        self._places = Places(consumer, plan, finder, self._positions, self._say, self._pass_over)
        if plan.group and plan.topics:
            self._group = Group(
                consumer, plan, finder, self._positions, self._say, self._lose, self._pass_over
            )
        self._silence = Silence(plan, finder, self._positions)
        self._seeker = Seeker(
            consumer,
            plan,
            self._positions,
            self._places,
            self._damage,
            self._group,
            self._check_seek,
            self._serve,
            self._forget_early,
        )

    def _seek(self, place: Place, deadline: Deadline, future: asyncio.Future[Void]) -> None:
        try:
            self._check_seek(deadline, "")
            void = self._seeker.seek(place, deadline, held=self._held)
        except _Stopped:
            self._answer(future, ConnectionError("the connection was closed"))
            raise
        except (OSError, TrunklineError) as error:
            self._answer(future, error)
        except Exception as error:
            self._answer(future, ConnectionError(f"librdkafka failed: {type(error).__name__}: {error}"))
            raise
        else:
            self._answer(future, None, void)

    def _check_seek(self, deadline: Deadline, waiting_for: str) -> None:
        """Go on with a seek?"""
        if self._stop:
            raise _Stopped
        if not self._flowing:
            raise ConnectionError("the link is gone")
        if deadline.expired():
            raise TimeoutError(waiting_for)

    def _forget_early(self, topic: str, number: int) -> None:
        self._early = [each for each in self._early if (each.topic(), each.partition()) != (topic, number)]

    def _heard_log(self, text: str) -> None:
        if self._places is not None:
            self._places.note_log_line(text)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if self._group is not None:
            self._group.committed(error, partitions)

    def _serve(self, seconds: float) -> None:
        """Let librdkafka call back; a message that comes early waits."""
        if self._group is not None and self._group.within:
            return
        message = self._consumer.poll(seconds)
        if message is None:
            return
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            self._partition_error(message)
        else:  # the end in its place, behind messages
            self._early.append(message)

    def _check(self, deadline: Deadline, waiting_for: str) -> None:
        """Go on with opening?"""
        self._serve(0)
        if self._stop:
            raise _Stopped
        if self._fatal is not None:
            raise self._fatal
        if self._trouble is not None:
            raise self._trouble
        if (self._why or self._down) and (time.monotonic() - self._begun > _GRACE_S or deadline.expired()):
            if self._why is not None:
                raise cause(self._why, self.plan.peer)
            raise DialError(
                f"{self.plan.peer} closed the connection; check the port, and whether it wants a login or TLS"
            )
        if deadline.expired():
            raise DialTimeout(f"{waiting_for} in the time allowed")

    def _stand(self, deadline: Deadline) -> None:
        """Where reading begins, or where it was."""
        group = self._group
        if self._started:
            self._go_back()
            if group is not None:  # a list of all topics is also what makes librdkafka look for its own
                self._finder.ask(lambda seconds: self._consumer.list_topics(timeout=seconds), deadline)
        elif group is not None:
            group.join()
        elif self.plan.topics:
            starts = self._finder.starts(self._finder.partitions(), deadline)
            by_number = self.plan.start >= 0 and not self.plan.start_is_time
            origin = Origin.ADDRESS if by_number else Origin.BROKER
            for each in starts:
                self._positions.put(Position(each.topic, each.partition, each.offset, origin=origin))
            self._consumer.assign(starts)
        self._started = True
        if group is not None:
            while not group.assigned:
                self._serve(_POLL_S)
                self._check(deadline, f"group '{self.plan.group}' gave no partitions")
            group.commit_starts(lambda: self._check_again(deadline))

    def _check_again(self, deadline: Deadline) -> None:
        self._check(deadline, f"group '{self.plan.group}' took no commit")
        self._serve(0.05)

    def _go_back(self) -> None:
        """To the first message of each partition that no reader has; called with everything paused."""
        self._early.clear()
        if self._group is not None:
            self._group.forget()
        else:
            self._places.forget_gone()
        again = [position.again() for position in self._positions]
        starts = [TopicPartition(each.topic, each.partition, each.base) for each in again]
        for each in again:
            self._positions.put(each)
        if self._group is not None:
            # Not by assigning anew: that would wait for a commit that went out as the link was lost.
            for start in starts:
                if not self._places.is_lost(start.topic, start.partition):  # those are mended a moment later
                    self._consumer.seek(start)
        elif starts:
            self._consumer.assign(starts)
            self._consumer.pause(starts)

    # what librdkafka reports

    def _heard(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:
            self._down = True
            if self._flowing:
                recent = self._why is not None and time.monotonic() - self._why_at < _RECENT_S
                self._lose(cause(self._why, self.plan.peer) if self._why and recent else None)
            return
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self.plan.group:
            return
        if code in (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._SSL, KafkaError._AUTHENTICATION):
            self._why, self._why_at = error, time.monotonic()
            reason = cause(error, self.plan.peer)
            if isinstance(reason, FatalError) and not self._flowing:
                self._fatal = reason
            return
        if error.fatal():
            self._end(error)
            return
        if self.plan.topics:
            reason = self._topic_failure(error, self.plan.topics[0])
            if isinstance(reason, FatalError):
                self._fatal = reason
                self._lose(reason)
                return
            if code in UNKNOWN_TOPIC:
                self._lose(reason)
                return
        self._say(f"librdkafka: {said(error)}")

    def _lose(self, reason: BaseException | None) -> None:
        """The link is gone: say so once, and be silent until somebody takes over."""
        if not self._flowing:
            if isinstance(reason, FatalError):
                self._fatal = reason
            elif isinstance(reason, DialError):
                self._trouble = reason
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
        self._mend_places()
        if not self._flowing:
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
        if self._group is not None and now >= self._commit_at:
            self._commit_at = now + _COMMIT_S
            with contextlib.suppress(KafkaException):
                self._group.commit()
        if now >= self._ends_at:
            self._ends_at = now + (_ASK_ENDS_S if self._held else _COMMIT_S)
            with contextlib.suppress(KafkaException):
                self._places.note_ends(ask=self._held)
            if not self._held and (silent := self._silence.look()):
                self._lose(silent)
        if now >= self._look_at:
            self._look_at = now + self.plan.ping_s
            self._look()
        self._check_assignment(now)

    def _mend_places(self) -> None:
        if self._early:
            self._early = [each for each in self._early if not self._places.is_remade(each.topic())]
        try:
            self._places.mend(held=self._held)
            self._damage.step_over()
        except KafkaException as error:
            self._lose(ConnectionError(f"a topic of {self.plan.peer}: {said(error)}"))

    def _check_assignment(self, now: float) -> None:
        """A member that waits for its group for too long says so, instead of being open and silent."""
        if self._group is None or self._group.assigned:
            self._unassigned_since = None
        elif self._unassigned_since is None:
            self._unassigned_since = now
        elif now - self._unassigned_since > _ASSIGNMENT_S:
            self._lose(ConnectionError(f"group '{self.plan.group}' gives this member no partitions any more"))

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
        if self._group is not None:
            self._group.held = True
        with contextlib.suppress(KafkaException):
            self._consumer.pause(self._consumer.assignment())

    def _release(self) -> None:
        self._held = False
        if self._group is not None:
            self._group.held = False
        with contextlib.suppress(KafkaException):
            self._consumer.resume(self._consumer.assignment())

    def _read(self, most: int) -> None:
        if self._early:
            batch, self._early = self._early[:most], self._early[most:]
        else:
            batch = self._consumer.consume(most, 0)
            if not batch:
                begun = time.monotonic()
                message = self._consumer.poll(_POLL_S)
                self._silence.waited(min(time.monotonic() - begun, 2 * _POLL_S))
                if message is None:
                    return
                batch = [message]
                if most > 1:
                    batch += self._consumer.consume(most - 1, 0)
        owner = self._owner
        if not self._flowing or owner is None:
            return  # lost meanwhile: all this comes again
        batch = self._places.without_new(batch)
        found = deliveries(
            batch,
            self._positions,
            self.plan.max_size,
            self._partition_error,
            self._too_large,
            self._no_headers,
        )
        self._damage.came(found)
        if found:
            self._given += len(found)
            self._tell(owner.arrived, found)

    def _too_large(self, topic: str, size: int) -> None:
        self._pass_over(1)
        self._say(f"a message of {size} bytes in '{topic}' was passed over: it is larger than max_size")

    def _no_headers(self, topic: str) -> None:
        self._say(f"a message in '{topic}' has headers that cannot be read: it comes without them")

    def _partition_error(self, message: Any) -> None:
        error = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._at_end(message)
            return
        topic = message.topic() or (self.plan.topics[0] if self.plan.topics else "")
        if code in (
            KafkaError._AUTO_OFFSET_RESET,
            KafkaError.OFFSET_OUT_OF_RANGE,
            KafkaError._LOG_TRUNCATION,
        ):
            self._places.note_lost(topic, message.partition())
        elif code in DAMAGED:
            self._damage.note(topic, message.partition(), said(error))
        elif code in UNREADABLE and (reason := self._damage.refused(topic, message.partition(), said(error))):
            self._lose(reason)
        elif code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID) or error.fatal():
            self._end(error)
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED and not self.plan.group:
            pass  # librdkafka looks for a group's coordinator in any case
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            self._say(f"group '{self.plan.group}': {said(error)}")
        else:
            reason = self._topic_failure(error, topic)
            if isinstance(reason, FatalError) or code in UNKNOWN_TOPIC:
                if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    self._fatal = reason  # the next link would be granted, and lost, again
                self._lose(reason)
            else:
                self._say(f"topic '{topic}', partition {message.partition()}: {said(error)}")

    def _at_end(self, message: Any) -> None:
        """There is nothing before this offset any more."""
        position = self._positions.get(message.topic(), message.partition())
        if position is not None and message.offset() > position.next:
            position.next = message.offset()

    def _topic_failure(self, error: KafkaError, topic: str) -> DialError:
        if self._started and error.code() in UNKNOWN_TOPIC:
            return missing_topic(topic, self.plan.peer)
        return topic_failure(error, topic, self.plan.peer, self.plan.group)

    def _end(self, error: KafkaError) -> None:
        """This consumer will never give a message again. One that another member has fenced stays as it is
        (`fenced`): a new one would take the place back, and the two would go on like that."""
        self.fenced = "fenced" in said(error).lower()
        if self.fenced:
            self._fatal = fenced_member(self.plan.group, self.plan.peer)
        else:
            self._fatal = DialError(f"librdkafka gave up reading: {said(error)}")
        self._lose(self._fatal)

    def _look(self) -> None:
        """Once in a while: partitions that were added, and whether anybody answers while nothing is read. The
        members of a group do both by themselves."""
        if self.plan.group:
            return
        if not self.plan.topics or self.plan.partition is not None:
            with contextlib.suppress(KafkaException):
                self._consumer.list_topics(self.plan.write_topic, timeout=MOST_CALL_S)
            return
        for topic in self.plan.topics:
            try:
                found = self._consumer.list_topics(topic, timeout=MOST_CALL_S).topics[topic]
            except KafkaException:
                return  # if there is nobody, that is heard of by itself
            count = len(found.partitions)
            if found.error is None and count > self._finder.known[topic]:
                added = [
                    TopicPartition(topic, number, 0) for number in range(self._finder.known[topic], count)
                ]
                for each in added:
                    self._positions.put(Position(topic, each.partition, 0))
                self._consumer.incremental_assign(added)
                if self._held:
                    self._consumer.pause(added)
                self._finder.known[topic] = count
