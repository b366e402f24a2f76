"""The workers and programs of the broker before this one at the same address, which may yet come.

A message about a connection that the broker does not know is put off while workers have yet to register: one
of them may bring that connection.
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
"""How long a new broker at an old address waits for the workers that are to register again, and a connection
that has registered waits for the objects that held it."""


def workers_without_broker(address: str) -> set[bytes]:
    """The ids of the connections whose workers wait at this address for a broker, since the last one was
    killed. Doors without a worker are removed."""
    found = set()
    for path in endpoint.doors(endpoint.folder_of(address)):
        with contextlib.suppress(OSError, ValueError):
            if endpoint.answers(path):
                found.add(bytes.fromhex(path.name.removeprefix("w-")))
            else:
                path.unlink()
    return found


class Adoption:
    """`deliver` handles a message that was put off, as if it had just come."""

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
        """Whether workers of the broker before this one have yet to register."""
        return bool(self._workers) and self._schedule.now() - self.began < ADOPT_S

    def awaits_programs(self) -> bool:
        """Whether a program of the broker before this one lives and has yet to come."""
        is_early = self._schedule.now() - self.began < RETURN_S
        return is_early and any(map(is_alive, self._programs))

    def note_worker(self, connection_id: bytes) -> None:
        """The worker of this connection has registered: perhaps the last that was awaited, or the one that
        messages wait for."""
        self._workers.discard(connection_id)
        self.deliver_again()

    def note_program(self, pid: int) -> None:
        """This program has come to this broker."""
        self._programs.discard(pid)
        self._left.discard(pid)

    def note_leaving(self, pid: int) -> None:
        """This program lives, but uses Trunkline no more."""
        self._left.add(pid)

    def has_left(self, pid: int) -> bool:
        """Whether this program has said that it uses Trunkline no more."""
        return pid in self._left

    def put_off(self, message: Incoming) -> None:
        """Keep a message until a worker registers, or a connection has ended, or none is awaited any more."""
        self._put_off.append(message)

    def put_off_while_awaiting(self, message: Incoming) -> bool:
        """Put a message off where workers have yet to register. Returns whether that is so."""
        if not self.awaits_workers():
            return False
        self.put_off(message)
        return True

    def deliver_again(self) -> None:
        """Handle the messages that were put off; each may be put off again."""
        waiting, self._put_off = self._put_off, []
        for message in waiting:
            self._deliver(message)

    def deliver_when_complete(self) -> None:
        """Handle the messages that were put off where no worker is awaited any more."""
        if self._put_off and not self.awaits_workers():
            self.deliver_again()

    def note_end(self) -> None:
        """A connection has ended, and a message may have been put off until then."""
        if self._put_off:
            self._schedule.look_by(self._schedule.now())
