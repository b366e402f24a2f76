"""librdkafka's consumer, and the parts of the reader that work on it.

A session lives as long as the consumer, over all links that the consumer survives. `stand` brings
reading to the place where it begins, or where it was. Runs on the reader's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from trunkline.actors.drivers.kafka.damage import Damage
from trunkline.actors.drivers.kafka.errors import settings_failure
from trunkline.actors.drivers.kafka.fetching import POLL_S, Fetcher
from trunkline.actors.drivers.kafka.finder import Finder
from trunkline.actors.drivers.kafka.group import Group
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.log import quiet_logger
from trunkline.actors.drivers.kafka.loop_side import LoopSide
from trunkline.actors.drivers.kafka.offsets import Origin, Position, Positions
from trunkline.actors.drivers.kafka.places import Places
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.actors.drivers.kafka.seek import Seeker
from trunkline.actors.drivers.kafka.silence import Silence
from trunkline.deadline import Deadline

__all__ = ["Session"]

Check = Callable[[Deadline, str], None]


class Session:
    """One consumer with its parts."""

    def __init__(
        self,
        plan: Plan,
        positions: Positions,
        link: LinkState,
        loop_side: LoopSide,
        *,
        known: Mapping[str, int],
        makes_topics: bool,
        check_opening: Check,
        check_seek: Check,
    ) -> None:
        """Make the consumer and its parts. FatalError where librdkafka refuses a setting.

        `known`: how many partitions the topics had at the first link. `makes_topics`: whether the
        broker may make missing topics. `check_opening` and `check_seek` raise when an opening or a
        seek must not go on.
        """
        self._plan = plan
        self._positions = positions
        self._link = link
        self._check_opening = check_opening
        self._has_parts = False
        logger = quiet_logger(loop_side.warn, plan.debug, self._note_log_line)
        callbacks = {"error_cb": link.note_error, "on_commit": self._note_commit}
        try:
            consumer = Consumer({**plan.consumer, **callbacks}, logger=logger)
        except KafkaException as error:
            raise settings_failure(error) from None
        warn, pass_over = loop_side.warn, loop_side.pass_over
        self.consumer: Any = consumer
        self.finder = Finder(
            consumer, plan, check_opening, self.serve, known=known, makes_topics=makes_topics
        )
        self.damage = Damage(consumer, plan.peer, positions, warn, pass_over)
        self.places = Places(consumer, plan, self.finder, positions, warn, pass_over)
        self.group: Group | None = None
        if plan.group and plan.topics:
            self.group = Group(consumer, plan, self.finder, positions, warn, link.lose, pass_over)
        self.silence = Silence(plan, self.finder, positions)
        self.fetcher = Fetcher(
            consumer,
            plan,
            positions,
            link,
            loop_side,
            places=self.places,
            damage=self.damage,
            silence=self.silence,
            group=self.group,
        )
        self.seeker = Seeker(
            consumer,
            plan,
            positions,
            self.places,
            self.damage,
            self.group,
            check_seek,
            self.serve,
            self.fetcher.forget_early,
        )
        self._has_parts = True

    def serve(self, seconds: float) -> None:
        """Let librdkafka make its callbacks for at most `seconds`."""
        self.fetcher.serve(seconds)

    def stand(self, deadline: Deadline) -> None:
        """Bring every partition to the place where reading begins, or where it was.

        Raises DialError.
        """
        if self._link.knows_positions:
            self._go_back(deadline)
        elif self.group is not None:
            self.group.join()
        elif self._plan.topics:
            self._begin_reading(deadline)
        self._link.knows_positions = True
        if self.group is not None:
            self._wait_for_partitions(self.group, deadline)

    def _begin_reading(self, deadline: Deadline) -> None:
        """Without a group: read all partitions from the place that the address names."""
        starts = self.finder.starts(self.finder.partitions(), deadline)
        by_number = self._plan.start >= 0 and not self._plan.start_is_time
        origin = Origin.ADDRESS if by_number else Origin.BROKER
        for each in starts:
            self._positions.put(Position(each.topic, each.partition, each.offset, origin=origin))
        self.consumer.assign(starts)

    def _wait_for_partitions(self, group: Group, deadline: Deadline) -> None:
        """Wait until the group has assigned partitions and has taken the offsets at which reading
        begins.
        """
        while not group.assigned:
            self.serve(POLL_S)
            self._check_opening(deadline, f"group '{self._plan.group}' gave no partitions")

        def check_again() -> None:
            self._check_opening(deadline, f"group '{self._plan.group}' took no commit")
            self.serve(0.05)

        group.commit_starts(check_again)

    def _go_back(self, deadline: Deadline) -> None:
        """Go back to the first unread message of each partition.

        All partitions must be paused.
        """
        self.fetcher.forget_all_early()
        if self.group is None:
            self.places.forget_gone()
        else:
            self.group.forget()
        again = [position.again() for position in self._positions]
        starts = [TopicPartition(each.topic, each.partition, each.base) for each in again]
        for each in again:
            self._positions.put(each)
        if self.group is not None:
            self._seek_back(starts)
            # Asking for the full list of topics also makes librdkafka look for its own topics.
            self.finder.ask(lambda seconds: self.consumer.list_topics(timeout=seconds), deadline)
        elif starts:
            self.consumer.assign(starts)
            self.consumer.pause(starts)

    def _seek_back(self, starts: list[TopicPartition]) -> None:
        """Have librdkafka go back to the given offsets."""
        # A new assignment would wait for a commit that was sent as the link was lost. A seek does
        # not wait.
        for start in starts:
            # Partitions that librdkafka has given up are mended a moment later.
            if not self.places.is_lost(start.topic, start.partition):
                self.consumer.seek(start)

    def close(self) -> None:
        """Leave the group where a broker can be told, and release the consumer."""
        if self.group is not None and self._link.is_open:
            self.group.leave()
        # Without a broker, closing the consumer could take long. Destroying it is quick, and
        # happens when the last reference is dropped.
        for part in (self.group, self.finder, self.places, self.damage, self.fetcher):
            if part is not None:
                part.consumer = None
        self.seeker.forget_consumer()
        self.consumer = None

    # callbacks of librdkafka

    def _note_log_line(self, text: str) -> None:
        if self._has_parts:  # librdkafka may log while the consumer is being made
            self.places.note_log_line(text)

    def _note_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if self.group is not None:
            self.group.committed(error, partitions)
