"""Logins at real servers whose password is the marker: it is seen nowhere, neither while the login is right
nor when it is refused.

The user of a database is no secret: server and log name it ("Access denied for user 'u'"). A user of the
other schemes may be a token, and is hidden.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Kafka
from tests.servers.mariadb import MariaDb
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMq
from tests.support.http_proxy import HttpProxy
from tests.support.programs import Program, Remains
from tests.support.secrets import LOOKS, SECRET, Seen, traces
from tests.support.servers import Microsocks, WsServer, echo_messages
from tests.support.sockets import SocketServer, echo
from trunkline import connect

pytestmark = pytest.mark.own_broker

WRITTEN = quote(SECRET, safe="")
"""The password as it stands in an address."""
WRONG = quote(f"no{SECRET}", safe="")

CODE = (
    LOOKS
    + """
def opened(line):
    conn = tell(lambda: connect(line(), 20))
    say("opened" if conn else "refused", tell(lambda: repr(trunkline.parse_address(line()))))
    say("plain", Dial(line(), 20), trunkline.last_error(), tell(lambda: str(trunkline.parse_address(line()))))
    return conn

def interrupted(line):
    '''What a crash reporter shows of a Dial that is broken off.'''
    def handle(number, frame):
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGALRM, handle)
    for seconds in (0.0005, 0.001, 0.003, 0.01):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            tell(lambda: (connect(line(), 20), signal.setitimer(signal.ITIMER_REAL, 0)))
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:  # before or after the Dial
            pass
    signal.signal(signal.SIGALRM, before)

lines = [Line() for number in range(int(args[0]))]
conns = [conn for conn in [opened(line) for line in lines] if conn]
for conn in conns:
    look(conn)
look_at_objects()
for number in range(2):
    say("round", number)
    sys.stdin.readline()
    for conn in conns:
        look(conn)
    look_at_objects()
interrupted(lines[0])
for conn in conns:
    conn.close()
    tell(lambda: conn.write("x"))
    tell(lambda: conn.exec("SELECT 1"))
say("looked")
sys.stdin.readline()
"""
)
COMMANDS = [("ps",), ("ps", "--json"), ("doctor", "--json"), ("top", "--count", "1")]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def is_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`is_hidden(right, wrong)`: dials all these addresses, of which the first are to be accepted and the
    others to be refused, and fails where the marker is seen."""

    def check(right: Sequence[str], wrong: Sequence[str]) -> None:
        monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
        seen, remains = Seen(tmp_path), Remains()
        env = {"TRUNKLINE_LOG": "DEBUG", "PYTHONASYNCIODEBUG": "1", "HOME": str(tmp_path)}
        with Program(CODE, len(right) + len(wrong), env=env) as program:
            for address in [*right, *wrong]:
                program.tell(address)
            program.wait_line("round 0", 120)
            seen.look(COMMANDS)
            kill(seen.workers())  # each is followed by another one, which logs in again
            program.tell()
            program.wait_line("round 1", 120)
            seen.look()
            kill([remains.broker().pid, *seen.workers()])  # the program dials anew
            program.tell()
            program.wait_line("looked", 120)
            seen.look([("ps", "--json")])
            program.tell()
            assert program.end() == 0, program.lines
        outcomes = [
            line.split()[0] for line in program.lines if line.startswith(("opened ", "refused "))
        ]
        told = [
            line for line in program.lines if line.startswith(("opened ", "refused ", "plain "))
        ]
        assert outcomes == ["opened"] * len(right) + ["refused"] * len(wrong), "\n".join(told)
        assert not (hits := seen.hits(program.lines)), "\n".join(hits)

    return check


def test_the_marker_is_found_in_each_of_its_forms() -> None:
    for before in ("", "a", "ab", "user:"):
        assert list(traces(base64.b64encode(f"{before}{SECRET}".encode()).decode()))
    assert list(traces(WRITTEN))
    assert list(traces(SECRET.encode().hex()))
    assert not list(traces("Zq8 Marker"))


def test_mqtt(start_mosquitto: Callable[..., Mosquitto], is_hidden: Callable[..., None]) -> None:
    server = start_mosquitto(users={"u": SECRET})
    at = f"127.0.0.1:{server.ports['auth']}"
    is_hidden(
        [
            f"mqtt://u:{WRITTEN}@{at}?topic=t|reconnect=true",
            f"mqtt://{at}?topic=t&username=u&password={WRITTEN}&will_topic=w&will_payload={WRITTEN}",
        ],
        [
            f"mqtt://u:{WRONG}@{at}?topic=t",
            f"mqtt://{at}?topic=t&username={WRITTEN}&password={WRITTEN}",
            f"mqtt://{WRITTEN}:{WRITTEN}@{at}?topic=t",
            f"mqtt://u:{WRITTEN}@{at}?topic=t|user={WRITTEN}",
        ],
    )


def test_nats_with_a_password(
    start_nats: Callable[..., Nats], is_hidden: Callable[..., None]
) -> None:
    at = start_nats(users={"u": SECRET}).address
    is_hidden(
        [f"nats://u:{WRITTEN}@{at}?topic=t"],
        [
            f"nats://u:{WRONG}@{at}?topic=t",
            f"nats://{WRITTEN}:{WRITTEN}@{at}?topic=t",
            f"nats://{WRITTEN}@{at}?topic=t",
            f"nats://u:{WRITTEN}@{at}?topic=t|username={WRITTEN}",
        ],
    )


def test_nats_with_a_token(start_nats: Callable[..., Nats], is_hidden: Callable[..., None]) -> None:
    at = start_nats(token=SECRET, jetstream=True).address
    is_hidden(
        [f"nats://{WRITTEN}@{at}?topic=t", f"nats://{at}?topic=t&token={WRITTEN}"],
        [f"nats://{WRONG}@{at}?topic=t", f"nats://{at}?topic=t&token={WRONG}"],
    )


def test_amqp(rabbitmq: RabbitMq, is_hidden: Callable[..., None]) -> None:
    user = f"keeper{uuid.uuid4().hex[:6]}"
    rabbitmq.ctl("add_user", user, SECRET)
    try:
        rabbitmq.ctl("set_permissions", "-p", "/", user, ".*", ".*", ".*")
        at = rabbitmq.address
        is_hidden(
            [
                f"amqp://{user}:{WRITTEN}@{at}/?queue={user}",
                f"amqp://{at}/?queue={user}&username={user}&password={WRITTEN}",
            ],
            [
                f"amqp://{user}:{WRONG}@{at}/?queue={user}",
                f"amqp://{WRITTEN}:{WRITTEN}@{at}/?queue={user}",
                f"amqp://{at}/?queue={user}&username={WRITTEN}&password={WRITTEN}",
                f"amqp://{user}:{WRITTEN}@{at}/nosuch?queue={user}",
                f"amqp://{user}:{WRITTEN}@{at}/?queue={user}|user={WRITTEN}",
            ],
        )
    finally:
        with connect(f"amqp://u:p@{at}/?queue={user}", 10):
            pass
        rabbitmq.ctl("delete_user", user)
        rabbitmq.ctl("delete_queue", user)


def test_kafka(start_kafka: Callable[..., Kafka], is_hidden: Callable[..., None]) -> None:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    login = f'{module} required user_u="{SECRET}";'
    server = start_kafka(config=f"listener.name.sasl.plain.sasl.jaas.config={login}")
    at, topic = server.at("sasl"), server.create("t")
    plain = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
    is_hidden(
        [
            f"kafka://u:{WRITTEN}@{at}/{topic}",
            f"kafka://{at}/{topic}?sasl.username=u&sasl.password={WRITTEN}&{plain}",
        ],
        [
            f"kafka://u:{WRONG}@{at}/{topic}",
            f"kafka://{WRITTEN}:{WRITTEN}@{at}/{topic}",
            f"kafka://{at}/{topic}?sasl.username={WRITTEN}&sasl.password={WRITTEN}&{plain}",
            f"kafka://u:{WRITTEN}@{at}/{topic}|user={WRITTEN}",
        ],
    )


def test_mysql(mariadb: MariaDb, is_hidden: Callable[..., None]) -> None:
    user = f"keeper{uuid.uuid4().hex[:6]}"
    with connect(f"mysql://u:p@tcp({mariadb.address})/t", 10) as conn:
        conn.exec(f"CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY '{SECRET}'")
        try:
            is_hidden(
                [
                    f"mysql://{user}:{SECRET}@tcp({mariadb.address})/",
                    f"mysql://{user}:{WRITTEN}@{mariadb.address}/",
                ],
                [
                    f"mysql://{user}:no{SECRET}@tcp({mariadb.address})/",
                    f"mysql://{user}:{WRONG}@{mariadb.address}/",
                    f"mysql://{user}:{SECRET}@tcp({mariadb.address})/t",
                    f"mysql://{user}:{WRITTEN}@{mariadb.address}/|user={WRITTEN}",
                ],
            )
        finally:
            conn.exec(f"DROP USER '{user}'@'127.0.0.1'")


def test_postgres(postgres: Postgres, is_hidden: Callable[..., None]) -> None:
    user = f"keeper{uuid.uuid4().hex[:6]}"
    with connect(f"postgres://u:p@{postgres.address}/postgres", 10) as conn:
        conn.exec(f"CREATE ROLE {user} LOGIN PASSWORD '{SECRET}'")
        try:
            at = postgres.address
            is_hidden(
                [
                    f"postgres://{user}:{WRITTEN}@{at}/postgres",
                    f"postgres://{at}/postgres?user={user}&password={WRITTEN}",
                ],
                [
                    f"postgres://{user}:{WRONG}@{at}/postgres",
                    f"postgres://{user}:{WRITTEN}@{at}/nosuch",
                    f"postgres://{user}:{WRITTEN}@{at}/postgres|user={WRITTEN}",
                ],
            )
        finally:
            conn.exec(f"DROP ROLE {user}")


def test_clickhouse(start_server: Callable[..., Any], is_hidden: Callable[..., None]) -> None:
    at = start_server(ClickHouse, users={"keeper": SECRET}).address
    is_hidden(
        [
            f"clickhouse://keeper:{WRITTEN}@{at}/default",
            f"clickhouse://tcp://{at}?username=keeper&password={WRITTEN}",
        ],
        [
            f"clickhouse://keeper:{WRONG}@{at}/default",
            f"clickhouse://keeper:{WRITTEN}@{at}/nosuch",
            f"clickhouse://keeper:{WRITTEN}@{at}/default|user={WRITTEN}",
        ],
    )


@contextlib.contextmanager
def guarded() -> Iterator[WsServer]:
    """A WebSocket server that lets in who shows the marker, and repeats to the others what they said."""

    def look(ws: ServerConnection, request: Request) -> Response | None:
        account = base64.b64encode(f"u:{SECRET}".encode()).decode()
        shown = [
            request.headers.get("Authorization", ""),
            request.path,
            request.headers.get("Cookie", ""),
        ]
        right = (f"Basic {account}", f"Bearer {SECRET}", f"/?token={WRITTEN}", f"s={SECRET}")
        if any(word in right for word in shown):
            return None
        return ws.respond(HTTPStatus.UNAUTHORIZED, f"{' '.join(shown)} is not welcome")

    with WsServer(echo_messages, on_request=look) as server:
        yield server


@pytest.mark.parametrize("options", ["", "&enableCompression=true"])
def test_websocket(options: str, is_hidden: Callable[..., None]) -> None:
    with guarded() as server:
        at = f"127.0.0.1:{server.port}"
        is_hidden(
            [
                f"ws://u:{WRITTEN}@{at}/|reconnect=true{options}",
                f"ws://{at}/?token={WRITTEN}|payload={WRITTEN}{options}",
                f"ws://{at}/|headers=Authorization: Bearer {SECRET}{options}",
                f"ws://{at}/|headers=Cookie: s={SECRET}{options}",
            ],
            [
                f"ws://u:{WRONG}@{at}/|interval=1000{options}",
                f"ws://{WRITTEN}@{at}/|interval=1000{options}",
                f"ws://{WRITTEN}:{WRITTEN}@{at}/|interval=1000{options}",
                f"ws://{at}/?token={WRONG}|interval=1000{options}",
                f"ws://{at}/?signature={WRITTEN}|interval=1000{options}",
                f"ws://{at}/|headers=Authorization: Bearer no{SECRET}{options}",
                f"ws://{at}/|headers=Cookie: s=no{SECRET}{options}",
                f"ws://{at}/|user={WRITTEN}{options}",
            ],
        )


def test_proxies(is_hidden: Callable[..., None]) -> None:
    with (
        HttpProxy("u", SECRET) as http,
        Microsocks("u", SECRET) as socks,
        WsServer(echo_messages) as server,
        SocketServer(echo) as peer,
    ):
        ways = [f"http://{{}}@127.0.0.1:{http.port}", f"socks5://{{}}@{socks.address}"]
        targets = [f"{server.url}/|proxy={{}}&reconnect=true", f"{peer.url}|proxy={{}}"]
        right = [t.format(way.format(f"u:{WRITTEN}")) for t in targets for way in ways]
        wrong = [
            t.format(way.format(account))
            for account in (f"u:{WRONG}", f"{WRITTEN}:{WRITTEN}", WRITTEN)
            for t in targets
            for way in ways
        ]
        is_hidden(right, wrong)
