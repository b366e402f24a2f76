"""Deadlines: moments on the monotonic clock, the one way in which this package counts down."""

from __future__ import annotations

import math
import time

__all__ = ["Deadline"]


class Deadline:
    """A moment after which a wait must end.

    Made from seconds (`Deadline(1.5)`) or milliseconds (`Deadline.after_ms(1500)`). None means no
    limit: the wait then ends only with the awaited process.
    """

    __slots__ = ("at",)

    def __init__(self, seconds: float | None) -> None:
        self.at: float = math.inf if seconds is None else time.monotonic() + seconds

    @classmethod
    def after_ms(cls, ms: float | None) -> Deadline:
        """A deadline in so many milliseconds; None for no limit."""
        return cls(None if ms is None else ms / 1000)

    @classmethod
    def at_time(cls, at: float | None) -> Deadline:
        """A deadline at a time of the monotonic clock, which all processes of a machine share."""
        deadline = cls(None)
        deadline.at = math.inf if at is None else at
        return deadline

    def left(self) -> float:
        """The seconds left, never negative; `inf` without a limit."""
        return max(0.0, self.at - time.monotonic())

    def left_ms(self) -> int | None:
        """The milliseconds left, rounded up; None without a limit."""
        return None if self.at == math.inf else math.ceil(self.left() * 1000)

    def timeout(self) -> float | None:
        """The seconds left as the standard library's functions take them: None without a limit."""
        return None if self.at == math.inf else self.left()

    def expired(self) -> bool:
        """Whether the moment is past."""
        return time.monotonic() >= self.at

    def __repr__(self) -> str:
        return "Deadline(none)" if self.at == math.inf else f"Deadline({self.left():.3f} s left)"
