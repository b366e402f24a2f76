"""Questions and orders of users about all connections: `trunkline ps` and `trunkline kill`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trunkline.broker.directory import Connection, Directory
from trunkline.broker.incoming import Handlers, Incoming
from trunkline.broker.lives import Lives
from trunkline.broker.outbox import Outbox
from trunkline.broker.spawner import Spawner
from trunkline.errors import DialError, to_wire
from trunkline.wire import messages
from trunkline.wire.envelope import Kind

__all__ = ["Inquiries"]


@dataclass(slots=True)
class Inquiries:
    """Handles LIST and KILL. `address`: that of the broker."""

    address: str
    directory: Directory
    outbox: Outbox
    lives: Lives
    spawner: Spawner

    def handlers(self) -> Handlers:
        """The kinds of messages for this module."""
        return {Kind.LIST: self.take_list, Kind.KILL: self.take_kill}

    def take_list(self, message: Incoming) -> None:
        """Answer with all connections and clients."""
        rows = [
            {**each.shown(), "users": self.directory.user_pids(each)} for each in self.directory
        ]
        info = {
            "pid": os.getpid(),
            "zygote": self.spawner.pid,
            "address": self.address,
            "connections": rows,
            "clients": [client.pid for client in self.directory.clients.values()],
        }
        self.outbox.reply(message, info)

    def take_kill(self, message: Incoming) -> None:
        """End a connection by its number. The answer tells whether the connection exists."""
        connection = self.directory.by_number(str(messages.Kill(*message.fields).number))
        if connection is not None and connection.closing is None:
            self._end_by_order(connection)
        self.outbox.reply(message, connection is not None)

    def _end_by_order(self, connection: Connection) -> None:
        """End a connection against the will of its holders.

        The holders are told the reason; a waiting Dial fails at once.
        """
        connection.reason = "it was ended by `trunkline kill`"
        peer = connection.stats.get("peer", "")
        if connection.all_opening():
            error = DialError(f"{peer} was not opened: {connection.reason}")
            self.lives.fail_dials(connection, to_wire(error))
        else:
            text = f"the connection to {peer} has ended: {connection.reason}; dial again"
            self.outbox.log_for_users(connection, text, level="error")
        self.outbox.tell_holders(connection, final=True)
        self.lives.close(connection, connection.reason)
