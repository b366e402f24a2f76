"""Going on to read at another place of the log: `Connection.seek`. Runs on the reader's thread.

First the seek is checked against every reason for a refusal. Only then the partitions are moved.
Each partition gets a new `Position` object, so messages given out before the seek are recognised by
the old object.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from trunkline.actors.drivers.kafka.damage import Damage
from trunkline.actors.drivers.kafka.errors import cause
from trunkline.actors.drivers.kafka.finder import Finder
from trunkline.actors.drivers.kafka.group import Group
from trunkline.actors.drivers.kafka.offsets import Position, Positions, Token
from trunkline.actors.drivers.kafka.places import Places
from trunkline.actors.drivers.kafka.plan import EARLIEST, LATEST, Plan
from trunkline.deadline import Deadline
from trunkline.errors import DialError, RefusedError
from trunkline.wire.place import Place

__all__ = ["Seeker", "Void"]

Void = Callable[[Token], bool]
_BUSY_S = 1.0
"""Seconds for which librdkafka may be busy with a partition. Then the partition is assigned
anew.
"""


class Seeker:
    """Moves the reading places of one consumer.

    `check` raises when a seek must not go on. `serve` lets librdkafka make its callbacks.
    `forget_early` drops the messages of a partition that came while librdkafka was served.
    """

    def __init__(
        self,
        consumer: Any,
        plan: Plan,
        positions: Positions,
        places: Places,
        damage: Damage,
        group: Group | None,
        check: Callable[[Deadline, str], None],
        serve: Callable[[float], None],
        forget_early: Callable[[str, int], None],
    ) -> None:
        self.consumer = consumer
        self._plan = plan
        self._positions = positions
        self._places = places
        self._damage = damage
        self._group = group
        self._check = check
        self._serve = serve
        self._forget_early = forget_early
        self._finder = Finder(consumer, plan, check, serve, known={}, makes_topics=False)

    def forget_consumer(self) -> None:
        """Drop the references to the consumer. Losing the last reference frees the consumer."""
        self.consumer = self._finder.consumer = None

    def seek(self, place: Place, deadline: Deadline, *, held: bool) -> Void:
        """Move to `place`; return a function that says of a token whether the seek has voided its
        message.

        `held`: partitions are paused. RefusedError, TimeoutError and ConnectionError: nothing was
        moved.
        """
        try:
            wanted = self._wanted(place, deadline)
            targets = self._targets(place, wanted, deadline)
            self._check(deadline, f"no answer from {self._plan.peer}")
        except KafkaException as error:
            raise ConnectionError(str(cause(error.args[0], self._plan.peer))) from None
        except DialError as error:
            raise RefusedError(str(error)) from None
        return self._move(place, targets, held=held)

    # finding the offsets

    def _wanted(self, place: Place, deadline: Deadline) -> list[tuple[str, int]]:
        """Return the partitions to move; RefusedError for a place outside this connection's
        partitions.
        """
        plan = self._plan
        if not plan.topics:
            raise RefusedError("this connection only writes: its address names no topic to read")
        while self._group is not None and not self._group.assigned:
            self._serve(0.05)
            self._check(deadline, f"group '{plan.group}' gave no partitions")
        found = [(each.topic, each.partition) for each in self._positions]
        of_topic = [each for each in found if place.topic in (None, each[0])]
        counts = {
            topic: self._finder.ask(partial(self._finder.count_partitions, topic), deadline)
            for topic in {topic for topic, _ in of_topic}
        }
        # A group may not have noticed yet that the topic was made anew with fewer partitions.
        there = [(topic, number) for topic, number in of_topic if number < counts[topic]]
        wanted = sorted(each for each in there if place.partition in (None, each[1]))
        if not wanted:
            raise RefusedError(self._nothing_there(place, found, of_topic))
        return wanted

    def _nothing_there(
        self, place: Place, found: list[tuple[str, int]], of_topic: list[tuple[str, int]]
    ) -> str:
        """Return the words for a place that names no partition of this connection."""
        if self._plan.group and not found:
            return (
                f"group '{self._plan.group}' has given this member no partition, so it cannot seek"
            )
        if of_topic or place.topic is None:
            what = "partition" if place.topic is None else f"topic '{place.topic}' with partition"
            numbers = ", ".join(map(str, sorted({number for _, number in of_topic or found})))
            text = f"this connection reads no {what} {place.partition}; it reads {numbers}"
        else:
            topics = ", ".join(sorted({topic for topic, _ in found}))
            text = f"this connection does not read the topic '{place.topic}'; it reads {topics}"
        return text + (" (the group's other members read the rest)" if self._plan.group else "")

    def _targets(
        self, place: Place, wanted: list[tuple[str, int]], deadline: Deadline
    ) -> list[TopicPartition]:
        """Return the target offset of each partition; RefusedError for a missing offset."""
        if place.kind != "offset":
            sought = {"earliest": EARLIEST, "latest": LATEST}.get(place.kind, place.value)
            return self._finder.starts(wanted, deadline, sought)
        for topic, number in wanted:
            partition = TopicPartition(topic, number)
            low, high = self._finder.ask(partial(self._finder.watermarks, partition), deadline)
            if not low <= place.value <= high:
                raise RefusedError(_out_of_range(place, topic, number, low, high, len(wanted)))
        return [TopicPartition(*each, place.value) for each in wanted]

    # moving

    def _move(self, place: Place, targets: list[TopicPartition], *, held: bool) -> Void:
        """Give each partition its new position, and move librdkafka."""
        fresh = dict[Position, None]()
        for target in targets:
            former = self._positions.get(target.topic, target.partition)
            if former is None:
                continue  # the group has taken it away a moment ago
            position = Position(target.topic, target.partition, target.offset)
            position.end = former.end
            self._positions.put(position)
            self._damage.forget(target.topic, target.partition)
            fresh[position] = None
        self._fetch([*fresh], held=held)
        if self._group is not None:
            with contextlib.suppress(KafkaException):  # every later commit includes it again
                self._group.commit(wait=True)  # a successor begins at the same place

        def void(token: Token) -> bool:
            each = token[0]
            sought = place.topic in (None, each.topic) and place.partition in (None, each.partition)
            return sought and each not in fresh

        return void

    def _fetch(self, positions: list[Position], *, held: bool) -> None:
        """Move librdkafka, too, and drop the messages fetched ahead."""
        until = time.monotonic() + _BUSY_S
        for position in positions:
            target = TopicPartition(position.topic, position.partition, position.start)
            while not self._has_sought(target):
                if time.monotonic() >= until:
                    self._places.fetch_anew(held=held)
                    for each in positions:
                        self._forget_early(each.topic, each.partition)
                    return
                self._serve(0.02)
            self._forget_early(position.topic, position.partition)

    def _has_sought(self, target: TopicPartition) -> bool:
        """Move one partition of librdkafka; False while librdkafka is not ready for that."""
        try:
            self.consumer.seek(target)
        except KafkaException:
            return False  # librdkafka is not ready to seek in this partition
        return True


def _out_of_range(place: Place, topic: str, number: int, low: int, high: int, count: int) -> str:
    """Return the words for an offset that the partition does not have."""
    there = f"has the offsets {low} to {high - 1}" if low < high else "is empty"
    text = f"topic '{topic}', partition {number} {there}, and {high} is its next; it has no {place.value}"
    return text + (f" (this asks for {count} partitions at once: name one)" if count > 1 else "")
