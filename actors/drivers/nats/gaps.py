"""Messages that a stream threw away before they were read (`discard=old`, a limit, a purge): counted by their
numbers. No I/O.

Each delivery has the message's number in the stream and its own number among the consumer's deliveries. Where
two deliveries follow each other and the numbers in the stream do not, the messages between are gone. That is
true only where the whole stream is read, and only of deliveries that came one after the other to this reader.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Gaps", "reads_whole_stream"]


class Gaps:
    """Counts what is missing between deliveries that follow each other."""

    def __init__(self) -> None:
        self._delivery = self._next = self._holes = 0
        self._counts = False

    def begin(self, delivery: int, sequence: int, holes: int, *, counts: bool) -> None:
        """The consumer's last delivery so far and its number in the stream; `holes`: how many numbers of the
        stream are missing already, which is no loss of ours; `counts`: the whole stream is read."""
        self._delivery, self._next, self._holes, self._counts = (
            delivery,
            sequence + 1,
            holes,
            counts,
        )

    def missing(self, delivery: int, sequence: int) -> int:
        """How many messages before this one were thrown away unread."""
        follows = self._counts and delivery == self._delivery + 1
        self._delivery = max(self._delivery, delivery)
        gap = sequence - self._next
        if gap < 0:  # it is delivered again
            return 0
        self._next = sequence + 1
        if not follows:
            return 0
        known = min(gap, self._holes)
        self._holes -= known
        return gap - known


def reads_whole_stream(topic: str | None, subjects: Sequence[str]) -> bool:
    """Whether everything that the stream takes is read by this topic."""
    return topic is None or all(
        _covers(topic.split("."), subject.split(".")) for subject in subjects
    )


def _covers(pattern: list[str], subject: list[str]) -> bool:
    for index, word in enumerate(pattern):
        if word == ">":
            return len(subject) > index
        if index >= len(subject) or subject[index] == ">" or word not in ("*", subject[index]):
            return False
    return len(pattern) == len(subject)
