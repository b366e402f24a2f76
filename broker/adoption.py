"""Workers and programs of the previous broker at the same address, which may still come.

While workers have yet to register, a message about an unknown connection is put off: its worker may
be among them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from trunkline.broker.figures import RETURN_S, programs_of_workers
from trunkline.broker.incoming import Incoming
from trunkline.broker.schedule import Schedule
from trunkline.system.processes import is_alive
from trunkline.wire import endpoint

__all__ = ["ADOPT_S", "Adoption", "workers_without_broker"]

ADOPT_S = 6.0
"""Seconds that a new broker at an old address waits for the workers to register again.

A registered connection waits as long for its former holders.
"""


def workers_without_broker(address: str) -> set[bytes]:
    """Ids of connections whose workers wait at this address for a broker.

    Dead doors are removed.
    """
    found = set()
    for path in endpoint.doors(endpoint.folder_of(address)):
        with contextlib.suppress(OSError, ValueError):
            if endpoint.answers(path):
                found.add(bytes.fromhex(path.name.removeprefix("w-")))
            else:
                path.unlink()
    return found


class Adoption:
    """Keeps account of the workers and programs that may still come.

    `deliver` handles a put-off message as if it had just come.
    """

    def __init__(
        self, address: str, schedule: Schedule, deliver: Callable[[Incoming], None]
    ) -> None:
        self.began = schedule.now()
        self._schedule = schedule
        self._deliver = deliver
        self._workers = workers_without_broker(address)
        self._programs = programs_of_workers(address)
        self._left: set[int] = set()
        self._put_off: list[Incoming] = []

    def awaits_workers(self) -> bool:
        """Whether workers of the previous broker have yet to register."""
        return bool(self._workers) and self._schedule.now() - self.began < ADOPT_S

    def awaits_programs(self) -> bool:
        """Whether a living program of the previous broker has yet to come."""
        is_early = self._schedule.now() - self.began < RETURN_S
        return is_early and any(map(is_alive, self._programs))

    def note_worker(self, connection_id: bytes) -> None:
        """Note that a connection's worker has registered, and handle put-off messages again."""
        self._workers.discard(connection_id)
        self.deliver_again()

    def note_program(self, pid: int) -> None:
        """Note that a program has come to this broker."""
        self._programs.discard(pid)
        self._left.discard(pid)

    def note_leaving(self, pid: int) -> None:
        """Note that a living program uses Trunkline no more."""
        self._left.add(pid)

    def has_left(self, pid: int) -> bool:
        """Whether a program has said BYE and uses Trunkline no more."""
        return pid in self._left

    def put_off(self, message: Incoming) -> None:
        """Keep a message until a worker registers, a connection ends, or the time for workers is
        over."""
        self._put_off.append(message)

    def put_off_while_awaiting(self, message: Incoming) -> bool:
        """Put a message off where workers have yet to register. Returns whether it was put off."""
        if not self.awaits_workers():
            return False
        self.put_off(message)
        return True

    def deliver_again(self) -> None:
        """Handle the put-off messages. A message may be put off again."""
        waiting, self._put_off = self._put_off, []
        for message in waiting:
            self._deliver(message)

    def deliver_when_complete(self) -> None:
        """Handle the put-off messages once no worker is awaited any more."""
        if self._put_off and not self.awaits_workers():
            self.deliver_again()

    def note_end(self) -> None:
        """Note the end of a connection: messages may have been put off until then."""
        if self._put_off:
            self._schedule.look_by(self._schedule.now())
