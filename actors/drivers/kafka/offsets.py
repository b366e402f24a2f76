"""What has been consumed of one partition, and so what may be committed: no I/O.

Several readers consume out of order, while Kafka knows one number per partition: everything before it is
done. So an offset is committed when it and all that were given out before it have been consumed. Offsets have
gaps (compaction, transactions); "before" therefore means what was given out, not every number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum

__all__ = ["Origin", "Position", "Positions", "Token", "place_instead", "settle"]


class Origin(Enum):
    """Who named the offset at which a position starts."""

    ADDRESS = "the address gives it as a number"
    COMMIT = "the group has committed it"
    BROKER = "the broker has named it, or reading had come to it"


class Position:
    """One partition, from one assignment (or rewind) to the next.

    `next` and `pending` grow in the reader's thread, `base` and `done` belong to the loop: deques and whole
    numbers are all they share.
    """

    __slots__ = (
        "base", "committed", "done", "end", "next", "origin", "partition", "pending", "seen", "start",
        "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partition: int,
        start: int,
        *,
        seen: int = -1,
        committed: int = -1,
        origin: Origin = Origin.BROKER,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.start = start
        self.origin = origin
        self.end = -1
        """The offset that the partition's next message will have, as the broker last said; -1 unknown."""
        self.base = start
        """All before this has been consumed."""
        self.next = start
        """What is given out next is this or later."""
        self.seen = seen
        """What is before this was given out before, over another link."""
        self.committed = committed
        """What the group is known to have committed, -1 for nothing."""
        self.pending: deque[int] = deque()
        """Given out and not yet consumed, in order."""
        self.done: set[int] = set()
        """Consumed, with something pending before."""

    def again(self) -> Position:
        """The same partition from the first message that was not consumed."""
        if self.is_untouched:
            start, seen, origin = self.start, self.seen, self.origin
        else:
            start, seen, origin = self.reached, max(self.seen, self.next), Origin.BROKER
        return Position(
            self.topic, self.partition, start, seen=seen, committed=self.committed, origin=origin
        )

    @property
    def is_untouched(self) -> bool:
        """No message of the partition has been given out, over this link or a former one."""
        return self.base == self.next == self.start and self.seen < 0

    @property
    def reached(self) -> int:
        """All messages before this have been consumed: `base`, or, where nothing is given out, what comes
        next. Offsets between the two are no messages for anybody: transactions' marks, what was passed
        over."""
        return self.base if self.pending else self.next

    @property
    def unread(self) -> int:
        """Offsets between what readers have and the partition's end; 0 while the end is not known."""
        return max(0, self.end - self.reached)

    def jump(self, offset: int) -> None:
        """Go on somewhere else: what is between is not there."""
        if not self.pending:
            self.base = offset
        self.next = offset

    def consumed(self, offset: int) -> None:
        """A reader has this message."""
        pending, done = self.pending, self.done
        if not pending or pending[0] != offset:
            done.add(offset)
            return
        pending.popleft()
        base = offset + 1
        while done and pending and pending[0] in done:
            base = pending.popleft()
            done.discard(base)
            base += 1
        self.base = base


class Positions:
    """Those of all partitions that are ours."""

    def __init__(self) -> None:
        self.by_topic: dict[str, dict[int, Position]] = {}

    def __iter__(self) -> Iterator[Position]:
        # Copies: the loop's thread counts the lag while the reader's thread may add a partition.
        return (
            each for numbers in tuple(self.by_topic.values()) for each in tuple(numbers.values())
        )

    def put(self, position: Position) -> None:
        self.by_topic.setdefault(position.topic, {})[position.partition] = position

    def get(self, topic: str, partition: int) -> Position | None:
        return self.by_topic.get(topic, {}).get(partition)

    def pop(self, topic: str, partition: int) -> Position | None:
        return self.by_topic.get(topic, {}).pop(partition, None)


def place_instead(position: Position, low: int, high: int, *, earliest: bool) -> tuple[int, int]:
    """Where reading goes on when the broker has said that it has nothing at `position.next`, and how many
    messages were lost by that. `low` is the first offset that the partition has, `high` the one behind its
    last; `earliest`: the address says `offset=earliest`."""
    origin = position.origin if position.is_untouched else Origin.BROKER
    if (
        position.next < low
    ):  # deleted by age; what had gone before Dial was asked by number is not lost
        return low, 0 if origin is Origin.ADDRESS else low - position.next
    if position.next <= high:
        return position.next, 0
    # The log is shorter than it was: the topic was made anew, or its end was lost with a broker.
    if origin is Origin.ADDRESS:
        return high, 0
    if origin is Origin.COMMIT and not earliest:  # as librdkafka does it; but counted
        return high, high - low
    return low, 0


Token = tuple[Position, int]


def settle(tokens: Iterable[Token]) -> None:
    """Readers have these messages. What belongs to an assignment that is over changes nothing."""
    for position, offset in tokens:
        pending = position.pending
        if pending and pending[0] == offset and not position.done:
            pending.popleft()
            position.base = offset + 1
        else:
            position.consumed(offset)
