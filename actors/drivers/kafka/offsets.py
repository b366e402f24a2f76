"""Which messages of a partition were consumed, and which offset may be committed. No I/O.

Several readers consume out of order, while Kafka keeps one number per partition: everything before
it is done. So an offset is committed when its message, and all messages given out before it, have
been consumed. Offsets have gaps (compaction, transactions). "Before" therefore refers to messages
given out, not to numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum

__all__ = ["Origin", "Position", "Positions", "Token", "place_instead", "settle"]


class Origin(Enum):
    """The origin of the offset at which a position starts."""

    ADDRESS = "the address gives it as a number"
    COMMIT = "the group has committed it"
    BROKER = "the broker has named it, or reading had come to it"


class Position:
    """Reading and consuming of one partition, from one assignment (or seek) to the next.

    Two threads share a position without a lock. The reader's thread changes `next` and appends to
    `pending`. The event loop changes `base` and `done` and removes from `pending`. They share only
    whole numbers and a deque, whose single operations are atomic.
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
        """The offset that the next message of the partition will have, as the broker last said; -1
        unknown.
        """
        self.base = start
        """All messages before this offset have been consumed."""
        self.next = start
        """The next message given out has this offset or a later offset."""
        self.seen = seen
        """Messages before this offset were given out before, over another link."""
        self.committed = committed
        """The last known commit of the group; -1 without a commit."""
        self.pending: deque[int] = deque()
        """Offsets of messages given out and not consumed yet, in order."""
        self.done: set[int] = set()
        """Offsets of consumed messages behind a message that is still pending."""

    def again(self) -> Position:
        """Return a new position of the partition, at the first message that was not consumed."""
        if self.is_untouched:
            start, seen, origin = self.start, self.seen, self.origin
        else:
            start, seen, origin = self.reached, max(self.seen, self.next), Origin.BROKER
        return Position(
            self.topic, self.partition, start, seen=seen, committed=self.committed, origin=origin
        )

    @property
    def is_untouched(self) -> bool:
        """Whether no message of the partition has been given out, over this link or a former
        one.
        """
        return self.base == self.next == self.start and self.seen < 0

    @property
    def reached(self) -> int:
        """The offset before which all messages have been consumed.

        With pending messages that is `base`, otherwise `next`. Offsets between the two carry no
        messages for readers: they are marks of transactions, or were passed over.
        """
        return self.base if self.pending else self.next

    @property
    def unread(self) -> int:
        """How many offsets lie between the consumed messages and the end of the partition.

        0 for an unknown end.
        """
        return max(0, self.end - self.reached)

    def jump(self, offset: int) -> None:
        """Go on at another offset: no messages exist between."""
        if not self.pending:
            self.base = offset
        self.next = offset

    def consumed(self, offset: int) -> None:
        """Note that a reader has had the message with this offset."""
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
    """The positions of the consumer's partitions."""

    def __init__(self) -> None:
        self.by_topic: dict[str, dict[int, Position]] = {}

    def __iter__(self) -> Iterator[Position]:
        # Copies, because the event loop counts the lag while the reader's thread may add a
        # partition.
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
    """Return where reading goes on after the broker had nothing at `position.next`, and how many
    messages are lost.

    `low`: the first offset that the partition has. `high`: the offset behind its last message.
    `earliest`: the address says `offset=earliest`.
    """
    origin = position.origin if position.is_untouched else Origin.BROKER
    if position.next < low:  # deleted by age; older than a number in the address is no loss
        return low, 0 if origin is Origin.ADDRESS else low - position.next
    if position.next <= high:
        return position.next, 0
    # The log is shorter than before: the topic was made anew, or a broker has lost the end of its
    # log.
    if origin is Origin.ADDRESS:
        return high, 0
    if origin is Origin.COMMIT and not earliest:  # librdkafka does the same, without counting
        return high, high - low
    return low, 0


Token = tuple[Position, int]


def settle(tokens: Iterable[Token]) -> None:
    """Note messages as read. Tokens of former assignments change nothing."""
    for position, offset in tokens:
        pending = position.pending
        if pending and pending[0] == offset and not position.done:
            pending.popleft()
            position.base = offset + 1
        else:
            position.consumed(offset)
