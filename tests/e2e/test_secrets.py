"""A marker in every place where an address may hold a secret, and a look at all that people can see."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.programs import Program
from tests.support.secrets import CORE, LOOKS, Seen
from tests.support.servers import WsServer, echo_messages
from tests.support.sockets import Peer, SocketServer, echo, unused_port

MARK = CORE

NETWORK = [
    f"tcp://{{at}}|payload={MARK}&pingMessage={MARK}&pingInterval=100",
    f"tls://{{at}}|payload={MARK}",
    f"tls://{{at}}|proxy=socks5://{MARK}:{MARK}@{{at}}",
    f"ws://{MARK}:{MARK}@{{at}}/",
    f"ws://{{at}}/?token={MARK}&signature={MARK}",
    f"ws://{{at}}|headers=Authorization: Bearer {MARK}",
    f"ws://{{at}}|headers=Cookie: session={MARK}",
    f'ws://{{at}}|payload={{{{"op":"login","key":"{MARK}"}}}}&pingMessage={MARK}&pingType=text',
    f"ws://{{at}}|proxy=http://me:{MARK}@{{at}}",
    f"wss://me:{MARK}@{{at}}/x",
    f"mqtt://u:{MARK}@{{at}}?topic=t",
    f"mqtt://{{at}}?topic=t&username=u&password={MARK}&will_topic=w&will_payload={MARK}",
    f"ws+mqtt://u:{MARK}@{{at}}/mqtt?topic=t",
    f"nats://{MARK}@{{at}}?topic=t",
    f"nats://{{at}}?topic=t&token={MARK}",
    f"nats://u:{MARK}@{{at}},u:{MARK}@{{at}}?topic=t",
    f"amqp://u:{MARK}@{{at}}/?queue=q",
    f"amqp://{{at}}/?queue=q&username=u&password={MARK}",
    f"kafka://u:{MARK}@{{at}}/t",
    f"kafka://{{at}}/t?sasl.password={MARK}&sasl.username=u&security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN",
    f"kafka://{{at}}/t?ssl.key.password={MARK}",
    f"mysql://root:{MARK}@tcp({{at}})/db",
    f"mysql://root:{MARK}@{{at}}/db?tls=true",
    f"postgres://root:{MARK}@{{at}}/db",
    f"postgres://{{at}}/db?user=u&password={MARK}&sslpassword={MARK}",
    f"clickhouse://u:{MARK}@{{at}}/db",
    f"clickhouse://tcp://{{at}}?username=u&password={MARK}",
]
"""Where the peer is not there, where it sends back what it gets, and where it ends at once."""
LOCAL = [
    f"sqlite3://file:x.db?mode=memory&_auth&_auth_user=u&_auth_pass={MARK}",
    f"sqlite3:///nowhere/x.db?_auth&_auth_user=u&_auth_pass={MARK}",
    f"nosuch://u:{MARK}@{{at}}",
    f"ws://u:{MARK}@{{at}}:x/",
    f"tcp://{{at}}|pasword={MARK}",
    f"tcp://{{at}}|proxy=quic://u:{MARK}@h",
    f"postgres://u:{MARK}@{{at}}/d?sslmode=nosuch",
    f"kafka://{{at}}/t?no.such.property={MARK}",
]

CODE = (
    LOOKS
    + """
import concurrent.futures

def look_and_close(conn):
    if conn is not None:
        look(conn)
        conn.close()

def both(line):
    tell(lambda: look_and_close(connect(line(), float(args[1]))))
    tell(lambda: look_and_close(Dial(line(), {"timeout": float(args[1])})))
    say(trunkline.last_error())

with concurrent.futures.ThreadPoolExecutor(10) as pool:
    list(pool.map(both, [Line() for number in range(int(args[0]))]))
tell(lambda: Dial(sys.stdin.readline().strip().encode()))
tell(lambda: trunkline.parse_address(sys.stdin.readline().strip()))
tell(lambda: trunkline.dbapi.connect(sys.stdin.readline().strip()))
tell(lambda: trunkline.dbapi.connect(sys.stdin.readline().strip()))
say("looked")
sys.stdin.readline()
"""
)


def _leave(peer: Peer) -> None:
    peer.read()
    peer.close()


@pytest.fixture(params=["nobody there", "echo", "leaves"])
def at(request: pytest.FixtureRequest) -> object:
    with contextlib.ExitStack() as stack:
        if request.param == "nobody there":
            port = stack.enter_context(unused_port())
        else:
            port = stack.enter_context(
                SocketServer(echo if request.param == "echo" else _leave)
            ).port
        yield f"127.0.0.1:{port}"


@pytest.mark.own_broker
def test_a_marker_is_seen_nowhere(at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    addresses = [each.format(at=at) for each in NETWORK + LOCAL]
    seen = Seen(tmp_path)
    env = {"TRUNKLINE_LOG": "DEBUG", "HOME": str(tmp_path)}
    with Program(CODE, len(addresses), 1, env=env) as program, WsServer(echo_messages) as server:
        for address in addresses:
            program.tell(address)
        for last in (
            addresses[0], f"ws://u:{MARK}@h:x/", f"postgres://u:{MARK}@{at}/d", f"{server.url}/?token={MARK}",
        ):  # fmt: skip
            program.tell(last)
        program.wait_line("looked", timeout=100)
        seen.look([("ps",), ("ps", "--json"), ("doctor", "--json"), ("top", "--count", "1")])
        program.tell()
        assert program.end() == 0
    assert not (hits := seen.hits(program.lines)), "\n".join(hits)
