"""How a stop reaches the script: signals, `StopError`, and what happens to a script that swallows it.

A stop is raised in the main thread as `StopError`. It is a `BaseException`, so the `except Exception`
that strategies put round their loops does not swallow it. A bare `except:` does; so it is raised again
every `REPEAT_S` seconds, and after `grace_s` seconds the ending (onexit, closing) is run on top of
whatever the script is doing, and the process ends.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from enum import Enum
from types import FrameType, TracebackType

__all__ = ["PIPE", "Stage", "StopError", "Stopper"]

REPEAT_S = 3.0
DEBOUNCE_S = 0.15
"""Two signals this close are one: a wrapper that passes Ctrl-C on while the terminal sends it too."""
PIPE = int(signal.SIGPIPE)
"""The reason for stopping when nobody reads our output any more."""


class StopError(BaseException):
    """The strategy is to end now. Not an `Exception`: an error handler must not keep it from ending."""


class Stage(Enum):
    IDLE = "idle"
    RUNNING = "running"
    EXITING = "exiting"
    DONE = "done"


class Stopper:
    """Turns signals into `StopError`, once, with shields for what must not be torn apart.

    `force` is called in the main thread when a script has ignored the stop for `grace_s` seconds; it
    must not return. `reason` is the signal's number, None as long as nobody asked to stop.
    """

    def __init__(
        self, *, grace_s: float, force: Callable[[], None], notice: Callable[[str], None]
    ) -> None:
        self.reason: int | None = None
        self.stage = Stage.IDLE
        self.ended = threading.Event()
        self._grace_s = grace_s
        self._force = force
        self._notice = notice
        self._main = threading.main_thread().ident or 0
        self._depth = 0
        self._pending = False
        self._nagging = False
        self._last = -DEBOUNCE_S
        self._since = 0.0
        self._watcher = threading.Thread(
            target=self._watch_stage, name="trunkline-stop", daemon=True
        )
        self._old: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        # SimpleQueue.put may be called from a signal handler; Event.set and Thread.start may not,
        # because the handler could interrupt the main thread inside the very same lock.
        self._news: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def install(self) -> None:
        """Take over SIGINT, SIGTERM and SIGHUP; one that the caller ignores (nohup) stays ignored."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._on_signal)
        # The interpreter forgets a signal that reaches a forked child before its handlers are settled,
        # so it is held back until then.
        os.register_at_fork(
            before=lambda: self._hold_back(signal.SIG_BLOCK),
            after_in_parent=lambda: self._hold_back(signal.SIG_UNBLOCK),
            after_in_child=self._in_child,
        )
        self._watcher.start()
        self.stage = Stage.RUNNING

    def restore(self) -> None:
        """Give the signals back. Threads of the script get `StopError` from their next `Sleep`."""
        self.stage = Stage.DONE
        self.ended.set()
        self._news.put(None)
        # It must not send its signal when the handlers are gone: that would end the process.
        self._watcher.join()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def begin_exit(self, limit_s: float) -> None:
        """onexit starts: from now on only a further signal, or `limit_s` seconds, interrupt it."""
        if self.stage is not Stage.RUNNING:
            return
        self.stage = Stage.EXITING
        self._pending = False
        self.ended.set()
        self._since = time.monotonic() + limit_s
        self._news.put(limit_s)

    def request(self, reason: int) -> None:
        """Stop for a reason that is not a signal; raises at once when called in the main thread."""
        self.reason = self.reason if self.reason is not None else reason
        if threading.get_ident() != self._main:
            self._signal_again()
        elif self.stage is Stage.RUNNING:
            self._begin_stop()
            self._raise_stop()

    def check(self) -> None:
        """Raise when a stop has been asked for and the script has not ended yet."""
        if self.stage is Stage.RUNNING and self.reason is not None:
            raise StopError(_reason_text(self.reason))

    def sleep(self, seconds: float) -> None:
        """Sleep; `StopError` comes out of it as soon as the strategy is to end."""
        if threading.get_ident() == self._main:
            self.check()
            time.sleep(max(0.0, seconds))
        elif self.ended.wait(max(0.0, seconds)):
            raise StopError("the strategy has ended")

    def __enter__(self) -> None:
        """A shield: inside, a stop is noted and raised at the end, so that no log row is torn."""
        if threading.get_ident() == self._main:
            self._depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.get_ident() != self._main:
            return
        self._depth -= 1
        if self._pending and not self._depth:
            self._pending = False
            raise StopError(_reason_text(self.reason))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        nag, self._nagging = self._nagging, False
        now = time.monotonic()
        if not nag and now - self._last < DEBOUNCE_S:
            return
        if not nag:
            self._last = now
        self._act_on_stop(number, nag, now)

    def _hold_back(self, how: int) -> None:
        if self.stage is not Stage.DONE:
            signal.pthread_sigmask(how, list(self._old))

    def _in_child(self) -> None:
        """A child that the script forked ends by signals as if we were not there."""
        if self.stage is Stage.DONE:
            return
        self.stage = Stage.DONE
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, list(self._old))

    def _act_on_stop(self, number: int, nag: bool, now: float) -> None:
        first = self.reason is None
        if not nag and first:
            self.reason = number
        if self.stage is Stage.RUNNING:
            self._act_running(now)
        elif self.stage is Stage.EXITING:
            self._act_exiting(now, wait=first and not nag)
        elif self.stage is Stage.DONE and not nag:
            os._exit(128 + number)

    def _act_running(self, now: float) -> None:
        if not self._since:
            self._begin_stop()
        elif now - self._since >= self._grace_s:
            self._force()
        self._raise_stop()

    def _act_exiting(self, now: float, *, wait: bool) -> None:
        if wait:
            self._notice("onexit is running; send the signal again to end it")
            return
        if now < self._since:
            self._begin_stop()
        elif now - self._since >= self._grace_s:
            self._force()
        self._raise_stop()

    def _begin_stop(self) -> None:
        self._since = time.monotonic()
        self._news.put(0.0)

    def _raise_stop(self) -> None:
        if self._depth:
            self._pending = True
            return
        raise StopError(_reason_text(self.reason))

    def _watch_stage(self) -> None:
        """Repeat the stop until the stage changes: the main thread may have swallowed it."""
        wait: float | None = None
        while self.stage is not Stage.DONE:
            try:
                news = self._news.get(timeout=wait)
            except queue.Empty:
                self._signal_again()
                wait = min(REPEAT_S, self._grace_s)
                continue
            if news is None:
                return
            self.ended.set()
            wait = news or min(REPEAT_S, self._grace_s)

    def _signal_again(self) -> None:
        self._nagging = True
        signal.pthread_kill(self._main, signal.SIGTERM)


def _reason_text(reason: int | None) -> str:
    if reason is None:
        return "onexit took too long"
    return (
        "nobody reads the output" if reason == PIPE else f"stopped by {signal.Signals(reason).name}"
    )
