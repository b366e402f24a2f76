"""Messages that are damaged on the broker's disk or on the way: passed over one by one, and
counted.

librdkafka reports a batch that it cannot decode, fetches the batch again and again, and never gets
to the messages behind it. It does not report how many messages the batch has, and any offset in the
batch brings the whole batch. So reading goes on one offset further each time, until messages come
again. No undamaged message is lost that way. Runs on the reader's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.kafka.offsets import Positions
from trunkline.errors import DialError

__all__ = ["Damage"]

_SILENT_S = 1.0
_REFUSALS = 4
"""librdkafka asks so often, half a second apart, for an offset that the broker fails at, before a
link is lost.
"""


class Damage:
    """Passes over the damaged messages of one consumer.

    `say` writes to the user's log, `pass_over` counts lost messages.
    """

    def __init__(
        self,
        consumer: Any,
        peer: str,
        positions: Positions,
        say: Callable[[str], None],
        pass_over: Callable[[int], None],
    ) -> None:
        self.consumer = consumer
        self._peer = peer
        self._positions = positions
        self._say = say
        self._pass_over = pass_over
        self._noted: dict[tuple[str, int], int] = {}
        """The offset with a report of damage, by partition."""
        self._tried: dict[tuple[str, int], tuple[int, float]] = {}
        """The offset at which reading went on, and when, by partition; removed when a message
        comes.
        """
        self._refusals: dict[tuple[str, int], tuple[int, int]] = {}
        """The offset that the broker failed at, and how often, by partition."""

    def note(self, topic: str, number: int, why: str) -> None:
        """Note librdkafka's report that the next messages of the partition are damaged."""
        position = self._positions.get(topic, number)
        if position is not None and (topic, number) not in self._noted:
            self._noted[topic, number] = position.next
            self._say(
                f"topic '{topic}', partition {number}: damaged messages are passed over ({why})"
            )

    def forget(self, topic: str, number: int) -> None:
        """Forget all damage of a partition: reading goes on at another place."""
        for known in (self._noted, self._tried, self._refusals):
            known.pop((topic, number), None)

    def came(self, found: Sequence[Delivery]) -> None:
        """Note messages that were just taken: the first of them in a partition may stand behind the
        damage.

        Offsets between the place of the damage and that message are counted as lost.
        """
        if not (self._noted or self._tried):
            return
        for each in found:
            place = (each.topic or "", each.partition or 0)
            at, _ = self._tried.get(place, (self._noted.get(place, 0), 0.0))
            watched = place in self._tried or place in self._noted
            if watched and each.offset is not None and each.offset >= at:
                self._pass_over(each.offset - at)
                self._tried.pop(place, None)
                self._noted.pop(place, None)

    def step_over(self) -> None:
        """Go on one offset further in each partition where no message has come."""
        if not (self._noted or self._tried):
            return
        now = time.monotonic()
        for place, (at, since) in self._tried.items():
            position = self._positions.get(*place)
            if (
                position is not None
                and position.next == at < position.end
                and now - since > _SILENT_S
            ):
                self._noted[place] = at  # some kinds of damage are reported only once
        for place, at in tuple(self._noted.items()):
            position = self._positions.get(*place)
            if position is None or position.next != at:
                self._noted.pop(place)
                self._tried.pop(place, None)
                continue
            try:
                self.consumer.seek(TopicPartition(*place, at + 1))
            except KafkaException:
                continue  # librdkafka is not ready to seek in this partition: next turn
            self._noted.pop(place)
            position.jump(at + 1)
            self._tried[place] = (at + 1, now)
            self._pass_over(1)

    def refused(self, topic: str, number: int, why: str) -> DialError | None:
        """Note that the broker itself fails at the next offset of the partition.

        Returns None at first. Returns the error for the user when the broker has failed `_REFUSALS`
        times at the same offset. No offset behind it can be read either, so stepping over does not
        help.
        """
        position = self._positions.get(topic, number)
        if position is None:
            return None
        at, times = self._refusals.get((topic, number), (-1, 0))
        times = times + 1 if at == position.next else 1
        self._refusals[topic, number] = (position.next, times)
        if times < _REFUSALS:
            return None
        del self._refusals[topic, number]
        return DialError(
            f"{self._peer} cannot read topic '{topic}', partition {number} at offset {position.next} "
            f"({why}): its log is damaged there; have the broker's operator look at it, or begin behind it "
            "with offset="
        )
