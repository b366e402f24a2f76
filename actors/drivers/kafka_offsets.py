"""What has been consumed of one partition, and so what may be committed: no I/O.

Several readers consume out of order, while Kafka knows one number per partition: everything before it is
done. So an offset is committed when it and all that were given out before it have been consumed. Offsets have
gaps (compaction, transactions); "before" therefore means what was given out, not every number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

__all__ = ["Position", "Positions", "Token", "settle"]


class Position:
    """One partition, from one assignment (or rewind) to the next.

    `next` and `pending` grow in the reader's thread, `base` and `done` belong to the loop: deques and whole
    numbers are all they share.
    """

    __slots__ = ("base", "committed", "done", "next", "partition", "pending", "seen", "topic")

    def __init__(
        self, topic: str, partition: int, start: int, *, seen: int = -1, committed: int = -1
    ) -> None:
        self.topic = topic
        self.partition = partition
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
        seen = max(self.seen, self.next)
        return Position(self.topic, self.partition, self.base, seen=seen, committed=self.committed)

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
        return (each for numbers in self.by_topic.values() for each in numbers.values())

    def put(self, position: Position) -> None:
        self.by_topic.setdefault(position.topic, {})[position.partition] = position

    def get(self, topic: str, partition: int) -> Position | None:
        return self.by_topic.get(topic, {}).get(partition)

    def pop(self, topic: str, partition: int) -> Position | None:
        return self.by_topic.get(topic, {}).pop(partition, None)


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
