"""PgBouncer, before a PostgreSQL server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.base import HOST, Server, exactly

__all__ = ["PgBouncer"]


class PgBouncer(Server):
    """The database "postgres" of a server, with the user "u" and the password "p", as `Postgres` has them."""

    title = "PgBouncer"
    program = "pgbouncer"
    install = "install PgBouncer (Debian: apt-get install pgbouncer; macOS: brew install pgbouncer)"
    folders = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

    def __init__(self, *args: Any, server: int = 0, mode: str = "session", **options: Any) -> None:
        """`server`: the PostgreSQL server's port. `mode`: `session` or `transaction`."""
        super().__init__(*args, **options)
        self._server, self._mode = server, mode

    def prepare(self) -> None:
        self.write("users.txt", '"u" "p"\n')
        self.write(
            "pgbouncer.ini",
            f"""[databases]
postgres = host={HOST} port={self._server}
[pgbouncer]
listen_addr = {HOST}
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.folder}/users.txt
pool_mode = {self._mode}
default_pool_size = 40
logfile = {self.folder}/pgbouncer.log
pidfile = {self.folder}/pgbouncer.pid
""",
        )

    def command(self) -> Sequence[str | Path]:
        return [self.available(), self.folder / "pgbouncer.ini"]

    def greets(self) -> bool:
        """It asks who we are."""
        words = b"user\0u\0database\0postgres\0\0"
        with socket.create_connection((HOST, self.port), 5) as sock:
            sock.sendall(struct.pack(">II", len(words) + 8, 196608) + words)
            return exactly(sock, 1) == b"R"
