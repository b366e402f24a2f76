"""Counts messages that a stream threw away before they were read (`discard=old`, a limit, a purge).

No I/O.

A delivery carries the message's number in the stream, and a number among the consumer's deliveries.
Where two deliveries have consecutive numbers and the messages do not, the messages between are
gone. The conclusion holds only for reading a whole stream, and for two deliveries to this same
reader.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Gaps", "reads_whole_stream"]


class Gaps:
    """Counts the messages that are missing between consecutive deliveries."""

    def __init__(self) -> None:
        self._delivery = self._next = self._holes = 0
        self._counts = False

    def begin(self, delivery: int, sequence: int, holes: int, *, counts: bool) -> None:
        """Begin to count after a known delivery.

        `delivery`: number of the consumer's last delivery so far. `sequence`: number of its message
        in the stream. `holes`: how many numbers are missing from the stream already. They were
        deleted before this reader came and are no loss. `counts`: whether the whole stream is read;
        False switches the counting off.
        """
        self._delivery, self._next, self._holes, self._counts = (
            delivery,
            sequence + 1,
            holes,
            counts,
        )

    def missing(self, delivery: int, sequence: int) -> int:
        """Return how many messages before the delivered one were thrown away unread."""
        follows = self._counts and delivery == self._delivery + 1
        self._delivery = max(self._delivery, delivery)
        gap = sequence - self._next
        if gap < 0:  # a repeated delivery
            return 0
        self._next = sequence + 1
        if not follows:
            return 0
        known = min(gap, self._holes)
        self._holes -= known
        return gap - known


def reads_whole_stream(topic: str | None, subjects: Sequence[str]) -> bool:
    """Whether the topic matches everything that the stream takes."""
    return topic is None or all(
        _covers(topic.split("."), subject.split(".")) for subject in subjects
    )


def _covers(pattern: list[str], subject: list[str]) -> bool:
    """Whether the pattern matches every subject that the other pattern matches."""
    for index, word in enumerate(pattern):
        if word == ">":
            return len(subject) > index
        if index >= len(subject) or subject[index] == ">" or word not in ("*", subject[index]):
            return False
    return len(pattern) == len(subject)
