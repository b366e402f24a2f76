"""The programs that use this broker, from HELLO to their end. Their holders end with them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trunkline.broker.adoption import Adoption
from trunkline.broker.directory import Client, Directory
from trunkline.broker.ending import Ending
from trunkline.broker.figures import RETURN_S
from trunkline.broker.holders import Holders
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.outbox import Outbox
from trunkline.broker.presence import is_cut_off
from trunkline.broker.process import Watch
from trunkline.broker.schedule import Schedule
from trunkline.broker.watching import Watcher
from trunkline.wire import messages
from trunkline.wire.envelope import Kind

__all__ = ["Clients"]


@dataclass(slots=True)
class Clients:
    """Handles HELLO, BEAT and BYE of programs."""

    directory: Directory
    outbox: Outbox
    holders: Holders
    adoption: Adoption
    ending: Ending
    watcher: Watcher
    schedule: Schedule

    def handlers(self) -> Handlers:
        """The kinds of messages for this module."""
        return {Kind.HELLO: self.take_hello, Kind.BEAT: self.take_beat, Kind.BYE: self.take_bye}

    def take_hello(self, message: Incoming) -> None:
        """Handle HELLO: a program introduces itself by a control socket."""
        pid, control = int(messages.Hello(*message.fields).pid), message.sender
        self.adoption.note_program(pid)
        if control not in self.directory.clients:
            self._succeed_by_exec(pid, control)
            watch = Watch(pid)
            self.directory.clients[control] = Client(control, pid, watch, self.schedule.now())
            self.watcher.call_at_end(watch, lambda: self.drop_client(control))
            self.ending.note_client()
            self._await_objects(control, pid)
        self.outbox.say(control, Kind.WELCOME, message.request_id, os.getpid())

    def _succeed_by_exec(self, pid: int, control: bytes) -> None:
        """Drop the clients of this process from before an `exec`.

        An `exec` replaces the program and keeps the process id. The new program goes on using the
        connections, for it may have been given handles.
        """
        for former in [
            client.id for client in self.directory.clients.values() if client.pid == pid
        ]:
            if self.directory.clients[former].watch.is_replaced():
                self._drop_objects(former)
                for connection in self.directory:
                    if former in connection.users:
                        connection.users.add(control)
                self.drop_client(former)

    def _await_objects(self, control: bytes, pid: int) -> None:
        """Give the objects of a program known to the previous broker the time to attach again."""
        now = self.schedule.now()
        for connection in self.directory:
            if pid in connection.expected:
                connection.users.add(control)
                connection.adopted_at = now
                if connection.lonely_since is not None:
                    connection.lonely_since = now

    def take_beat(self, message: Incoming) -> None:
        """Handle the beat of a program. An unknown program is told to send HELLO again."""
        client = self.directory.clients.get(message.sender)
        if client is None:
            self.outbox.say(message.sender, Kind.REREGISTER, 0, os.getpid())
            return
        client.heard = self.schedule.now()
        self.outbox.say(message.sender, Kind.BEAT, 0, os.getpid())

    def take_bye(self, message: Incoming) -> None:
        """Handle BYE: a living program uses Trunkline no more, so the broker does not wait for
        it."""
        client = self.directory.clients.get(message.sender)
        if client is None:
            return
        self.adoption.note_leaving(client.pid)
        for connection in self.directory:
            connection.expected = [pid for pid in connection.expected if pid != client.pid]
        # Drop all control sockets of the program. It may have two: while the broker was stopped,
        # the program may have taken the broker for lost and have come anew.
        for each in [
            other.id for other in self.directory.clients.values() if other.pid == client.pid
        ]:
            self.drop_client(each)

    def drop_client(self, control: bytes) -> None:
        """Drop a control socket and its holders."""
        client = self.directory.clients.pop(control, None)
        if client is None:
            return
        self.watcher.release(client.watch)
        for connection in self.directory:
            self.holders.drop_holders_of(connection, control)
            if control in connection.users:
                connection.users.discard(control)
                self.holders.end_if_unwanted(connection)

    def _drop_objects(self, control: bytes) -> None:
        """Drop the objects of a process after an `exec`.

        The new program knows nothing of the objects. It may have been given handles, so it still
        counts as a user of connections with a handle.
        """
        for connection in self.directory:
            self.holders.drop_holders_of(connection, control)
            if control in connection.users:
                if connection.handle is None:
                    connection.users.discard(control)
                self.holders.end_if_unwanted(connection)

    def drop_lost_clients(self, now: float) -> None:
        """Drop the clients whose process has ended, or whose socket is gone for good."""
        for client in list(self.directory.clients.values()):
            has_ended = client.watch.fileno() < 0 and client.watch.ended()
            if has_ended or self._is_cut_off(client, now):
                self.drop_client(client.id)

    def _is_cut_off(self, client: Client, now: float) -> bool:
        """Whether a client has lost its socket and is not waited for.

        Objects of the client may come back by another socket. They get as much time as holders of
        the previous broker.
        """
        if not is_cut_off(client, now, lambda to: self.outbox.say(to, Kind.BEAT, 0, os.getpid())):
            return False
        is_replaced = client.watch.is_replaced()
        if is_replaced:
            self._drop_objects(client.id)
        if not any(client.id in c.users or client.id in c.holders.values() for c in self.directory):
            return True
        return now - client.heard > RETURN_S and not is_replaced

    def forgive_silence(self, now: float) -> None:
        """Forget all silence: the broker itself was stopped, and the beats are still queued."""
        for client in self.directory.clients.values():
            client.heard, client.cut_since = now, None
