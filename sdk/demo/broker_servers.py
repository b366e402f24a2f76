"""The demo's own mosquitto, nats-server, RabbitMQ and Kafka: private, on loopback, and ended with
the demo."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from trunkline.cli import Failed
from trunkline.demo.broker_feeds import Feed, feeds_of
from trunkline.demo.broker_place import HOST, Place, find, free_port, own
from trunkline.demo.signals import later

__all__ = ["SERVERS", "Kafka", "Server"]

STOP_S = 15.0
"""Seconds that a server has to end in good order."""
_GREET_S = 1.0
"""Seconds that a server has to answer a connection before the demo asks again."""
_LOG_LINES = 12
"""The number of log lines that an error shows."""


class Server(ABC):
    """A message broker's server. The object is made before the server runs."""

    broker: ClassVar[str]
    title: ClassVar[str]
    program: ClassVar[str]
    folders: ClassVar[tuple[str, ...]] = ()
    """Further places of the program, beside PATH."""
    client_module: ClassVar[str]
    """The module of the client library."""
    install: ClassVar[str]
    foreign = False
    """The server ran before the demo and belongs to the user: the demo neither stops nor freezes
    it."""

    def __init__(self, place: Place) -> None:
        self.port = free_port()
        self.at = f"{HOST}:{self.port}"
        self.secret = secrets.token_hex(16)
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = place.private(self.broker)
        self.prepare()
        own(self.folder)

    @classmethod
    def missing(cls) -> str | None:
        """The missing software and how to install it; None when the program and the client library
        are installed."""
        if find(cls.program, cls.folders) is None:
            return f"{cls.title}: {cls.install}"
        if importlib.util.find_spec(cls.client_module) is None:
            return f"{cls.title}: its client library, pip install 'trunkline[{cls.broker}]'"
        return None

    # The parts that differ between servers.

    @abstractmethod
    def prepare(self) -> None:
        """Write the files that the server reads at its start."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The arguments of the program."""

    def environment(self) -> dict[str, str]:
        """The environment variables that the server needs."""
        return {}

    @abstractmethod
    def greets(self, sock: socket.socket) -> bool:
        """Whether the server at the other end of `sock` answers as a server ready for clients."""

    # The parts that all servers share.

    def feeds(self) -> list[Feed]:
        return feeds_of(self.broker, self.at, self.secret)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server.

        After a `stop`, the server has the same port and data. `ready` says when clients can log in.
        """
        program = find(self.program, self.folders) or self.program
        with later():
            self._process = self._place.start(
                [program, *self.command()], self.folder, self.environment()
            )

    def ready(self) -> bool:
        """Whether clients can log in. Raises Failed when the server has ended instead."""
        if self._process is not None and self._process.poll() is not None:
            raise Failed(f"{self.title} ended at its start; its last words:\n{self.words()}")
        with contextlib.suppress(OSError, EOFError, struct.error):
            host, _, port = self.at.rpartition(":")
            with socket.create_connection((host, int(port)), _GREET_S) as sock:
                return self.greets(sock)
        return False

    def words(self) -> str:
        """The last lines of the server's log."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""

    def stop(self) -> None:
        """End the server in good order, as for a restart."""
        if self._process is not None:
            with later():
                self._place.end(self._process, signal.SIGTERM, STOP_S)
                self._process = None

    def kill(self) -> None:
        """Kill the server: its data is needed no more."""
        if self._process is not None:
            self._place.end(self._process, signal.SIGKILL, STOP_S)
            self._process = None

    def freeze(self) -> None:
        """Suspend the server (SIGSTOP): its connections stay, and no request is answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a suspended server go on (SIGCONT)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGCONT)

    def write(self, name: str, text: str) -> Path:
        """Write a file that only the server's user can read; returns its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        own(path)
        return path


class Mosquitto(Server):
    """MQTT without a login, because the server listens only on loopback."""

    broker = "mqtt"
    title = "mosquitto"
    program = "mosquitto"
    client_module = "paho"
    install = "apt-get install mosquitto, or brew install mosquitto"

    def prepare(self) -> None:
        self.write(
            "mosquitto.conf",
            f"listener {self.port} {HOST}\nallow_anonymous true\nlog_dest stderr\nset_tcp_nodelay true\n"
            # A persistent session survives the restart too, with any number of queued messages.
            f"persistence true\npersistence_location {self.folder}/\nmax_queued_messages 0\n",
        )

    def command(self) -> Sequence[str | Path]:
        return ["-c", self.folder / "mosquitto.conf"]

    def greets(self, sock: socket.socket) -> bool:
        """Log in: a CONNECT of MQTT 3.1.1 must be answered by a CONNACK with code 0."""
        sock.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x05\x00\x05ready")
        return _receive_exactly(sock, 4) == b"\x20\x02\x00\x00"


class Nats(Server):
    """NATS with JetStream. A token is the login."""

    broker = "nats"
    title = "nats-server"
    program = "nats-server"
    client_module = "nats"
    install = "apt-get install nats-server, or brew install nats-server"

    def prepare(self) -> None:
        self.write(
            "nats.conf",
            f'listen: "{self.at}"\nauthorization {{ token: "{self.secret}" }}\n'
            f'jetstream {{ store_dir: "{self.folder}/streams" }}\n',
        )

    def command(self) -> Sequence[str | Path]:
        return ["-c", self.folder / "nats.conf"]

    def greets(self, sock: socket.socket) -> bool:
        """The server sends INFO first."""
        return _receive_exactly(sock, 5) == b"INFO "


class RabbitMq(Server):
    """RabbitMQ with its own node name, ports, folder and name server, apart from an installed
    RabbitMQ."""

    broker = "amqp"
    title = "RabbitMQ"
    program = "rabbitmq-server"
    # Not the program in /usr/sbin: a wrapper that uses the system's own folder and user.
    folders = (
        "/usr/lib/rabbitmq/bin",
        "/opt/homebrew/opt/rabbitmq/sbin",
        "/usr/local/opt/rabbitmq/sbin",
    )
    client_module = "pika"
    install = "apt-get install rabbitmq-server, or brew install rabbitmq"

    _names: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self._distribution, self._epmd = free_port(), free_port()
        self.write("enabled_plugins", "[].")
        self.write(
            "rabbitmq.conf",
            f"listeners.tcp.1 = {self.at}\ndefault_user = demo\ndefault_pass = {self.secret}\n"
            "log.file = false\nlog.console = true\nlog.console.level = warning\n"
            "disk_free_limit.absolute = 1MB\n",
        )

    def environment(self) -> dict[str, str]:
        at = self.folder
        return {
            "RABBITMQ_NODENAME": f"demo{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_MNESIA_BASE": f"{at}/mnesia",
            "RABBITMQ_LOG_BASE": f"{at}/log",
            "RABBITMQ_PID_FILE": f"{at}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{at}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{at}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{at}/none",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{at}/generated",
            # With these two variables the start script replaces itself by the server, so that the
            # pid is the server's.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    def start(self) -> None:
        """Start the name server once, then RabbitMQ."""
        # Start Erlang's name server (epmd) first, as a child of the demo. RabbitMQ would start its
        # own, and leave epmd behind for ever.
        if self._names is None:
            command = [find("epmd") or "epmd", "-port", str(self._epmd), "-address", HOST]
            with later():
                self._names = self._place.start(command, self.folder, {})
        super().start()

    def command(self) -> Sequence[str | Path]:
        return []

    def greets(self, sock: socket.socket) -> bool:
        """RabbitMQ listens only when it takes logins.

        A frame of type 1 (a method, connection.start) comes first.
        """
        sock.sendall(b"AMQP\x00\x00\x09\x01")
        return _receive_exactly(sock, 1) == b"\x01"

    def kill(self) -> None:
        """Kill RabbitMQ, then its name server."""
        super().kill()
        if self._names is not None:
            self._place.end(self._names, signal.SIGKILL, STOP_S)
            self._names = None


class Kafka(Server):
    """Apache Kafka, from the jars that `scripts/setup test` leaves in the cache, or a server that
    runs already."""

    broker = "kafka"
    title = "Apache Kafka"
    program = "sh"
    client_module = "confluent_kafka"
    install = (
        "its jars are not in the cache (scripts/setup test fetches them where Java 17 and mvn are); "
        "or give one that runs: --kafka HOST:PORT"
    )
    given: str | None = None
    """host:port of a server that runs already."""

    def __init__(self, place: Place) -> None:
        if self.given is None:
            super().__init__(place)
            return
        self._process = None
        self.foreign, self.at, self.secret = True, self.given, ""
        self.folder = place.folder

    @classmethod
    def missing(cls) -> str | None:
        """The missing software; with `--kafka` only the client library can be missing."""
        if cls.given is None and (find("java") is None or _find_jars() is None):
            return f"{cls.title}: {cls.install}"
        if importlib.util.find_spec(cls.client_module) is None:
            return f"{cls.title}: its client library, pip install 'trunkline[kafka]'"
        return None

    def feeds(self) -> list[Feed]:
        """The feed. On a user's Kafka the topic has a new name, apart from the user's own
        topics."""
        topic = f"trunkline-demo-{secrets.token_hex(4)}" if self.foreign else "ticks"
        return feeds_of(self.broker, self.at, self.secret, topic)

    def prepare(self) -> None:
        """Link the jars and write the configuration of a single node, which is controller and
        broker."""
        cached = _find_jars()
        assert cached is not None
        # The server's user may not look into our home, so the jars are linked into the server's
        # folder, or copied. A link is a second name for the same file, whose owner therefore must
        # stay.
        shutil.copytree(cached, self.folder / "jars", copy_function=_link_file)
        (self.folder / "jars").chmod(0o755)
        controller = free_port()
        self.write(
            "server.properties",
            "\n".join(
                (
                    "process.roles=broker,controller",
                    "node.id=1",
                    f"controller.quorum.voters=1@{HOST}:{controller}",
                    "controller.listener.names=CONTROLLER",
                    f"listeners=PLAINTEXT://{self.at},CONTROLLER://{HOST}:{controller}",
                    f"log.dirs={self.folder}/data",
                    "num.partitions=2",
                    "offsets.topic.replication.factor=1",
                    "offsets.topic.num.partitions=1",
                    "group.initial.rebalance.delay.ms=0",
                    "num.network.threads=2",
                    "num.io.threads=2",
                    "background.threads=2",
                    "log.cleaner.dedupe.buffer.size=4000000",
                )
            )
            + "\n",
        )

    def start(self) -> None:
        """Start Kafka; a server that ran before is left alone."""
        if not self.foreign:
            super().start()

    def command(self) -> Sequence[str | Path]:
        java = find("java") or "java"
        options = "-Xms64m -Xmx320m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
        run = f"'{java}' {options} -Djava.io.tmpdir=. -cp 'jars/*'"
        made = f"{run} kafka.tools.StorageTool format -t {_CLUSTER} -c server.properties"
        # The storage is formatted once; a restart finds its data.
        return ["-c", f"[ -e data ] || {made} && exec {run} kafka.Kafka server.properties"]

    def greets(self, sock: socket.socket) -> bool:
        """Ask for metadata: the reply names at least one broker once this server takes part in the
        cluster."""
        request = struct.pack(">hhih5si?", 3, 4, 1, 5, b"ready", 0, False)
        sock.sendall(struct.pack(">i", len(request)) + request)
        body = _receive_exactly(sock, struct.unpack(">i", _receive_exactly(sock, 4))[0])
        brokers: int = struct.unpack_from(">i", body, 8)[0]
        return brokers > 0


_CLUSTER = "VHJ1bmtsaW5lRGVtb0thZg"
"""The id of the cluster, for the formatting of the storage."""

SERVERS: dict[str, type[Server]] = {
    each.broker: each for each in (Mosquitto, Nats, RabbitMq, Kafka)
}


def _find_jars() -> Path | None:
    """The folder of the newest Kafka in the cache, or None."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trunkline"
    found = [path for path in cache.glob("kafka-*") if any(path.glob("kafka_*.jar"))]
    return max(
        found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)], default=None
    )


def _link_file(source: str, target: str) -> str:
    """Make a second name for a world-readable file; copy the file where a link is impossible.

    Returns `target`.
    """
    if os.stat(source).st_mode & 0o004:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return target
    shutil.copyfile(source, target)
    os.chmod(target, 0o644)
    return target


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Read exactly `count` bytes; EOFError when the peer ends the connection earlier."""
    got = b""
    while len(got) < count:
        part = sock.recv(count - len(got))
        if not part:
            raise EOFError
        got += part
    return got
