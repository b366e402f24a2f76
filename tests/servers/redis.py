"""Redis: streams and channels, with passwords, users, TLS and replicas."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.base import HOST, Server
from tests.support.certs import Certs

__all__ = ["Redis"]


class Redis(Server):
    """`port` takes everybody, or who has the `password`, or `users`: names, and rules as of ACL SETUSER,
    as in {"u": "on >p allkeys allchannels +@all"} (without rules `default` may do everything). `tls` serves
    `ports["tls"]` with the certificates of the fixture `certs`.

    `persistence` keeps the data over a restart, and over a kill. `config` is added as it stands, in the
    language of redis.conf: "maxmemory 5mb".
    """

    title = "redis-server"
    program = "redis-server"
    install = "install Redis (Debian: apt-get install redis-server; macOS: brew install redis)"
    port_names = ("main", "tls")

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool = True,
        persistence: bool = False,
        config: str = "",
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(folder, certs, ports=ports, control=control)
        self._password, self._users = password, dict(users or {})
        self._tls, self._persistence, self._config = tls, persistence, config

    def prepare(self) -> None:
        self.copy_certs()
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"dir {self.folder}",
            "daemonize no",
            'save ""',
        ]
        if self._persistence:
            lines += ["appendonly yes", "appendfsync always"]
        if self._password is not None:
            lines.append(f"requirepass {self._password}")
        lines += [f"user {name} {rules}" for name, rules in self._users.items()]
        if self._tls:
            lines += [
                f"tls-port {self.ports['tls']}",
                f"tls-ca-cert-file {self.folder}/ca.pem",
                f"tls-cert-file {self.folder}/server.pem",
                f"tls-key-file {self.folder}/server.key",
                "tls-auth-clients optional",
            ]
        self.write("redis.conf", "\n".join([*lines, self._config, ""]))

    def command(self) -> Sequence[str | Path]:
        return [self.available(), self.folder / "redis.conf"]

    def greets(self) -> bool:
        """PONG, or the wish for a login."""
        with socket.create_connection((HOST, self.port), 2) as sock, sock.makefile("rb") as lines:
            sock.sendall(b"PING\r\n")
            return lines.readline().startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
