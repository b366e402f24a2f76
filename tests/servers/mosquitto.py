"""Eclipse Mosquitto: MQTT 3.1.1 and 5, plain, with passwords, TLS, WebSocket and client certificates."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.servers.base import HOST, Server, exchange, framed
from tests.support.certs import Certs

__all__ = ["Mosquitto"]

_ROUNDS = 101


class Mosquitto(Server):
    """Ports: `tcp` (the plain one) and `ws` for everybody; `auth`, `tls` and `wss` with user and password;
    `mtls` for who shows the certificate `certs.client`.

    `users` are names and passwords; who is called "limited" may use topics under "allowed/" only.
    `persistence` keeps sessions and retained messages over a restart. `config` is added at the end, for all
    listeners: "max_packet_size 1000".
    """

    title = "mosquitto"
    program = "mosquitto"
    install = "install mosquitto (Debian: apt-get install mosquitto; macOS: brew install mosquitto)"
    port_names = ("tcp", "auth", "tls", "ws", "wss", "mtls")
    USERS: ClassVar[Mapping[str, str]] = {"u": "p", "limited": "p"}

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        users: Mapping[str, str] | None = None,
        persistence: bool = False,
        config: str = "",
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(folder, certs, ports=ports, control=control)
        self._users = dict(self.USERS if users is None else users)
        self._persistence = persistence
        self._config = config

    def prepare(self) -> None:
        self.copy_certs()
        self._write_users()
        at = self.folder
        secret = f"allow_anonymous false\npassword_file {at}/passwords\nacl_file {at}/acl\n"
        tls = f"cafile {at}/ca.pem\ncertfile {at}/server.pem\nkeyfile {at}/server.key\n"
        web, anybody = "protocol websockets\n", "allow_anonymous true\n"
        asked = "require_certificate true\n"
        listeners = {
            "tcp": anybody,
            "auth": secret,
            "tls": secret + tls,
            "ws": web + anybody,
            "wss": web + secret + tls,
            "mtls": anybody + tls + asked,
        }
        text = (
            "per_listener_settings true\nlog_dest stderr\nlog_type all\nset_tcp_nodelay true\n"
            # Without bounds of its own, so that the tests see those of the client.
            "max_queued_messages 0\n"
        )
        if self._persistence:
            text += (
                f"persistence true\npersistence_location {self.folder}/\nautosave_interval 1\n"
                "autosave_on_changes true\n"
            )
        text += self._config.strip() + "\n"
        for name, lines in listeners.items():
            text += f"listener {self.ports[name]} {HOST}\n{lines}"
        self.write("mosquitto.conf", text)

    def command(self) -> Sequence[str | Path]:
        return [self.available(), "-c", self.folder / "mosquitto.conf"]

    def greets(self) -> bool:
        body = b"\x00\x04MQTT\x04\x02\x00\x05" + framed(b"ready")
        return exchange(self.port, b"\x10" + bytes([len(body)]) + body) == b"\x20\x02\x00\x00"

    def set_users(self, users: Mapping[str, str]) -> None:
        """Change the passwords while it runs; it drops the clients that may not be there any more."""
        self._users = dict(users)
        self._write_users()
        self._signal(signal.SIGHUP)

    def _write_users(self) -> None:
        self.write("passwords", _password_file(self._users))
        self.write("acl", _rights_file(self._users))


def _password_file(users: Mapping[str, str]) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    lines = ""
    for user, password in users.items():
        salt = os.urandom(12)
        key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
        lines += f"{user}:$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}\n"
    return lines


def _rights_file(users: Iterable[str]) -> str:
    """All topics for everybody but `limited`."""
    return "".join(
        f"user {user}\ntopic {'allowed/#' if user == 'limited' else '#'}\n" for user in users
    )
