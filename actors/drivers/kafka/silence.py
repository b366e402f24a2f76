"""Partitions that have messages and give none: a log that its broker cannot read, and does not say so.

Where the length of a batch is damaged on the broker's disk, the broker answers every fetch with nothing at
all. That is told from a pause of any other kind by three things together: librdkafka had nothing for us while
we waited for it (so neither a full buffer nor other partitions kept it from fetching), nothing came of the
partition for long, and the partition's leader, asked over the same connection as the fetches, says that there
is more for us to have. An open transaction is no such case: the leader then names its beginning as the end.
For the reader's thread.
"""

from __future__ import annotations

from confluent_kafka import KafkaException, TopicPartition

from trunkline.actors.drivers.kafka.finder import MOST_CALL_S, Finder
from trunkline.actors.drivers.kafka.offsets import Position, Positions
from trunkline.actors.drivers.kafka.plan import Plan
from trunkline.errors import DialError

__all__ = ["Silence"]

_LEAST_S = 5.0


class Silence:
    """See the module."""

    def __init__(self, plan: Plan, finder: Finder, positions: Positions) -> None:
        self._peer = plan.peer
        self._patience_s = max(_LEAST_S, 2 * plan.ping_s)
        self._finder = finder
        self._positions = positions
        self._waited_s = 0.0
        self._since: dict[Position, tuple[int, float]] = {}
        """Of partitions that have more: the offset that does not come, and `_waited_s` when that was seen."""

    def waited(self, seconds: float) -> None:
        """So long there was room for messages, and librdkafka had none."""
        self._waited_s += seconds

    def begin_anew(self) -> None:
        """The link is another one."""
        self._since.clear()

    def look(self) -> DialError | None:
        """Called now and then: why reading cannot go on, if that is so."""
        since = {}
        for each in self._positions:
            if each.next < each.end:
                at, begun = self._since.get(each, (-1, 0.0))
                since[each] = (at, begun) if at == each.next else (each.next, self._waited_s)
        self._since = since
        for position, (_, begun) in since.items():
            if self._waited_s - begun >= self._patience_s:
                since[position] = (position.next, self._waited_s)
                return self._ask(position)
        return None

    def _ask(self, position: Position) -> DialError | None:
        place = TopicPartition(position.topic, position.partition)
        try:
            low, high = self._finder.watermarks(place, MOST_CALL_S)
        except KafkaException:
            return None  # a slow link, or none: that is found elsewhere
        if not low <= position.next < high:
            return None
        return DialError(
            f"{self._peer} gives nothing of topic '{position.topic}', partition {position.partition} from "
            f"offset {position.next} on, though it says that there is more, up to {high - 1}: its log is "
            "damaged there; have the broker's operator look at it, or begin behind it with offset="
        )
