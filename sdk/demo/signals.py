"""How the demos take Ctrl-C: at any moment, in good order, and never between a process and its end."""

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
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, in good order; so does SIGINT where it was ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _with_handler(stop):
        yield


@contextlib.contextmanager
def later() -> Iterator[None]:
    """What would stop us in here does so at its end. Not SIG_IGN: a process that is started meanwhile would
    inherit that."""
    came: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)

    with _with_handler(wait):
        yield
    if came and callable(handler := signal.getsignal(came[0])):
        handler(came[0], None)


def uninterrupted(end: Callable[[], None]) -> Callable[[], None]:
    """`end` for an exit stack: a second Ctrl-C must not leave half of it behind."""

    def whole() -> None:
        with later():
            end()

    return whole


@contextlib.contextmanager
def _with_handler(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
