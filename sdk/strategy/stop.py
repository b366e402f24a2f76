"""Stopping a script: signals, `StopError`, and scripts that swallow the stop.

A stop is raised in the main thread as `StopError`, a `BaseException`. The `except Exception` that
strategies put round their loops does not swallow the stop; a bare `except:` does. The stop is
therefore raised again every `REPEAT_S` seconds. After `grace_s` seconds the signal handler runs the
ending (onexit, closing) on top of the script's stack, and the process ends.

Threads: signal handlers run in the main thread, between two steps of the script. The thread
`trunkline-stop` only sends signals to the main thread and sets `ended`; it never runs code of the
script.
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
"""Seconds between two repeats of the stop."""
DEBOUNCE_S = 0.15
"""Two signals within this many seconds count as one.

A wrapper may pass Ctrl-C on while the terminal sends SIGINT too.
"""
PIPE = int(signal.SIGPIPE)
"""The reason for a stop after the reader of our output has gone."""


class StopError(BaseException):
    """The strategy must end now.

    Not an `Exception`: no error handler may keep the strategy from ending.
    """


class Stage(Enum):
    """The stages of a run, in their order. `EXITING`: onexit runs."""

    IDLE = "idle"
    RUNNING = "running"
    EXITING = "exiting"
    DONE = "done"


class Stopper:
    """Turns signals into `StopError`, with shields for code that must not be interrupted.

    `grace_s`: seconds that a script may ignore the stop.
    `force`: called in the main thread after `grace_s`; must not return.
    `notice`: prints a line to the user.
    `reason` is the signal's number, or None until a stop is requested.
    """

    def __init__(
        self, *, grace_s: float, force: Callable[[], None], notice: Callable[[str], None]
    ) -> None:
        self.reason: int | None = None
        self.stage = Stage.IDLE
        # Set when the strategy is to end. Threads of the script other than the main thread wait on
        # `ended`.
        self.ended = threading.Event()
        self._grace_s = grace_s
        self._force = force
        self._notice = notice
        self._main = threading.main_thread().ident or 0
        # The number of shields that the main thread is inside, and a stop that waits for the last
        # shield's end.
        self._depth = 0
        self._pending = False
        # Set before the watcher sends its signal: `_on_signal` can then tell a repeat from the
        # user's signal.
        self._nagging = False
        self._last = -DEBOUNCE_S
        # The time of the stop, on the monotonic clock; 0: no stop yet. In stage EXITING: the end of
        # onexit's limit.
        self._since = 0.0
        self._watcher = threading.Thread(
            target=self._watch_stage, name="trunkline-stop", daemon=True
        )
        self._old: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        # SimpleQueue.put may be called from a signal handler; Event.set and Thread.start may not:
        # the handler could interrupt the main thread while it holds the very same lock.
        self._news: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def install(self) -> None:
        """Take over SIGINT, SIGTERM and SIGHUP.

        A signal that the caller ignores (nohup) stays ignored.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._on_signal)
        # The interpreter forgets a signal that reaches a forked child before the child's handlers
        # are settled. The fork therefore blocks the signals until then.
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
        # The watcher must not send its signal after the handlers are gone: SIGTERM would end the
        # process.
        self._watcher.join()
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def begin_exit(self, limit_s: float) -> None:
        """Begin onexit: from now on only a further signal, or the end of `limit_s` seconds,
        interrupts onexit."""
        if self.stage is not Stage.RUNNING:
            return
        self.stage = Stage.EXITING
        self._pending = False
        self.ended.set()
        self._since = time.monotonic() + limit_s
        self._news.put(limit_s)

    def request(self, reason: int) -> None:
        """Stop for a reason other than a signal, such as `PIPE`.

        Raises at once in the main thread. In any other thread, a signal to the main thread raises
        there.
        """
        self.reason = self.reason if self.reason is not None else reason
        if threading.get_ident() != self._main:
            self._signal_again()
        elif self.stage is Stage.RUNNING:
            self._begin_stop()
            self._raise_stop()

    def check(self) -> None:
        """Raise StopError when a stop was requested and the script has not ended yet."""
        if self.stage is Stage.RUNNING and self.reason is not None:
            raise StopError(_reason_text(self.reason))

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`. StopError interrupts the sleep as soon as the strategy is to end."""
        if threading.get_ident() == self._main:
            self.check()
            time.sleep(max(0.0, seconds))
        elif self.ended.wait(max(0.0, seconds)):
            raise StopError("the strategy has ended")

    def __enter__(self) -> None:
        """Enter a shield: a stop inside is noted and raised at the shield's end, so that no log row
        is torn.

        Only the main thread is shielded: signal handlers run nowhere else.
        """
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
        """The signal handler, in the main thread.

        A repeat by the watcher is not subject to the debounce.
        """
        nag, self._nagging = self._nagging, False
        now = time.monotonic()
        if not nag and now - self._last < DEBOUNCE_S:
            return
        if not nag:
            self._last = now
        self._act_on_stop(number, nag, now)

    def _hold_back(self, how: int) -> None:
        """Block or unblock the taken signals around a fork; `how` is for `pthread_sigmask`."""
        if self.stage is not Stage.DONE:
            signal.pthread_sigmask(how, list(self._old))

    def _in_child(self) -> None:
        """Give the signals back in a child that the script forked: the child ends by signals as any
        process does."""
        if self.stage is Stage.DONE:
            return
        self.stage = Stage.DONE
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, list(self._old))

    def _act_on_stop(self, number: int, nag: bool, now: float) -> None:
        """Act on a signal by the stage; `nag` is true for a repeat by the watcher.

        Runs in the main thread.
        """
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
        """Raise the stop in the running script; after the grace time, force the end."""
        if not self._since:
            self._begin_stop()
        elif now - self._since >= self._grace_s:
            self._force()
        self._raise_stop()

    def _act_exiting(self, now: float, *, wait: bool) -> None:
        """Interrupt onexit, unless `wait`: a first signal during onexit only tells the user to send
        another."""
        if wait:
            self._notice("onexit is running; send the signal again to end it")
            return
        # `_since` lies in the future while onexit's limit runs; a second signal begins the stop
        # early.
        if now < self._since:
            self._begin_stop()
        elif now - self._since >= self._grace_s:
            self._force()
        self._raise_stop()

    def _begin_stop(self) -> None:
        """Start the grace time and wake the watcher."""
        self._since = time.monotonic()
        self._news.put(0.0)

    def _raise_stop(self) -> None:
        """Raise StopError, or leave the stop to the end of the shield."""
        if self._depth:
            self._pending = True
            return
        raise StopError(_reason_text(self.reason))

    def _watch_stage(self) -> None:
        """Repeat the stop until the stage is DONE, because the main thread may have swallowed the
        stop.

        Runs on the thread `trunkline-stop`. Entries of the queue: None ends the thread; 0.0 begins
        the repeats; a positive number is onexit's limit in seconds, after which the repeats begin.
        """
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
        """Send the main thread a SIGTERM that `_on_signal` recognises as a repeat."""
        self._nagging = True
        signal.pthread_kill(self._main, signal.SIGTERM)


def _reason_text(reason: int | None) -> str:
    if reason is None:
        return "onexit took too long"
    return (
        "nobody reads the output" if reason == PIPE else f"stopped by {signal.Signals(reason).name}"
    )
