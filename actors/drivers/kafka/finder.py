"""Asking the brokers for the partitions of a topic, and for the offsets at which reading begins.

The calls block. They run on the reader's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.kafka.errors import NOT_YET, missing_topic, topic_failure
from trunkline.actors.drivers.kafka.log import quiet_logger
from trunkline.actors.drivers.kafka.plan import EARLIEST, Plan
from trunkline.deadline import Deadline

__all__ = ["CREATION_S", "MOST_CALL_S", "Finder"]

CREATION_S = 5.0
"""Seconds for which an unknown topic may still be in the making."""
MOST_CALL_S = 2.0


class Finder:
    """Asks the brokers on behalf of one consumer.

    `check` raises when opening, or a seek, must not go on. `serve` lets librdkafka make its
    callbacks.
    """

    def __init__(
        self,
        consumer: Any,
        plan: Plan,
        check: Callable[[Deadline, str], None],
        serve: Callable[[float], None],
        *,
        known: Mapping[str, int],
        makes_topics: bool,
    ) -> None:
        self.consumer = consumer
        self.plan = plan
        self.known = dict(known)
        """How many partitions each topic had at the first link. Partitions made later are read from
        the beginning.
        """
        self.counts: dict[str, int] = {}
        """How many partitions the topics of the address had when they were last looked up."""
        self._makes_topics = makes_topics
        """Whether the broker may make missing topics. Only the first link allows that: later a
        deleted topic is waited for.
        """
        self.has_patterns = any(topic.startswith("^") for topic in plan.topics)
        self._listed = bool(known)
        """Whether `known` holds the topics that existed before the group was joined."""
        self._check = check
        self._serve = serve

    def ask(self, call: Callable[[float], Any], deadline: Deadline) -> Any:
        """Make a blocking call in pieces, and check for errors between them.

        The pieces grow from 0.05 to 2 s: a piece that is shorter than the round trip to the broker
        would never succeed. Raises whatever `check` raises, and KafkaException for errors that do
        not pass.
        """
        seconds = 0.05
        while True:
            self._check(deadline, f"no answer from {self.plan.peer}")
            try:
                return call(max(0.01, min(seconds, deadline.left())))
            except KafkaException as error:
                code = error.args[0].code()
                if code in NOT_YET:
                    self._serve(0.05)
                elif code not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                    raise
            seconds = min(2 * seconds, MOST_CALL_S)

    def find_topics(self, deadline: Deadline) -> None:
        """Wait until every topic exists with a leader for each partition.

        Raises DialError where one cannot be had.
        """
        names = dict.fromkeys((*self.plan.topics, self.plan.write_topic))
        if self.has_patterns and not self._listed:
            everything = self.ask(
                lambda seconds: self.consumer.list_topics(timeout=seconds), deadline
            )
            self.known.update(
                {name: len(about.partitions) for name, about in everything.topics.items()}
            )
            self._listed = True
        for topic in names:
            if topic and not topic.startswith("^"):
                count = self.counts[topic] = self._find_topic(topic, deadline)
                self.known.setdefault(topic, count)
        self._makes_topics = False

    def _find_topic(self, topic: str, deadline: Deadline) -> int:
        """Return how many partitions the topic has, once each of them has a leader.

        A missing topic may be in the making, so it is looked up again for `CREATION_S` seconds.
        """
        patience = Deadline(CREATION_S)
        pause = 0.01
        while True:
            found = self.ask(
                lambda seconds: self.consumer.list_topics(topic, timeout=seconds), deadline
            )
            about = found.topics[topic]
            error = about.error
            if error is None and about.partitions:
                if all(each.leader >= 0 for each in about.partitions.values()):
                    return len(about.partitions)
            elif error is not None and error.code() not in NOT_YET:
                raise topic_failure(error, topic, self.plan.peer, self.plan.group)
            elif error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                if not self._makes_topics:
                    raise missing_topic(topic, self.plan.peer)
                self._have_topic_made(topic)
            if patience.expired() and error is not None:
                raise topic_failure(error, topic, self.plan.peer, self.plan.group)
            self._check(deadline, f"the topic '{topic}' of {self.plan.peer} has no leader")
            self._serve(pause)
            pause = min(2 * pause, 0.2)

    def _have_topic_made(self, topic: str) -> None:
        """Ask for the topic as a producer does.

        A broker with auto.create.topics.enable then makes the topic.

        The answer is ignored, because `_find_topic` looks the topic up again.
        """
        if not self.plan.may_make_topics:
            return
        settings = {**self.plan.producer, "allow.auto.create.topics": True}
        with contextlib.suppress(KafkaException):
            Producer(settings, logger=quiet_logger(lambda _: None)).list_topics(
                topic, timeout=MOST_CALL_S
            )

    def count_partitions(self, topic: str, seconds: float) -> int:
        """Return how many partitions the topic has now; KafkaException where no broker answers."""
        about = self.consumer.list_topics(topic, timeout=seconds).topics[topic]
        if about.error is not None:
            raise KafkaException(about.error)
        return len(about.partitions)

    def partitions(self) -> list[tuple[str, int]]:
        """Return all partitions to read; FatalError where the address names a partition that does
        not exist.
        """
        only = self.plan.partition
        found = []
        for topic in self.plan.topics:
            count = self.known[topic]
            if only is not None and only >= count:
                raise FatalError(
                    f"the topic '{topic}' has the partitions 0 to {count - 1}; check partition={only}"
                )
            found += [(topic, number) for number in (range(count) if only is None else (only,))]
        return found

    def starts(
        self, wanted: list[tuple[str, int]], deadline: Deadline, start: int | None = None
    ) -> list[TopicPartition]:
        """Return the starting offset of each partition.

        The offsets are numbers, so every message written from now on stands behind them.
        """
        plan = self.plan
        if start is None and plan.start >= 0 and not plan.start_is_time:
            return [TopicPartition(*each, plan.start) for each in wanted]
        sought = plan.start if start is None else start
        found = self._offsets_at(wanted, sought, deadline)
        late = [(each.topic, each.partition) for each in found if each.offset < 0]
        if not late:
            return found
        # No offset was found: the time is after the last message, or an old broker does not know
        # the question.
        there = [each for each in found if each.offset >= 0]
        for topic, number in late:
            partition = TopicPartition(topic, number)
            low, high = self.ask(partial(self.watermarks, partition), deadline)
            there.append(TopicPartition(topic, number, low if sought == EARLIEST else high))
        return there

    def _offsets_at(
        self, wanted: list[tuple[str, int]], sought: int, deadline: Deadline
    ) -> list[TopicPartition]:
        """Ask for the offsets at a time; repeated while a partition moves."""
        asked = [TopicPartition(*each, sought) for each in wanted]
        while True:
            found: list[TopicPartition] = self.ask(
                lambda seconds: self.consumer.offsets_for_times(asked, timeout=seconds), deadline
            )
            wrong = next((each for each in found if each.error is not None), None)
            if wrong is None:
                return found
            assert wrong.error is not None
            if wrong.error.code() not in NOT_YET:
                raise topic_failure(wrong.error, wrong.topic, self.plan.peer, self.plan.group)
            self._check(deadline, f"the topic '{wrong.topic}' of {self.plan.peer} gave no offsets")
            self._serve(0.05)

    def watermarks(self, partition: TopicPartition, seconds: float) -> tuple[int, int]:
        """Return the first offset of a partition, and the offset behind its last message."""
        found = self.consumer.get_watermark_offsets(partition, timeout=seconds)
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = found
        return low, high
