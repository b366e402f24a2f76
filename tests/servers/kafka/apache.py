"""Apache Kafka itself."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives import serialization

from tests.servers.base import HOST, Server, Unavailable, exactly, find, framed
from tests.support.certs import Certs

__all__ = ["Kafka", "fetch"]

_POM = Path(__file__).with_name("pom.xml")
_INSTALL = (
    "install Java 17 and Maven (Debian: default-jre-headless, maven) and run scripts/setup test"
)
_FETCH_S = 600
_OLDEST_JAVA = 17
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
# Little memory, quick to start: nothing here runs long enough to be worth more of the compiler.
_JAVA = ("-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.0.ref = out
appender.0.type = Console
appender.0.name = out
appender.0.layout.type = PatternLayout
appender.0.layout.pattern = %d %p %m (%c)%n
"""


class Kafka(Server):
    """Ports: `plain` and `tls` for everybody (`tls` takes the certificate `certs.client`, and needs none);
    `sasl` and `sasl_tls` with user and password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.

    Users, with the password "p": "u" may do everything, "limited" nothing. Topics are made when first used,
    with 3 partitions. `config` is added to its properties: "auto.create.topics.enable=false".
    """

    title = "Apache Kafka"
    program = "java"
    install = _INSTALL
    port_names = ("plain", "tls", "sasl", "sasl_tls", "controller")
    ready_s = 90.0
    real: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        config: str = "",
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(folder, certs, ports=ports, control=control)
        self._config = config

    @classmethod
    def available(cls) -> str:
        if not _jars().exists():
            raise Unavailable(f"Apache Kafka is not there: {_INSTALL}")
        return super().available()

    @property
    def kind(self) -> str:
        return f"{self.title} {_version()}"

    def at(self, name: str) -> str:
        """host:port of a named port, as clients' bootstrap.servers."""
        return f"{HOST}:{self.ports[name]}"

    def create(self, topic: str, partitions: int = 1, **config: str) -> str:
        """Make a topic; returns its name."""
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.address})
        new = NewTopic(topic, partitions, replication_factor=1, config=config)
        admin.create_topics([new], operation_timeout=30)[topic].result(30)
        return topic

    def prepare(self) -> None:
        self.copy_certs()
        self.write("keystore.pem", self._keystore())
        self.write("log4j2.properties", _LOGGING)
        self.write("server.properties", self._properties())
        if os.geteuid() == 0:  # who runs it may not look into root's cache
            shutil.copytree(_jars(), self.folder / "jars", copy_function=_link)
        users = [
            f"SCRAM-SHA-{bits}=[name={user},password=p]"
            for user in ("u", "limited")
            for bits in (256, 512)
        ]
        adding = [word for user in users for word in ("--add-scram", user)]
        storage = self._java(
            "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", "server.properties"
        )
        self.run([*storage, *adding])

    def command(self) -> Sequence[str | Path]:
        return self._java("kafka.Kafka", "server.properties")

    def greets(self) -> bool:
        """There is a broker in its metadata, itself, and a coordinator for groups."""
        with socket.create_connection((HOST, self.port), 5) as sock:
            metadata = _ask(sock, 3, 4, struct.pack(">i?", 0, False))
            if not struct.unpack_from(">i", metadata, 8)[0]:
                return False
            coordinator = _ask(sock, 10, 1, framed(b"ready") + b"\x00")
            return bool(struct.unpack_from(">h", coordinator, 8)[0] == 0)

    # inside

    def _java(self, *arguments: str) -> list[str]:
        here = self.folder / "jars"
        options = [
            *_JAVA,
            f"-Djava.io.tmpdir={self.folder}",
            f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
        ]
        return [
            self.available(),
            *options,
            "-cp",
            f"{here if here.exists() else _jars()}/*",
            *arguments,
        ]

    def _keystore(self) -> str:
        """Key and certificates in one file, the key in the one form that Kafka reads."""
        key: Any = serialization.load_pem_private_key(self.certs.server.key.read_bytes(), None)
        text: bytes = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return text.decode() + self.certs.server.cert.read_text()

    def _properties(self) -> str:
        protocols = {
            "PLAIN": ("plain", "PLAINTEXT"),
            "TLS": ("tls", "SSL"),
            "SASL": ("sasl", "SASL_PLAINTEXT"),
            "SASLTLS": ("sasl_tls", "SASL_SSL"),
            "CONTROLLER": ("controller", "PLAINTEXT"),
        }
        listeners = [f"{name}://{HOST}:{self.ports[at]}" for name, (at, _) in protocols.items()]
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{HOST}:{self.ports['controller']}",
            "controller.listener.names=CONTROLLER",
            "inter.broker.listener.name=PLAIN",
            f"listeners={','.join(listeners)}",
            f"advertised.listeners={','.join(listeners[:-1])}",
            f"listener.security.protocol.map={','.join(f'{n}:{p}' for n, (_, p) in protocols.items())}",
            f"log.dirs={self.folder}/data",
            # Tests write messages with times of years ago, and delete what they want deleted.
            "log.retention.ms=-1",
            # Logins
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            *(line for name in ("sasl", "sasltls") for line in _logins(name)),
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={self.folder}/keystore.pem",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={self.folder}/ca.pem",
            "ssl.client.auth=requested",
            "ssl.principal.mapping.rules=RULE:^.*$/client/",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS;User:u;User:client",
            # One node, little of everything, and no politeness towards nodes and members that there are not
            "num.partitions=3",
            *(f"{topic}.replication.factor=1" for topic in _INTERNAL),
            *(f"{topic}.num.partitions=1" for topic in _INTERNAL),
            *(f"{topic}.min.isr=1" for topic in _INTERNAL[1:]),
            "group.initial.rebalance.delay.ms=0",
            "group.min.session.timeout.ms=500",
            "group.consumer.min.session.timeout.ms=1000",
            "group.consumer.min.heartbeat.interval.ms=100",
            # After SIGKILL it may not come back before its former self's session is over.
            "broker.session.timeout.ms=3000",
            "broker.heartbeat.interval.ms=500",
            "num.network.threads=2",
            "num.io.threads=2",
            "background.threads=2",
            "log.cleaner.dedupe.buffer.size=4000000",
            self._config,
        ]
        return "\n".join(lines) + "\n"


_INTERNAL = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")


def _ask(sock: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """A request in Kafka's protocol, and the response from its correlation id on."""
    header = struct.pack(">hhi", api, version, 1) + framed(b"ready")
    sock.sendall(framed(header + body, ">I"))
    size: int = struct.unpack(">I", exactly(sock, 4))[0]
    return exactly(sock, size)


def _logins(listener: str) -> list[str]:
    modules = "org.apache.kafka.common.security"
    scram = f"{modules}.scram.ScramLoginModule required;"
    plain = f'{modules}.plain.PlainLoginModule required user_u="p" user_limited="p";'
    return [
        f"listener.name.{listener}.plain.sasl.jaas.config={plain}",
        f"listener.name.{listener}.scram-sha-256.sasl.jaas.config={scram}",
        f"listener.name.{listener}.scram-sha-512.sasl.jaas.config={scram}",
    ]


def _link(source: str, target: str) -> str:
    """A second name for the file, or a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _version() -> str:
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    return xml.parse(_POM).findtext("m:dependencies/m:dependency/m:version", "", space)


def _jars() -> Path:
    """Where this version's jars are, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "trunkline" / f"kafka-{_version()}"


def fetch() -> str:
    """Have the jars in the cache; returns what to tell the user. Unavailable where that cannot be."""
    jars = _jars()
    if jars.exists():
        return f"Apache Kafka {_version()} is in {jars}"
    java = find("java", "Java", _INSTALL)
    maven = find("mvn", "Maven", _INSTALL)
    _check(java)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as at:
        done = subprocess.run(
            [
                maven,
                "-B",
                "-q",
                "-ntp",
                "-f",
                str(_POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={at}/jars",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_S,
            check=False,
        )
        if done.returncode:
            raise Unavailable(
                f"Maven could not fetch Apache Kafka: {(done.stdout + done.stderr)[-1500:]}"
            )
        try:
            (Path(at) / "jars").rename(jars)
        except OSError:  # somebody else was quicker
            if not jars.exists():
                raise
    return f"Apache Kafka {_version()} fetched into {jars}"


def _check(java: str) -> None:
    said = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    number = said.partition('"')[2].partition('"')[0].partition(".")[0]
    if not number.isdigit() or int(number) < _OLDEST_JAVA:
        raise Unavailable(
            f"Apache Kafka needs Java {_OLDEST_JAVA} or newer, {java} is {number or 'unknown'}: {_INSTALL}"
        )
