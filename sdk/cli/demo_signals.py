"""How the demos take Ctrl-C: at any moment, in good order, and never between a process and its end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["later", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, in good order; so does SIGINT where it was ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(stop):
        yield


@contextlib.contextmanager
def later() -> Iterator[None]:
    """No stop in here. Not SIG_IGN: a process that is started meanwhile would inherit that."""

    def wait(number: int, frame: FrameType | None) -> None:
        return

    with _handled(wait):
        yield


@contextlib.contextmanager
def _handled(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
