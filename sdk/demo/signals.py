"""Ctrl-C in the demos: the demo stops at any moment, in good order, and never leaves a process
behind."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["later", "stoppable", "uninterrupted"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo in good order, as Ctrl-C does.

    SIGINT does too, even if it was ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _with_handler(stop):
        yield


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Delay a signal inside the block until the end of the block.

    The signals are not set to SIG_IGN, because a process started inside the block would inherit
    that.
    """
    came: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)

    with _with_handler(wait):
        yield
    if came and callable(handler := signal.getsignal(came[0])):
        handler(came[0], None)


def uninterrupted(end: Callable[[], None]) -> Callable[[], None]:
    """`end` for an exit stack, shielded by `later`: a second Ctrl-C must not interrupt the cleaning
    up."""

    def whole() -> None:
        with later():
            end()

    return whole


@contextlib.contextmanager
def _with_handler(handler: Any) -> Iterator[None]:
    """Take the three signals with `handler` inside the block. Main thread only."""
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
