"""RabbitMQ, which takes seconds to start: shared by all, and one for those who stop and freeze it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.servers.base import HOST, Server, StartFailed, exactly, find, framed

__all__ = ["RabbitMq"]

_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)
_INSTALL = "install rabbitmq-server (Debian: apt-get install rabbitmq-server; macOS: brew install rabbitmq)"


class RabbitMq(Server):
    """Ports: `tcp` (the plain one), `tls`.

    Users, with the password "p": "u" may do everything; "reader" may read and configure, not write;
    "stranger" has no virtual host. Virtual hosts: "/" and "other". `ctl("add_vhost", "x")` is rabbitmqctl
    (a second or two), also for the server of another process.
    """

    title = "RabbitMQ"
    program = "rabbitmq-server"
    install = _INSTALL
    # Not the one in /usr/sbin: that is a wrapper which goes to the system's own folder and user.
    folders = _FOLDERS
    port_names = ("tcp", "tls", "dist", "epmd")
    ready_s = 90.0

    _epmd: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self.copy_certs()
        self.write("enabled_plugins", "[].")
        self.write("definitions.json", json.dumps(_definitions()))
        self.write(
            "rabbitmq.conf",
            f"listeners.tcp.1 = {HOST}:{self.port}\n"
            f"listeners.ssl.1 = {HOST}:{self.ports['tls']}\n"
            f"ssl_options.cacertfile = {self.folder}/ca.pem\n"
            f"ssl_options.certfile = {self.folder}/server.pem\n"
            f"ssl_options.keyfile = {self.folder}/server.key\n"
            "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n"
            f"load_definitions = {self.folder}/definitions.json\n"
            "log.file = false\nlog.console = true\nlog.console.level = info\n"
            "disk_free_limit.absolute = 1MB\nloopback_users = none\n",
        )

    def environment(self) -> dict[str, str]:
        at = self.folder
        return {
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.ports["dist"]),
            "ERL_EPMD_PORT": str(self.ports["epmd"]),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_MNESIA_BASE": f"{at}/mnesia",
            "RABBITMQ_LOG_BASE": f"{at}/log",
            "RABBITMQ_PID_FILE": f"{at}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{at}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{at}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{at}/none",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{at}/generated",
            # With these two the script becomes the server instead of watching over it: its pid is ours.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def command(self) -> Sequence[str | Path]:
        # Its name server first, as our child: RabbitMQ would leave one behind that nobody stops.
        if self._epmd is None or self._epmd.poll() is not None:
            epmd = find("epmd", "Erlang's epmd", _INSTALL)
            self._epmd = self.spawn([epmd, "-port", str(self.ports["epmd"]), "-address", HOST])
        return [self.available()]

    def discard(self) -> None:
        super().discard()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()

    def greets(self) -> bool:
        """A login: the server tunes the connection only of somebody it knows."""
        with socket.create_connection((HOST, self.port), 5) as sock:
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            if _method(sock) != (10, 10):
                return False
            start_ok = (
                struct.pack(">HHI", 10, 11, 0)
                + b"\x05PLAIN"
                + framed(b"\0u\0p", ">I")
                + b"\x05en_US"
            )
            sock.sendall(struct.pack(">BHI", 1, 0, len(start_ok)) + start_ok + b"\xce")
            return _method(sock) == (10, 30)

    def ctl(self, *arguments: str, seconds: float = 30.0) -> str:
        """What `rabbitmqctl ARGUMENTS` says; StartFailed when it fails."""
        ctl = find("rabbitmqctl", "RabbitMQ's rabbitmqctl", _INSTALL, _FOLDERS)
        environ = {**os.environ, "HOME": str(self.folder), "LANG": "C.UTF-8", **self.environment()}
        # As the server's user, which owns the cookie by which they know each other.
        done = subprocess.run(
            [ctl, "--quiet", "--node", f"t{self.port}@localhost", *arguments],
            env={**environ, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            user="nobody" if os.geteuid() == 0 else None,
        )
        if done.returncode:
            raise StartFailed(f"rabbitmqctl {arguments[0]} failed: {done.stderr or done.stdout}")
        return done.stdout


def _method(sock: socket.socket) -> tuple[int, int]:
    """Class and method of the next frame."""
    kind, _, size = struct.unpack(">BHI", exactly(sock, 7))
    body = exactly(sock, size + 1)
    with suppress(struct.error):
        if kind == 1:
            group, number = struct.unpack_from(">HH", body)
            return int(group), int(number)
    return (0, 0)


def _definitions() -> dict[str, object]:
    """Users, virtual hosts and rights as RabbitMQ imports them at its start."""
    rights = [
        ("u", "/", ".*", ".*", ".*"),
        ("u", "other", ".*", ".*", ".*"),
        ("reader", "/", ".*", "^$", ".*"),
    ]
    users = [("u", "administrator"), ("reader", ""), ("stranger", "")]
    names = ("user", "vhost", "configure", "write", "read")
    return {
        "users": [{"name": name, "tags": tags, **_password("p")} for name, tags in users],
        "vhosts": [{"name": "/"}, {"name": "other"}],
        "permissions": [dict(zip(names, right, strict=True)) for right in rights],
    }


def _password(password: str) -> dict[str, str]:
    salt = os.urandom(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }
