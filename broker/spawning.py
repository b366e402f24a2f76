"""The spawner's events, and the spawner's own life: a killed or hung spawner is replaced."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from trunkline.broker.directory import Connection, Directory
from trunkline.broker.ending import Ending
from trunkline.broker.lives import Lives
from trunkline.broker.process import Watch
from trunkline.broker.schedule import Schedule
from trunkline.broker.spawner import Ended, Refused, Spawner, Started
from trunkline.broker.supervisor import Crashes
from trunkline.broker.watching import Watcher
from trunkline.broker.workers import SILENT_S, Workers

__all__ = ["Spawning"]


@dataclass(slots=True)
class Spawning:
    """Handles the spawner's events."""

    spawner: Spawner
    directory: Directory
    lives: Lives
    workers: Workers
    ending: Ending
    watcher: Watcher
    schedule: Schedule
    heard: float = 0.0
    """When the spawner last told an event."""
    ends: Crashes = field(default_factory=Crashes)
    """The times when spawners have ended unasked."""

    def listen(self) -> None:
        """Watch the spawner's file descriptor."""
        self.watcher.call_when_readable(self.spawner.fileno(), self.take_events)

    def take_events(self) -> None:
        """Handle the spawner's events; replace a spawner that is gone."""
        events = self.spawner.events()
        if events is None:
            self._replace_spawner()
            return
        self.heard = self.schedule.now()
        for event in events:
            match event:
                case Ended(pid, status):
                    self.workers.note_exit(pid, status)
                case Started(key, pid):
                    self._note_start(key, pid)
                case Refused(key, why):
                    self._note_refusal(key, why)

    def _note_start(self, key: str, pid: int) -> None:
        """Note that an order for a worker has been carried out."""
        connection = self.directory.connections.get(bytes.fromhex(key))
        self.workers.children.add(pid)
        if connection is None:  # the connection was given up meanwhile
            watch = Watch(pid)
            watch.kill()
            watch.close()
        else:
            self.workers.watch_worker(connection, pid, is_told=True)

    def _note_refusal(self, key: str, why: str) -> None:
        """Note that an order for a worker could not be carried out."""
        connection = self.directory.connections.get(bytes.fromhex(key))
        if connection is not None:
            self.directory.set_worker(connection, None)
            self.lives.refuse_worker(connection, why)

    def _replace_spawner(self) -> None:
        """Replace a killed spawner. Its workers live on; its last orders may be lost."""
        self.watcher.forget(self.spawner.fileno())
        if not self.ends.may_restart(self.schedule.now()):
            print(
                "trunkline broker: the zygote ends again and again; so does the broker",
                file=sys.stderr,
            )
            self.ending.stop()
            return
        print("trunkline broker: the zygote is gone; another one takes over", file=sys.stderr)
        self.spawner.restart()
        self.listen()
        self.workers.watch_orphans()

    def kill_if_silent(self, now: float) -> None:
        """Kill a spawner that hangs: it has long owed news of a worker, and is silent."""
        if now - self.heard > SILENT_S and any(self._is_owed(each, now) for each in self.directory):
            print(
                f"trunkline broker: the zygote said nothing for {SILENT_S:.0f} s", file=sys.stderr
            )
            self.heard = now
            self.spawner.kill()

    def _is_owed(self, connection: Connection, now: float) -> bool:
        """Whether the spawner has long owed news of a worker's start or end."""
        if now - connection.heard <= SILENT_S:
            return False
        watch = connection.watch
        if watch is not None and watch.pid in self.workers.children and watch.ended():
            return True
        return connection.life.is_ordered
