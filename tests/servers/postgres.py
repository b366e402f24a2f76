"""PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from tests.servers.base import HOST, Server, exactly, find

__all__ = ["Postgres"]

_INSTALL = "install PostgreSQL (Debian: apt-get install postgresql; macOS: brew install postgresql)"
_FOLDERS = tuple(
    str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
)


class Postgres(Server):
    """`port` with or without TLS. The user "u" with the password "p" may do everything; the database is
    "postgres". Its unix socket is in `folder`."""

    title = "PostgreSQL"
    program = "postgres"
    install = _INSTALL
    folders = _FOLDERS
    # SIGTERM would wait for the clients to leave.
    stop_signal = signal.SIGINT

    def prepare(self) -> None:
        self.copy_certs()
        initdb = find("initdb", "PostgreSQL's initdb", _INSTALL, _FOLDERS)
        login = ["-U", "u", f"--pwfile={self.write('password', 'p')}", "-A", "scram-sha-256"]
        self.run(
            [initdb, "-D", self.folder / "data", *login, "-E", "UTF8", "--locale=C", "--no-sync"]
        )

    def command(self) -> Sequence[str | Path]:
        quick = (
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "shared_buffers=16MB",
        )
        tls = (
            "ssl=on",
            f"ssl_cert_file={self.folder}/server.pem",
            f"ssl_key_file={self.folder}/server.key",
        )
        settings = [word for setting in (*quick, *tls) for word in ("-c", setting)]
        where = ["-D", self.folder / "data", "-p", str(self.port), "-h", HOST, "-k", self.folder]
        return [self.available(), *where, *settings]

    def greets(self) -> bool:
        """It asks who we are; while it starts it says that it does."""
        words = b"user\0u\0database\0postgres\0\0"
        with socket.create_connection((HOST, self.port), 5) as sock:
            sock.sendall(struct.pack(">II", len(words) + 8, 196608) + words)
            return exactly(sock, 1) == b"R"

    def discard(self) -> None:
        """In good order: SIGKILL would leave its shared memory to the machine."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
