"""Offsets that are not there any more: deleted by age, or of a topic that was deleted and made anew.

librdkafka reports such a place once, by an error event (or, for a topic made anew, by a line of its log), at
whatever moment it is served: while a link is opened, while a full buffer waits, in the middle of a batch. It
then fetches nothing more of the partition. So what it reports is only noted here, and mended at the next
turn of the reading loop, whether a message has come or not. For the reader's thread.
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
    """See the module. `say` is for the user's log, `pass_over` counts messages that are lost."""

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

    # what librdkafka reports

    def note_lost(self, topic: str, number: int) -> None:
        """The partition has no message at the offset that was asked for."""
        self._lost[topic, number] = None

    def note_log_line(self, text: str) -> None:
        """A line of librdkafka's log, which may say that a topic was made anew."""
        topic = remade_topic(text)
        if topic is not None and topic in self._positions.by_topic:
            self._remade[topic] = None

    def is_lost(self, topic: str, number: int) -> bool:
        """librdkafka has given the partition up, so that it cannot seek in it."""
        return (topic, number) in self._lost

    def is_remade(self, topic: str) -> bool:
        """The topic was made anew, and reading has not begun at its beginning yet."""
        return topic in self._remade

    def without_new(self, batch: list[Any]) -> list[Any]:
        """The messages without those of a topic that was found to be made anew while the batch was taken:
        they come again, from its beginning. A message that came alone came after that news; of several,
        those before the former topic's end count as its own."""
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
        """Go on where there is something, and count what is missing. `held`: partitions are paused.
        KafkaException where no broker answers; then it is tried again later."""
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
        """Read a topic that was made anew from its beginning. What was not read of the former one is lost."""
        former = self._positions.by_topic.get(topic, {})
        missing = sum(max(0, each.end - each.next) for each in former.values())
        count = self._finder.count_partitions(topic, MOST_CALL_S)
        numbers = [
            number for number in sorted(former) if number < count
        ]  # the group shares the rest later
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
        """Without a group: partitions that are not there any more, as the topic was made anew with fewer."""
        for each in self._positions:
            count = self._finder.counts.get(each.topic, each.partition + 1)
            if self._plan.partition is None and each.partition >= count:
                self._positions.pop(each.topic, each.partition)
                self._finder.known[each.topic] = count
                if (missing := max(0, each.end - each.next)) > 0:
                    self._pass_over(missing)

    def _fetch_from_positions(self, topic: str, *, held: bool) -> None:
        """Have librdkafka fetch the topic where the positions are, whatever became of its own."""
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
        """Have librdkafka fetch all partitions where the positions are."""
        for topic in tuple(self._positions.by_topic) if self._plan.cooperative else ("",):
            self._fetch_from_positions(topic, held=held)

    def find_new_partitions(self, *, held: bool) -> None:
        """Without a group: read partitions that were added since, from their beginning. The question also
        shows whether a broker answers while nothing is read. `held`: partitions are paused."""
        plan = self._plan
        if not plan.topics or plan.partition is not None:
            with contextlib.suppress(KafkaException):
                self.consumer.list_topics(plan.write_topic, timeout=MOST_CALL_S)
            return
        for topic in plan.topics:
            try:
                found = self.consumer.list_topics(topic, timeout=MOST_CALL_S).topics[topic]
            except KafkaException:
                return  # librdkafka reports by itself that no broker answers
            count = len(found.partitions)
            if found.error is None and count > self._finder.known[topic]:
                self._add_partitions(topic, range(self._finder.known[topic], count), held=held)
                self._finder.known[topic] = count

    def _add_partitions(self, topic: str, numbers: range, *, held: bool) -> None:
        added = [TopicPartition(topic, number, 0) for number in numbers]
        for number in numbers:
            self._positions.put(Position(topic, number, 0))
        self.consumer.incremental_assign(added)
        if held:
            self.consumer.pause(added)

    # how far it is to the end

    def note_ends(self, *, ask: bool) -> None:
        """Note where the partitions end: as the last fetch told or, with `ask`, by a question (while
        partitions are paused there are no fetches)."""
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
