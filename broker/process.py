"""Watching and killing processes that are not children of this one."""

from __future__ import annotations

import contextlib
import os
import signal

from trunkline.system.processes import is_alive

__all__ = ["Watch", "ending_signals"]


def ending_signals() -> list[signal.Signals]:
    """The signals that tell the broker to end in good order.

    SIGHUP comes from a closed terminal. Where it was ignored at the start (`nohup`), it stays
    ignored.
    """
    found = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


def _stack_of(pid: int) -> bytes:
    """The address of a process's stack, which each `exec` changes; b"0" if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[25]
    except (OSError, IndexError):
        return b"0"


class Watch:
    """One process, held by a pidfd where the system has pidfds.

    A pidfd keeps meaning the same process, while a process id may be given to a new process.
    `fileno()` becomes readable when the process ends. Without pidfds, `fileno()` is -1; then ask
    `ended()`.
    """

    __slots__ = ("_fd", "_stack", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._stack = _stack_of(pid)
        self._fd = -1
        if hasattr(os, "pidfd_open"):
            try:
                self._fd = os.pidfd_open(pid)
            except OSError:
                self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def ended(self) -> bool:
        return not is_alive(self.pid)

    def is_replaced(self) -> bool:
        """Whether the process has changed its program by `exec`."""
        stack = _stack_of(self.pid)
        return stack != self._stack and b"0" not in (stack, self._stack)

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, if the process is still there."""
        with contextlib.suppress(OSError):
            if self._fd >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._fd, sig)
            elif not self.ended():
                os.kill(self.pid, sig)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
