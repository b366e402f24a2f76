"""MariaDB: what speaks MySQL's protocol here."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.base import HOST, Server, exactly, find

__all__ = ["MariaDb"]

_INSTALL = (
    "install MariaDB (Debian: mariadb-server-core mariadb-client-core; macOS: brew install mariadb)"
)
_LOG = "--innodb-log-file-size=8M"  # of 100 MB otherwise
# One statement a line: of several the server runs the first.
_USERS = """\
CREATE DATABASE t;
CREATE USER 'u'@'127.0.0.1' IDENTIFIED BY 'p';
GRANT ALL ON *.* TO 'u'@'127.0.0.1';
CREATE USER 'limited'@'127.0.0.1' IDENTIFIED BY 'p';
GRANT SELECT ON t.* TO 'limited'@'127.0.0.1';
CREATE USER 'tls'@'127.0.0.1' IDENTIFIED BY 'p' REQUIRE SSL;
GRANT ALL ON *.* TO 'tls'@'127.0.0.1';
"""


class MariaDb(Server):
    """`port` with or without TLS; users, with the password "p": "u" (everything), "limited" (reads the
    database "t"), "tls" (everything, with TLS only). `unix_socket` is its socket's path."""

    title = "MariaDB"
    program = "mariadbd"
    install = _INSTALL

    def __init__(self, *args: Any, arguments: Sequence[str] = (), **options: Any) -> None:
        """`arguments`: more of them for the server, such as `--default-time-zone=+09:00`."""
        super().__init__(*args, **options)
        self._arguments = arguments

    @property
    def unix_socket(self) -> Path:
        return self.folder / "s"

    def prepare(self) -> None:
        self.copy_certs()
        install = find("mariadb-install-db", "MariaDB's mariadb-install-db", _INSTALL)
        self.run(
            [
                install,
                "--no-defaults",
                f"--datadir={self.folder}/data",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                _LOG,
            ]
        )
        self.write("init.sql", _USERS)

    def command(self) -> Sequence[str | Path]:
        at = self.folder
        first = [] if (at / "started").exists() else [f"--init-file={at}/init.sql"]
        (at / "started").touch()
        return [
            self.available(),
            "--no-defaults",
            f"--datadir={at}/data",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={self.unix_socket}",
            f"--pid-file={at}/pid",
            f"--tmpdir={at}",
            "--skip-name-resolve",
            f"--ssl-ca={at}/ca.pem",
            f"--ssl-cert={at}/server.pem",
            f"--ssl-key={at}/server.key",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            _LOG,
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=1M",
            *self._arguments,
            *first,
        ]

    def greets(self) -> bool:
        """Its greeting, of protocol 10; what it says first when it is not ready is an error."""
        with socket.create_connection((HOST, self.port), 5) as sock:
            size = struct.unpack("<I", exactly(sock, 4))[0] & 0xFFFFFF
            return exactly(sock, size)[0] == 10
