"""Offsets that do not exist any more: deleted by age, or because the topic was deleted and made
anew.

librdkafka reports such an offset once, by an error event, or by a line of its log for a topic made
anew. The report may come whenever librdkafka is polled: while a link is opened, while the buffer is
full, in the middle of a batch. librdkafka then fetches nothing more from the partition. So a report
is only noted at first, and the next turn of the reading loop mends the place, with or without a
message. Runs on the reader's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from trunkline.actors.drivers.kafka.finder import MOST_CALL_S, Finder
from trunkline.actors.drivers.kafka.log import remade_topic
from trunkline.actors.drivers.kafka.offsets import Position, Positions, place_instead
from trunkline.actors.drivers.kafka.plan import EARLIEST, LATEST, Plan

__all__ = ["Places"]


class Places:
    """Mends the places of one consumer.

    `say` writes to the user's log, `pass_over` counts lost messages.
    """

    def __init__(
        self,
        consumer: Any,
        plan: Plan,
        finder: Finder,
        positions: Positions,
        say: Callable[[str], None],
        pass_over: Callable[[int], None],
    ) -> None:
        self.consumer = consumer
        self._plan = plan
        self._finder = finder
        self._positions = positions
        self._say = say
        self._pass_over = pass_over
        self._lost: dict[tuple[str, int], None] = {}
        self._remade: dict[str, None] = {}

    # reports of librdkafka

    def note_lost(self, topic: str, number: int) -> None:
        """Note that the partition has no message at the requested offset."""
        self._lost[topic, number] = None

    def note_log_line(self, text: str) -> None:
        """Read a line of librdkafka's log: the line may report a topic made anew."""
        topic = remade_topic(text)
        if topic is not None and topic in self._positions.by_topic:
            self._remade[topic] = None

    def is_lost(self, topic: str, number: int) -> bool:
        """Whether librdkafka has given up the partition, and with that also seeking."""
        return (topic, number) in self._lost

    def is_remade(self, topic: str) -> bool:
        """Whether the topic was made anew and reading has not begun at its beginning yet."""
        return topic in self._remade

    def without_new(self, batch: list[Any]) -> list[Any]:
        """Return the batch without messages of a topic that turned out to be made anew.

        The report may come while the batch is taken, so the batch has messages of both topics.
        Those of the new topic are dropped here and fetched again from its beginning. A single
        message came after the report, so it is new. Of several messages, those before the end of
        the former topic count as old.
        """
        if not self._remade:
            return batch
        return [each for each in batch if not self._is_new(each, alone=len(batch) == 1)]

    def _is_new(self, message: Any, *, alone: bool) -> bool:
        if message.topic() not in self._remade:
            return False
        position = self._positions.get(message.topic(), message.partition())
        return alone or position is None or message.offset() >= position.end

    # mending

    def mend(self, *, held: bool) -> None:
        """Go on where there are messages, and count the missing ones.

        `held`: partitions are paused.

        Raises KafkaException where no broker answers; the places stay noted for the next try.
        """
        while self._remade:
            topic = next(iter(self._remade))
            self._begin_anew(topic, held=held)
            del self._remade[topic]
        while self._lost:
            topic, number = next(iter(self._lost))
            position = self._positions.get(topic, number)
            if position is not None:
                self._go_on(position, held=held)
            del self._lost[topic, number]

    def _go_on(self, position: Position, *, held: bool) -> None:
        """Find where a partition goes on, move its position, and report the loss."""
        wanted = position.next
        place = TopicPartition(position.topic, position.partition)
        low, high = self._finder.watermarks(place, MOST_CALL_S)
        to, missing = place_instead(position, low, high, earliest=self._plan.start == EARLIEST)
        position.jump(to)
        position.end = high
        self._fetch_from_positions(position.topic, held=held)
        if to == wanted:
            return
        name = f"topic '{position.topic}', partition {position.partition}"
        lost = f"; {missing} messages are lost" if missing else ""
        self._say(f"{name} has no offset {wanted}: reading goes on at {to}{lost}")
        if missing:
            self._pass_over(missing)

    def _begin_anew(self, topic: str, *, held: bool) -> None:
        """Read a topic that was made anew from its beginning.

        Unread messages of the former topic are lost.
        """
        former = self._positions.by_topic.get(topic, {})
        missing = sum(max(0, each.end - each.next) for each in former.values())
        count = self._finder.count_partitions(topic, MOST_CALL_S)
        numbers = [
            number for number in sorted(former) if number < count
        ]  # the group assigns the others later
        if not self._plan.group and self._plan.partition is None:
            numbers = list(range(count))
        for gone in set(former) - set(numbers):
            self._positions.pop(topic, gone)
        for number in numbers:
            self._positions.put(Position(topic, number, 0))
        self._finder.known[topic] = max(len(numbers), 1 + max(numbers, default=-1))
        self._fetch_from_positions(topic, held=held)
        lost = f"; {missing} unread messages of the former one are lost" if missing else ""
        self._say(f"topic '{topic}' was deleted and made anew: it is read from its beginning{lost}")
        if missing:
            self._pass_over(missing)

    def forget_gone(self) -> None:
        """Without a group: forget partitions that do not exist any more, as the new topic has fewer
        of them.
        """
        for each in self._positions:
            count = self._finder.counts.get(each.topic, each.partition + 1)
            if self._plan.partition is None and each.partition >= count:
                self._positions.pop(each.topic, each.partition)
                self._finder.known[each.topic] = count
                if (missing := max(0, each.end - each.next)) > 0:
                    self._pass_over(missing)

    def _fetch_from_positions(self, topic: str, *, held: bool) -> None:
        """Have librdkafka fetch the topic at the known positions, whatever its own positions
        are.
        """
        if self._plan.cooperative:
            places = [_place(each) for each in self._positions if each.topic == topic]
            with contextlib.suppress(KafkaException):  # a partition that was not assigned
                self.consumer.incremental_unassign(places)
            self.consumer.incremental_assign(places)
        else:
            places = [_place(each) for each in self._positions]
            self.consumer.assign(places)
        if held:
            self.consumer.pause(places)

    def fetch_anew(self, *, held: bool) -> None:
        """Have librdkafka fetch all partitions at the known positions."""
        for topic in tuple(self._positions.by_topic) if self._plan.cooperative else ("",):
            self._fetch_from_positions(topic, held=held)

    def find_new_partitions(self, *, held: bool) -> None:
        """Without a group: read partitions that were added, from their beginning.

        `held`: partitions are paused.

        The question also shows whether a broker answers while nothing is read.
        """
        plan = self._plan
        if not plan.topics or plan.partition is not None:
            with contextlib.suppress(KafkaException):
                self.consumer.list_topics(plan.write_topic, timeout=MOST_CALL_S)
            return
        for topic in plan.topics:
            try:
                found = self.consumer.list_topics(topic, timeout=MOST_CALL_S).topics[topic]
            except KafkaException:
                return  # librdkafka itself reports the loss of the brokers
            count = len(found.partitions)
            if found.error is None and count > self._finder.known[topic]:
                self._add_partitions(topic, range(self._finder.known[topic], count), held=held)
                self._finder.known[topic] = count

    def _add_partitions(self, topic: str, numbers: range, *, held: bool) -> None:
        """Read new partitions of a topic from their beginning."""
        added = [TopicPartition(topic, number, 0) for number in numbers]
        for number in numbers:
            self._positions.put(Position(topic, number, 0))
        self.consumer.incremental_assign(added)
        if held:
            self.consumer.pause(added)

    # the end of the partitions

    def note_ends(self, *, ask: bool) -> None:
        """Note where the partitions end.

        The last fetch has brought the ends. With `ask` the broker is asked, because paused
        partitions are not fetched.
        """
        positions = list(self._positions)
        if ask and positions:
            wanted = [TopicPartition(each.topic, each.partition, LATEST) for each in positions]
            found = self.consumer.offsets_for_times(wanted, timeout=MOST_CALL_S)
            ends = {
                (each.topic, each.partition): each.offset for each in found if each.error is None
            }
            for each in positions:
                each.end = max(each.end, ends.get((each.topic, each.partition), -1))
            return
        for each in positions:
            found = self.consumer.get_watermark_offsets(
                TopicPartition(each.topic, each.partition), cached=True
            )
            if found is not None and not self.is_remade(each.topic):
                each.end = max(each.end, found[1])


def _place(position: Position) -> TopicPartition:
    return TopicPartition(position.topic, position.partition, position.next)
