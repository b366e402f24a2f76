"""The one way to count down: a moment on the monotonic clock."""

from __future__ import annotations

import math
import time

__all__ = ["Deadline"]


class Deadline:
    """A point in time after which a wait must end.

    Made from seconds (`Deadline(1.5)`) or milliseconds (`Deadline.after_ms(1500)`); None means no
    end of its own (the wait then ends with the process it waits for).
    """

    __slots__ = ("at",)

    def __init__(self, seconds: float | None) -> None:
        self.at: float = math.inf if seconds is None else time.monotonic() + seconds

    @classmethod
    def after_ms(cls, ms: float | None) -> Deadline:
        return cls(None if ms is None else ms / 1000)

    @classmethod
    def at_time(cls, at: float | None) -> Deadline:
        """From a time of the monotonic clock, which all processes of a machine share."""
        deadline = cls(None)
        deadline.at = math.inf if at is None else at
        return deadline

    def left(self) -> float:
        """Seconds left, never negative; `inf` without an end."""
        return max(0.0, self.at - time.monotonic())

    def left_ms(self) -> int | None:
        """Whole milliseconds left rounded up, or None without an end."""
        return None if self.at == math.inf else math.ceil(self.left() * 1000)

    def timeout(self) -> float | None:
        """Seconds left as the standard library's functions take it: None without an end."""
        return None if self.at == math.inf else self.left()

    def expired(self) -> bool:
        return time.monotonic() >= self.at

    def __repr__(self) -> str:
        return "Deadline(none)" if self.at == math.inf else f"Deadline({self.left():.3f} s left)"
