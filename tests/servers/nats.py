"""nats-server: core NATS and JetStream, with every way to log in."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.base import HOST, Server
from tests.support.certs import Certs

__all__ = ["NKEY_SEED", "NKEY_USER", "Nats"]

NKEY_SEED = "SUAI7CVM4PKRCL26CTRONVTC5CZHCDV3GTG5PJLVNENPDXSXBU7HLOGGSI"
"""A user's private nkey, made for these tests."""
NKEY_USER = "UAHWZYZFVQBSDWXER3DBRPCDNTQJYJCQY2ZLBMWS2C7ZMVMOEIRBLX7Y"
"""The public one, which the server knows."""


class Nats(Server):
    """`port` takes clients; `ws` takes WebSocket when `websocket` is set.

    Who may log in: everybody, or who has the `token`, one of `users` (names and passwords), or with `nkey`
    the owner of NKEY_SEED. `tls`: only with TLS; `verify`: and with the certificate `certs.client`.
    `jetstream` keeps streams in memory and files. `config` is added as it stands, in nats-server's language:
    "max_payload: 1000".
    """

    title = "nats-server"
    program = "nats-server"
    install = (
        "install nats-server (Debian: apt-get install nats-server; macOS: brew install nats-server)"
    )
    port_names = ("main", "ws")

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        token: str | None = None,
        users: Mapping[str, str] | None = None,
        nkey: bool = False,
        tls: bool = False,
        verify: bool = False,
        jetstream: bool = False,
        websocket: bool = False,
        config: str = "",
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(folder, certs, ports=ports, control=control)
        self._token, self._users, self._nkey = token, dict(users or {}), nkey
        self._tls, self._verify, self._jetstream = tls or verify, verify, jetstream
        self._websocket, self._config = websocket, config

    def prepare(self) -> None:
        self.copy_certs()
        self.configure()

    def configure(self) -> None:
        """Write the configuration anew."""
        lines = [f'listen: "{HOST}:{self.port}"', f'pid_file: "{self.folder}/pid"']
        users = [
            f"{{user: {json.dumps(u)}, password: {json.dumps(p)}}}" for u, p in self._users.items()
        ]
        users += [f"{{nkey: {NKEY_USER}}}"] if self._nkey else []
        if self._token is not None:
            lines.append(f"authorization {{ token: {json.dumps(self._token)} }}")
        elif users:
            lines.append(f"authorization {{ users: [{', '.join(users)}] }}")
        if self._tls:
            files = f'cert_file: "{self.folder}/server.pem", key_file: "{self.folder}/server.key"'
            asked = f', ca_file: "{self.folder}/ca.pem", verify: true' if self._verify else ""
            lines.append(f"tls {{ {files}{asked} }}")
        if self._jetstream:
            lines.append(f'jetstream {{ store_dir: "{self.folder}/jetstream" }}')
        if self._websocket:
            lines.append(f'websocket {{ listen: "{HOST}:{self.ports["ws"]}", no_tls: true }}')
        self.write("nats.conf", "\n".join([*lines, self._config, ""]))

    def command(self) -> Sequence[str | Path]:
        return [self.available(), "-c", self.folder / "nats.conf"]

    def greets(self) -> bool:
        """INFO comes first; where nothing is asked for, PONG after PING is the proof."""
        with socket.create_connection((HOST, self.port), 2) as sock, sock.makefile("rb") as lines:
            info = lines.readline(65536)
            if self._tls or b'"auth_required":true' in info:
                return info.startswith(b"INFO {")
            sock.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
            return lines.readline() == b"PONG\r\n"

    def set_users(self, users: Mapping[str, str]) -> None:
        """Change who may log in while it runs; it drops the clients that may not be there any more."""
        self._users = dict(users)
        self.configure()
        self._signal(signal.SIGHUP)


class JetStream(Nats):
    """The shared one with streams."""

    title = "nats-server with JetStream"

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(folder, certs, jetstream=True, ports=ports, control=control)
