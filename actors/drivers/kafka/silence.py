"""Partitions with messages that never arrive: the broker cannot read its log, and does not report
that.

Where the length of a batch is damaged on the broker's disk, the broker answers every fetch with no
messages. Three observations together distinguish such a partition from a pause:

* librdkafka had nothing while the reader waited for it. Neither a full buffer nor other partitions
  kept librdkafka from fetching.
* The partition has been silent for a long time.
* The leader of the partition, asked over the connection that carries the fetches, says that there
  is more.

An open transaction does not look like that: the leader then names the beginning of the transaction
as the end. Runs on the reader's thread.
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
    """Watches the partitions of one consumer."""

    def __init__(self, plan: Plan, finder: Finder, positions: Positions) -> None:
        self._peer = plan.peer
        self._patience_s = max(_LEAST_S, 2 * plan.ping_s)
        self._finder = finder
        self._positions = positions
        self._waited_s = 0.0
        self._since: dict[Position, tuple[int, float]] = {}
        """For partitions with more messages: the missing offset, and the value of `_waited_s` at
        the first look.
        """

    def waited(self, seconds: float) -> None:
        """Count seconds in which the reader had room and librdkafka had no messages."""
        self._waited_s += seconds

    def begin_anew(self) -> None:
        """Begin anew with another link."""
        self._since.clear()

    def look(self) -> DialError | None:
        """Return why reading cannot go on, or None.

        Called by `Upkeep` every half second.
        """
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
        """Ask the partition's leader whether there is more to read; return the error where there
        is.
        """
        place = TopicPartition(position.topic, position.partition)
        try:
            low, high = self._finder.watermarks(place, MOST_CALL_S)
        except KafkaException:
            return None  # a slow or lost link, which other parts notice
        if not low <= position.next < high:
            return None
        return DialError(
            f"{self._peer} gives nothing of topic '{position.topic}', partition {position.partition} from "
            f"offset {position.next} on, though it says that there is more, up to {high - 1}: its log is "
            "damaged there; have the broker's operator look at it, or begin behind it with offset="
        )
