"""`HttpQuery_Go` and `Mail_Go`: calls that run beside the strategy, with results for later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Going", "going"]


class Going:
    """A call in a thread of its own. `wait` returns the result, at most once."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._done = threading.Event()
        self._result: Any = None
        self._taken = False
        threading.Thread(target=self._run_call, name="trunkline-go", daemon=True).start()

    def _run_call(self) -> None:
        try:
            self._result = self._call()
        finally:
            self._done.set()

    def wait(self, timeout: float = 0) -> tuple[Any, bool]:
        """Wait for the result: the result and True, or None and False.

        `timeout`: milliseconds; 0: wait without a limit.

        None and False come after the timeout, and after the result was taken.
        """
        seconds = None if timeout == 0 else max(0.0, timeout / 1000)
        # Waiting in slices lets the stop of a strategy through.
        while not self._taken and not self._done.wait(
            0.1 if seconds is None else min(0.1, seconds)
        ):
            if seconds is not None:
                seconds -= 0.1
                if seconds <= 0:
                    return None, False
        if self._taken:
            return None, False
        self._taken = True
        return self._result, True


def going(function: Callable[..., Any]) -> Callable[..., Going]:
    """`function` as a call that returns at once."""

    def start(*args: Any, **named: Any) -> Going:
        return Going(lambda: function(*args, **named))

    return start
