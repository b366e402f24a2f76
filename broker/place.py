"""The broker's folder, made anew where it was removed, and removed after the last broker.

A cleaner of temporary folders, an administrator, or a wrong `rm -r` may remove the folder of a
running broker. Without the socket's file, no new request would arrive.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time

from trunkline.broker.figures import RETURN_S, programs_of_workers
from trunkline.system.processes import is_alive
from trunkline.wire import endpoint

__all__ = ["Place", "see_to_folder"]

TIDY_S = 3.0
"""Seconds that programs without figures to continue may take to start another broker."""
TIDY_LOOK_S = 0.1
BELIEVED_LOOKS = 4
"""How many looks in a row must find the lock held, as proof of a new broker.

A process that tests for a living broker holds the lock for a moment; a broker holds it to its end.
"""

LOOK_EVERY_S = 1.0
COMPLAIN_EVERY_S = 30.0


class Place:
    """The folder of the broker at `address`.

    `folder_is_ours`: False once another broker has taken the folder. Then this broker must not
    remove it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._folder = endpoint.folder_of(address)
        self._look_at = 0.0
        self._complain_at = 0.0
        self.folder_is_ours = True

    def is_gone(self, now: float) -> bool:
        """Whether the socket's file is gone; checked once a second, always False in between."""
        if now < self._look_at or not self.folder_is_ours:
            return False
        self._look_at = now + LOOK_EVERY_S
        return not os.path.lexists(self._folder / endpoint.SOCKET)

    def take_again(self) -> bool:
        """Make the folder, its lock and its log anew.

        Returns False where another broker has taken the folder meanwhile. Raises BrokerGone or
        OSError where the folder cannot be made.
        """
        if (
            endpoint.claim(self._folder) is None
        ):  # the lock is now ours until the end of the process
            self.folder_is_ours = False
            return False
        if _is_file(sys.stderr.fileno()):
            log = os.open(self._folder / endpoint.LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
        return True

    def last_number(self) -> int:
        """The number of the last connection of any broker in this folder; 0 if unknown."""
        with contextlib.suppress(OSError, ValueError):
            return max(0, int((self._folder / endpoint.NUMBER).read_text()))
        return 0

    def keep_number(self, number: int) -> None:
        """Write down the number of the last connection, for the next broker.

        An error is ignored (a full disk): the next broker may then have two connections of one
        number.
        """
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._folder / endpoint.NUMBER, flags, 0o600)
            try:
                os.pwrite(
                    fd, b"%19d\n" % number, 0
                )  # always the same length, so that a later write needs no further room
            finally:
                os.close(fd)

    def may_complain(self, now: float) -> bool:
        """Whether the last complaint is old enough for another one."""
        if now < self._complain_at:
            return False
        self._complain_at = now + COMPLAIN_EVERY_S
        return True


def see_to_folder(address: str) -> None:
    """Look after the folder of an ended broker: wait for a program to start another broker there.

    Without another broker in time, and without a worker, remove the folder.
    """
    folder = endpoint.folder_of(address)
    programs = programs_of_workers(address)
    began = time.monotonic()
    looks_held = 0
    while time.monotonic() - began < (RETURN_S if any(map(is_alive, programs)) else TIDY_S):
        time.sleep(TIDY_LOOK_S)
        looks_held = looks_held + 1 if endpoint.alive(address) else 0
        if not folder.exists() or looks_held == BELIEVED_LOOKS:
            return
    for _ in range(BELIEVED_LOOKS):
        if endpoint.tidy(folder):
            return
        time.sleep(TIDY_LOOK_S)


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)
