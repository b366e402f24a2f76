"""The real servers: they start, are shared, can be had for oneself, say what is missing, and never stay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers.base import OWNER, RUN, Server, StartFailed, framed, port
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Kafka, KafkaMock
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import NKEY_SEED, Nats
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMq
from tests.servers.run import Run
from tests.support import leaks
from tests.support.certs import Certs
from tests.support.leaks import MARKER, Leaked, Leaks
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]


# what the shared ones are


def mqtt_login(sock: socket.socket, user: str = "", password: str = "") -> int:
    """The return code of CONNACK: 0 is welcome, 5 is not authorized."""
    flags = b"\xc2" if user else b"\x02"
    rest = framed(user.encode()) + framed(password.encode()) if user else b""
    body = b"\x00\x04MQTT\x04" + flags + b"\x00\x05" + framed(b"me") + rest
    sock.sendall(b"\x10" + bytes([len(body)]) + body)
    return sock.recv(4)[3]


def dial(server: Server, name: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.ports[name]), 10)


def test_mosquitto_asks_for_passwords_where_it_should(mosquitto: Mosquitto) -> None:
    for name, user, password, code in [
        ("tcp", "", "", 0),
        ("auth", "u", "p", 0),
        ("auth", "u", "wrong", 5),
        ("auth", "", "", 5),
    ]:
        with dial(mosquitto, name) as sock:
            assert mqtt_login(sock, user, password) == code


def test_mosquitto_shows_the_runs_certificate_and_asks_for_the_clients(
    mosquitto: Mosquitto, certs: Certs
) -> None:
    with certs.client_context().wrap_socket(
        dial(mosquitto, "tls"), server_hostname="localhost"
    ) as sock:
        assert mqtt_login(sock, "u", "p") == 0
    mutual = certs.client_context(with_cert=True)
    with mutual.wrap_socket(dial(mosquitto, "mtls"), server_hostname="localhost") as sock:
        assert mqtt_login(sock) == 0
    with (
        certs.client_context().wrap_socket(
            dial(mosquitto, "mtls"), server_hostname="localhost"
        ) as sock,
        pytest.raises((ssl.SSLError, ConnectionError, IndexError)),
    ):
        mqtt_login(sock)


def test_rabbitmq_knows_its_users(rabbitmq: RabbitMq) -> None:
    users = rabbitmq.ctl("list_users", "--formatter", "json")
    assert {user["user"] for user in json.loads(users)} == {"u", "reader", "stranger"}
    assert set(rabbitmq.ctl("list_vhosts").split()) >= {"/", "other"}


def test_kafka_logs_in_and_keeps_rights(apache_kafka: Kafka, certs: Certs) -> None:
    from confluent_kafka.admin import AdminClient

    topic = apache_kafka.create(apache_kafka.unique("t"), 2)
    shared = {"sasl.username": "u", "sasl.password": "p", "ssl.ca.location": str(certs.ca)}
    for name, protocol, mechanism in [
        ("sasl", "SASL_PLAINTEXT", "PLAIN"),
        ("sasl_tls", "SASL_SSL", "SCRAM-SHA-512"),
    ]:
        login = {"security.protocol": protocol, "sasl.mechanism": mechanism, **shared}
        for user, error in [("u", None), ("limited", 29)]:
            admin = AdminClient(
                {"bootstrap.servers": apache_kafka.at(name), **login, "sasl.username": user}
            )
            found = admin.list_topics(topic, timeout=20).topics[topic]
            assert (found.error.code() if found.error else None) == error
            assert user != "u" or len(found.partitions) == 2


def test_a_shared_server_cannot_be_stopped(nats_server: Nats) -> None:
    for act in (nats_server.stop, nats_server.freeze, nats_server.restart):
        with pytest.raises(AssertionError, match="shared by all tests: take a private one"):
            act()
    assert nats_server.running()


# a test's own


def test_it_comes_back_on_its_port(start_mosquitto: Callable[..., Mosquitto]) -> None:
    server = start_mosquitto()
    first = server.pid, server.port
    server.restart()
    assert server.port == first[1]
    assert server.pid != first[0]
    server.kill()
    assert not server.running()
    with pytest.raises(ConnectionError):
        dial(server, "tcp")
    server.start()
    with dial(server, "tcp") as sock:
        assert mqtt_login(sock) == 0


def test_a_frozen_server_says_nothing_until_it_is_thawed(start_nats: Callable[..., Nats]) -> None:
    server = start_nats()
    server.freeze()
    with dial(server, "main") as sock:  # the system takes the connection
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        server.thaw()
        sock.settimeout(10)
        assert sock.recv(6) == b"INFO {"
    server.freeze()
    server.recover()
    server.freeze()
    server.stop()
    assert not server.running()


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({"token": "secret"}, {"token": "secret"}),
        ({"users": {"u": "p"}}, {"user": "u", "password": "p"}),
        ({"nkey": True}, {"nkeys_seed_str": NKEY_SEED}),
        ({"verify": True}, {"tls": True}),
        ({"jetstream": True}, {}),
    ],
    ids=lambda value: next(iter(value), "nobody"),
)
def test_nats_logs_in(
    start_nats: Callable[..., Nats], certs: Certs, settings: dict[str, Any], login: dict[str, Any]
) -> None:
    import nats

    server = start_nats(**settings)
    if "tls" in login:
        login = {"tls": certs.client_context(with_cert=True)}
    elif login:
        with dial(server, "main") as sock, sock.makefile("rb") as lines:
            assert lines.readline().startswith(b"INFO {")
            sock.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
            assert lines.readline().startswith(b"-ERR 'Authorization Violation'")

    async def log_in() -> None:
        client = await nats.connect(server.address, allow_reconnect=False, **login)
        if settings.get("jetstream"):
            await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.close()

    asyncio.run(log_in())


def test_users_can_be_taken_away(start_mosquitto: Callable[..., Mosquitto]) -> None:
    server = start_mosquitto(users={"a": "1", "b": "2"})
    server.set_users({"b": "2"})

    def refused() -> bool:
        with dial(server, "auth") as sock:
            return mqtt_login(sock, "a", "1") == 5

    until(refused, "the change")
    with dial(server, "auth") as sock:
        assert mqtt_login(sock, "b", "2") == 0


def test_what_a_test_did_to_an_exclusive_server_is_undone(private_rabbitmq: RabbitMq) -> None:
    private_rabbitmq.freeze()
    private_rabbitmq.recover()
    assert private_rabbitmq.running()
    private_rabbitmq.kill()
    assert not private_rabbitmq.running()
    private_rabbitmq.recover()
    assert private_rabbitmq.running()


def test_kafka_survives_its_sudden_end(private_kafka: Kafka) -> None:
    topic = private_kafka.create(private_kafka.unique("t"))
    private_kafka.kill()
    private_kafka.start()
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": private_kafka.address})
    assert not admin.list_topics(topic, timeout=20).topics[topic].error


def test_the_databases_are_shared_too(
    mariadb: MariaDb, postgres: Postgres, clickhouse: ClickHouse
) -> None:
    assert mariadb.running()
    assert postgres.running()
    assert clickhouse.running()


@pytest.mark.parametrize("kind", [MariaDb, Postgres, ClickHouse])
def test_a_database_comes_back(start_server: Callable[..., Server], kind: type[Server]) -> None:
    server = start_server(kind)
    server.restart()
    server.kill()
    server.start()
    server.freeze()
    server.thaw()
    assert server.greets()


def test_the_mock_of_kafka_serves(start_server: Callable[..., Any]) -> None:
    from confluent_kafka import Producer

    server = start_server(KafkaMock)
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": server.address})
    producer.produce("t", b"v", on_delivery=lambda error, message: errors.append(error))
    assert producer.flush(20) == 0
    assert errors == [None]


# when it goes wrong


def test_a_server_that_does_not_start_is_quoted(start_mosquitto: Callable[..., Mosquitto]) -> None:
    with pytest.raises(StartFailed, match=r"ended at its start \(exit \d+\)(?s:.*)nonsense"):
        start_mosquitto(config="nonsense 1")


def test_a_server_that_is_left_is_a_leak(
    server_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "OWN_GRACE_S", 0.0)
    monkeypatch.setattr(leaks, "OTHERS_GRACE_S", 0.0)
    before = Leaks(tmp_path, os.environ[MARKER])
    server = server_run.private(Nats)
    server.start()
    try:
        with pytest.raises(Leaked, match=rf"process {server.pid} .*nats-server"):
            before.check()
    finally:
        server.discard()
    before.check()
    assert not server.folder.exists()


def test_the_shared_ones_are_no_leak(
    server_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "OTHERS_GRACE_S", 0.0)
    before = Leaks(tmp_path, os.environ[MARKER])
    server_run.server("mosquitto")
    before.check()


# whole runs


def _hears_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Inner:
    """A pytest run of its own with tests given as text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        (folder / "pytest.ini").write_text(
            "[pytest]\naddopts = -p tests.servers.fixtures -p no:cacheprovider\n"
        )
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, tests: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        (self.folder / "test_inner.py").write_text(f"NOTES = {str(self.notes)!r}\n{tests}")
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        for name in (RUN, "CI"):
            ours.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-rs", *arguments, "test_inner.py"],
            cwd=self.folder,
            env={
                **ours,
                "PYTHONPATH": os.pathsep.join([str(ROOT), ours.get("PYTHONPATH", "")]),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # whoever runs us in the background has Ctrl-C ignored, and that is inherited
            preexec_fn=_hears_ctrl_c,
        )
        self._processes.append(process)
        return process

    def run(self, tests: str, *arguments: str, **environ: str) -> str:
        return self.start(tests, *arguments, **environ).communicate(timeout=50)[0]

    def noted(self) -> list[Any]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    pytest_inside = Inner(tmp_path)
    yield pytest_inside
    pytest_inside.close()


NOTE = """
import json, os, threading
def note(*what):
    with open(NOTES, "a") as file:
        file.write(json.dumps(what) + "\\n")
"""


STILL_STARTING = "def test_later(rabbitmq, private_rabbitmq, kafka, private_kafka): pass\n"


def servers_of(folder: str) -> list[psutil.Process]:
    """Servers and keeper of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(OWNER) == folder or folder in process.cmdline():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_workers_share_what_is_started_once(inner: Inner) -> None:
    tests = NOTE + (
        "def test_it(mosquitto, nats_server, certs):\n"
        "    run = os.environ['TRUNKLINE_TEST_RUN']\n"
        "    note(mosquitto.ports, nats_server.ports, str(certs.ca), os.getpid(), run)\n"
    )
    output = inner.run(tests, "-n", "2", "--dist", "each")
    first, second = inner.noted()
    assert first[:3] == second[:3], output
    assert first[3] != second[3]
    assert "mosquitto: mosquitto, ready in " in output
    assert not Path(first[4]).exists()
    assert not servers_of(first[4])


def test_nothing_is_started_for_tests_that_need_nothing(inner: Inner) -> None:
    tests = (
        NOTE
        + "def test_it():\n    run = os.environ['TRUNKLINE_TEST_RUN']; note(run, os.listdir(run))\n"
    )
    output = inner.run(tests)
    assert inner.noted()[0][1] == ["alive"], output
    assert not Path(inner.noted()[0][0]).exists()
    assert "servers" not in output


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_killed_run_leaves_nothing(inner: Inner, arguments: tuple[str, ...]) -> None:
    tests = NOTE + (
        "def test_it(mosquitto, start_nats):\n"
        "    note(os.environ['TRUNKLINE_TEST_RUN'], start_nats().pid)\n"
        "    threading.Event().wait(40)\n" + STILL_STARTING
    )
    process = inner.start(tests, *arguments)
    until(inner.noted, "the test", 30)
    folder = inner.noted()[0][0]
    assert len(servers_of(folder)) >= 3  # the keeper, mosquitto, nats-server
    process.kill()
    until(lambda: not servers_of(folder), "the end of the servers", 20)
    until(lambda: not Path(folder).exists(), "the end of the folder")


def test_ctrl_c_leaves_nothing(inner: Inner) -> None:
    tests = NOTE + (
        "def test_it(nats_server):\n"
        "    note(os.environ['TRUNKLINE_TEST_RUN'])\n"
        "    threading.Event().wait(40)\n" + STILL_STARTING
    )
    process = inner.start(tests)
    until(inner.noted, "the test", 30)
    folder = inner.noted()[0][0]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not Path(folder).exists()
    assert not servers_of(folder)


MISSING = """
from tests.servers.nats import Nats
class Absent(Nats):
    program = "no-such-server"
def test_it(start_server):
    start_server(Absent)
def test_shared(apache_kafka):
    pass
def test_instead(kafka):
    assert not kafka.real
"""


def test_without_a_server_tests_are_skipped_and_say_what_to_install(
    inner: Inner, tmp_path: Path
) -> None:
    output = inner.run(MISSING, XDG_CACHE_HOME=str(tmp_path))
    assert "1 passed, 2 skipped" in output
    assert "nats-server is not installed (no-such-server): install nats-server (Debian: " in output
    assert "Apache Kafka is not there: install Java 17 and Maven" in output
    assert "kafka: librdkafka's mock broker (not Apache Kafka)" in output


def test_without_a_server_ci_fails(inner: Inner, tmp_path: Path) -> None:
    output = inner.run(MISSING, XDG_CACHE_HOME=str(tmp_path), CI="true")
    assert "1 passed, 1 failed, 1 error" in output or "1 failed, 1 passed, 1 error" in output
    assert "nats-server is not installed (no-such-server): install nats-server (Debian: " in output


def test_no_port_is_given_twice() -> None:
    """Of one server, none of whose six is bound yet; or that of a server that is stopped for a while."""
    ports = [port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
