"""Workers: how they register, report and end.

The spawner tells the end of each worker that it has started. For a worker of another broker or
spawner, the broker watches the process. A worker that ends in good order sends the reason by ZeroMQ
before its end. The reason may arrive after the news of the end, so the broker waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trunkline.broker.adoption import Adoption
from trunkline.broker.directory import Connection, Directory
from trunkline.broker.ending import Ending
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.lives import Lives
from trunkline.broker.outbox import Outbox
from trunkline.broker.process import Watch
from trunkline.broker.schedule import Schedule
from trunkline.broker.unanswered import answer_inflight
from trunkline.broker.watching import Watcher
from trunkline.system.processes import is_alive
from trunkline.wire import messages
from trunkline.wire.envelope import CONNECTION_ID_BYTES, Kind

__all__ = ["LAST_WORDS_S", "SILENT_S", "Workers"]

SILENT_S = 10.0
"""Seconds of silence after which a worker is killed. A worker's I/O loop beats each second."""
LAST_WORDS_S = 1.0
"""Seconds that the last message of a worker may take to arrive after its end in good order.

On a busy machine, ZeroMQ's threads may run late.
"""


@dataclass(slots=True)
class Workers:
    """Handles READY, STATE and LOG of workers.

    `hear_waiting_messages` handles the messages in the socket's queue.
    """

    directory: Directory
    outbox: Outbox
    lives: Lives
    adoption: Adoption
    ending: Ending
    watcher: Watcher
    schedule: Schedule
    hear_waiting_messages: Callable[[], None]
    children: set[int] = field(default_factory=set)
    """Processes whose ends the present spawner will tell."""
    _exits: dict[int, int] = field(default_factory=dict)
    """Exit statuses of workers whose ends are not dealt with yet."""
    _speaking: set[Watch] = field(default_factory=set)
    """Workers that have ended and whose last messages may still be on their way."""
    _endings: list[tuple[float, Connection, Watch]] = field(default_factory=list)
    """When the wait for a worker's last messages is over, with the connection and the watch."""

    def handlers(self) -> Handlers:
        """The kinds of messages for this module."""
        return {Kind.READY: self.take_ready, Kind.STATE: self.take_state, Kind.LOG: self.take_log}

    # messages

    def take_ready(self, message: Incoming) -> None:
        """Register a worker: an ordered one, or one of the previous broker."""
        ready, worker = messages.Ready(*message.fields), message.sender
        key = ready.record["id"]
        if worker[: 1 + CONNECTION_ID_BYTES] != b"w" + key:
            raise ValueError("a worker that names another connection than its own")
        connection = self.directory.connections.get(key)
        if connection is None:
            if self.ending.is_stopping or self._is_succeeded(key, ready.users):
                self.outbox.say(worker, Kind.CLOSE)
                return
            # The broker does not know the connection: it belongs to the previous broker.
            connection = self._adopt(ready)
        if ready.incarnation < connection.incarnation:
            self.outbox.say(worker, Kind.CLOSE)  # the worker was replaced while it was silent
            return
        self.directory.set_worker(connection, worker)
        connection.note_news(ready.news, self.schedule.now())
        self.watch_worker(connection, ready.pid, is_told=False)
        self._tell_missed_words(connection, worker, ready)
        self.adoption.note_worker(connection.id)

    def _is_succeeded(self, key: bytes, users: Sequence[int]) -> bool:
        """Whether all living programs of this connection have dialled it anew at this broker.

        The worker, which was stopped meanwhile, say, would then take messages for no reader. The
        messages of a queue or a durable consumer are for the new worker.
        """
        heir = self.directory.heir_of(key)
        if heir is None:
            return False
        here = self.directory.user_pids(heir)
        return all(int(pid) in here for pid in users if is_alive(int(pid)))

    def _adopt(self, ready: messages.Ready) -> Connection:
        """Take over a connection of the previous broker, from the record that its worker brings."""
        record, now = ready.record, self.schedule.now()
        connection = Connection(
            record["id"], record["number"], record["spec"], record["restart"], record["linger_s"],
            record["handle"], former=record["former"], has_opened=True,
            expected=[int(user) for user in ready.users if not self.adoption.has_left(user)],
            former_incarnation=ready.incarnation,
        )  # fmt: skip
        for client in list(self.directory.clients.values()):
            if client.pid in connection.expected:
                connection.users.add(client.id)
        self.directory.add(connection)
        connection.lonely_since = now
        connection.adopted_at = now
        connection.ghosts = {holder for holder, _ in ready.holders}
        return connection

    def _tell_missed_words(
        self, connection: Connection, worker: bytes, ready: messages.Ready
    ) -> None:
        """Send a registered worker the messages missed while it had no socket here."""
        known = [holder for holder, _ in ready.holders if holder not in connection.ghosts]
        for kind, missed in connection.changes.missed(known, connection.holders):
            self.outbox.say(worker, kind, 0, *missed)
        if ready.record["handle"] != connection.handle:
            self.outbox.say(worker, Kind.RECORD, 0, connection.record())
        if connection.closing is not None:
            self.outbox.say(worker, Kind.CLOSE)

    def take_state(self, message: Incoming) -> None:
        """Take in the figures of a worker. An unknown worker is told to send READY again."""
        connection = self.directory.by_worker.get(message.sender)
        if connection is None:
            self.outbox.say(message.sender, Kind.REREGISTER)
            return
        connection.note_news(messages.State(*message.fields).news, self.schedule.now())
        users = self.directory.user_pids(connection)
        self.outbox.say(message.sender, Kind.BEAT, 0, os.getpid(), users)

    def take_log(self, message: Incoming) -> None:
        """Pass a log line of a worker on to the programs that use the connection."""
        connection = self.directory.by_worker.get(message.sender)
        # no log lines after an ordered end
        if connection is None or connection.closing is not None:
            return
        for control in connection.listeners():
            self.outbox.say(control, Kind.LOG, 0, *message.fields)

    # the processes of workers

    def watch_worker(self, connection: Connection, pid: int, *, is_told: bool) -> None:
        """Follow the life of a worker's process.

        `is_told`: the present spawner has started the process, and will tell its end with the exit
        status.
        """
        connection.life.note_worker()
        if connection.watch is not None and connection.watch.pid == pid:
            return
        if connection.watch is not None:
            self.watcher.release(connection.watch)
        connection.pid = pid
        connection.watch = Watch(pid)
        if not is_told and pid not in self.children:
            self._watch_process(connection, connection.watch)

    def _watch_process(self, connection: Connection, watch: Watch) -> None:
        self.watcher.call_at_end(watch, lambda: self.note_end(connection, watch))

    def watch_orphans(self) -> None:
        """Take over after the end of a spawner.

        Watch the processes of workers whose ends the former spawner would have told. Order again
        the workers that it has not started.
        """
        orphans, self.children = self.children, set()
        for connection in self.directory:
            if connection.watch is not None and connection.watch.pid in orphans:
                self._watch_process(connection, connection.watch)
            else:
                self.lives.order_again(connection)

    def note_exit(self, pid: int, status: int) -> None:
        """Take in the end of a worker's process, as the spawner tells it."""
        self.children.discard(pid)
        self._exits[pid] = status
        for connection in self.directory:
            if connection.pid == pid and connection.watch is not None:
                self.note_end(connection, connection.watch)
        speaking = {watch.pid for watch in self._speaking}
        # Statuses without a connection any more are dropped, or the dict would grow.
        self._exits = {pid: status for pid, status in self._exits.items() if pid in speaking}

    def note_end(self, connection: Connection, watch: Watch) -> None:
        """Deal with the end of a worker's process, at once or after the wait for last messages."""
        # A late call for an earlier worker, whose end was dealt with before.
        if connection.watch is not watch:
            return
        if (
            self._exits.get(watch.pid) == 0
            and connection.closing is None
            and watch not in self._speaking
        ):
            # The worker ended in good order, so it has sent the reason. That message may still be
            # on its way through ZeroMQ.
            due = self.schedule.now() + LAST_WORDS_S
            self._speaking.add(watch)
            self._endings.append((due, connection, watch))
            self.schedule.look_by(due)
            return
        self._speaking.discard(watch)
        self.hear_waiting_messages()  # the last messages of the worker come first
        if connection.watch is not watch:  # and a next worker has registered meanwhile
            return
        self.watcher.release(watch)
        connection.watch = None
        self.directory.set_worker(connection, None)
        status = self._exits.pop(watch.pid, None)
        answer_inflight(self.outbox, connection)
        self.lives.lose_worker(connection, status)

    # time

    def end_waits_for_words(self, now: float) -> None:
        """Deal with the ends of workers whose wait for last messages is over."""
        for due, connection, watch in self._endings[:]:
            if now >= due:
                self._endings.remove((due, connection, watch))
                self.note_end(connection, watch)
                self._speaking.discard(watch)
            else:
                self.schedule.look_by(due)

    def notice_end(self, connection: Connection) -> bool:
        """Without pidfds: ask whether a worker's process has ended. Returns whether it has."""
        watch = connection.watch
        if watch is None or watch.fileno() >= 0 or not watch.ended():
            return False
        self.note_end(connection, watch)
        return True

    def kill_if_silent(self, connection: Connection, now: float) -> None:
        """Kill a worker that hangs."""
        if connection.watch is not None and now - connection.heard > SILENT_S:
            connection.reason = f"its worker said nothing for {SILENT_S:.0f} s"
            connection.watch.kill()
