"""mqtt through Dial: what a strategy sees, with a real broker, faults and wrong input."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.servers.mosquitto import Mosquitto
from tests.support.certs import Certs
from tests.support.mqtt_side import MqttSide, properties
from tests.support.sockets import Peer, SocketServer, deaf, unused_port
from tests.support.waiting import Background, until
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.errors import OperationTimeout, RefusedError, Unconfirmed, Unsupported
from trunkline.testing.faultproxy import FaultProxy

Start = Callable[..., Mosquitto]
FAST = {"interval": 20, "pingInterval": 1000}


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


def at(server: Mosquitto, query: str, port: str = "tcp") -> str:
    return f"mqtt://127.0.0.1:{server.ports[port]}?{query}"


def test_the_seeds_own_example(mosquitto: Mosquitto) -> None:
    with dial(at(mosquitto, f"topic={mosquitto.unique()}")) as conn:
        assert conn.write("hello") == 5
        assert conn.read() == "hello"
        assert conn.write("grüße") == 7
        assert conn.read(2000) == "grüße"
        assert conn.stats().scheme == "mqtt"


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("topics", ["#,b,b", "b,+", "b,b", "+,#", "+/x,+,b/x"])
def test_a_topic_that_another_includes_brings_nothing_twice(
    mosquitto: Mosquitto, version: str, topics: str
) -> None:
    name = mosquitto.unique()
    query = (
        ",".join(f"{name}/{topic}" for topic in topics.split(","))
        .replace("#", "%23")
        .replace("+", "%2B")
    )
    with MqttSide(mosquitto.port) as side:
        side.publish(f"{name}/b", "kept", retain=True)
        with dial(at(mosquitto, f"topic={query}&qos=1&version={version}")) as conn:
            assert conn.read(5000) == "kept"
            side.publish(f"{name}/b", "more")
            assert conn.read(5000) == "more"
            side.publish(f"{name}/b", "last")
            assert conn.read(5000) == "last"
            assert conn.read(-1) is None
        side.publish(f"{name}/b", "", retain=True)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_what_an_earlier_run_read_beside_a_wider_topic_comes_once(
    mosquitto: Mosquitto, version: str
) -> None:
    name = mosquitto.unique()
    session = f"qos=1&version={version}&clean=false&client_id={name}"
    dial(at(mosquitto, f"topic={name}/b&{session}")).close()
    address = at(mosquitto, f"topic={name}/%23,{name}/b&{session}")
    with MqttSide(mosquitto.port) as side, dial(address) as conn:
        for number in range(3):
            side.publish(f"{name}/b", str(number))
        assert [conn.read(5000) for _ in range(3)] == ["0", "1", "2"]
        assert conn.read(-1) is None


def test_a_message_with_its_envelope(mosquitto: Mosquitto) -> None:
    name = mosquitto.unique()
    found = properties(
        UserProperty=[("a", "1"), ("a", "2")], ContentType="text/plain", ResponseTopic="back"
    )
    with (
        MqttSide(mosquitto.port) as side,
        dial(at(mosquitto, f"topic={name}/%23&qos=2&version=5")) as conn,
    ):
        side.publish(f"{name}/x", "plain", qos=1)
        side.publish(f"{name}/y", b"\xff", qos=2, found=found)
        plain, whole = conn.receive(5000), conn.receive(5000)
        assert isinstance(plain, Message)
        assert isinstance(whole, Message)
        assert (plain.data, plain.topic, plain.redelivered) == ("plain", f"{name}/x", False)
        assert (dict(plain.headers), dict(plain.properties)) == ({}, {"qos": 1, "retain": False})
        assert (whole.data, whole.topic, whole.reply_to) == (b"\xff", f"{name}/y", "back")
        assert whole.headers == {"a": ["1", "2"]}
        assert whole.properties == {"qos": 2, "retain": False, "content_type": "text/plain"}
        assert (whole.timestamp, whole.offset, whole.key) == (None, None, None)


@pytest.mark.parametrize("scheme", ["mqtts", "ws+mqtt", "wss+mqtt"])
def test_tls_passwords_and_websocket(mosquitto: Mosquitto, certs: Certs, scheme: str) -> None:
    port = {"mqtts": "tls", "ws+mqtt": "ws", "wss+mqtt": "wss"}[scheme]
    options = {} if port == "ws" else {"cafile": str(certs.ca), "username": "u", "password": "p"}
    address = f"{scheme}://localhost:{mosquitto.ports[port]}/mqtt" if "ws" in scheme else ""
    address = address or f"{scheme}://localhost:{mosquitto.ports[port]}"
    with dial(f"{address}?topic={mosquitto.unique()}&qos=1", **options) as conn:
        assert conn.write("x") == 1
        assert conn.read(5000) == "x"


def test_a_request_and_its_answer(mosquitto: Mosquitto) -> None:
    topic = mosquitto.unique()
    with (
        dial(at(mosquitto, f"topic={topic}&version=5&qos=1")) as service,
        connect(at(mosquitto, f"write_topic={topic}&version=5&qos=1")) as client,
        MqttSide(mosquitto.port) as side,
    ):
        asking = Background(lambda: client.request("2+2", 10_000))
        question = service.receive(10_000)
        assert isinstance(question, Message)
        assert question.reply_to
        number = question.properties["correlation_data"]
        side.publish(question.reply_to, "4", found=properties(CorrelationData=number))
        assert asking.result() == "4"
        with pytest.raises(OperationTimeout, match="nobody answered"):
            client.request("silence", 100)
    with (
        connect(at(mosquitto, "topic=t")) as old,
        pytest.raises(Unsupported, match="needs version=5"),
    ):
        old.request("x", 1000)


# faults


def test_a_reader_that_stays_away_keeps_qos_1_messages_at_the_broker(mosquitto: Mosquitto) -> None:
    name = mosquitto.unique()
    address = at(mosquitto, f"topic={name}&qos=1&clean=false&client_id={name}")
    with MqttSide(mosquitto.port) as side:
        with dial(address, buffer=5) as conn:
            for number in range(30):
                side.publish(name, str(number))
            assert [conn.read(5000) for _ in range(10)] == [str(number) for number in range(10)]
            until(lambda: conn.stats().read == 10, "the acknowledgements")
        with dial(address) as conn:
            assert [conn.read(5000) for _ in range(20)] == [str(number) for number in range(10, 30)]


def test_a_burst_while_the_strategy_is_busy_is_not_lost(
    start_mosquitto: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """mosquitto as it comes keeps 1000 messages for a client beside those that are in flight.

    The strategy reads nothing meanwhile; its workers are given the time to take what comes.
    """
    server = start_mosquitto(config="max_queued_messages 1000")
    counts = {
        "t&version=3.1.1": 2000,
        "t&version=3.1.1&qos=2": 2000,
        "t&version=5": 4000,
        "t&version=5&clean=false&client_id=k": 4000,
    }
    with dial(at(server, "write_topic=t&qos=2&version=5")) as writer, ExitStack() as stack:
        readers = {
            query: stack.enter_context(
                dial(at(server, f"topic={query}{'' if 'qos' in query else '&qos=1'}"))
            )
            for query in counts
        }
        for number in range(4000):
            assert writer.write(str(number)), last_error()
            if number % 500 == 499:  # well below mosquitto's limit
                _await_buffered(readers.values(), min(number, 1999) - 500)
            if number == 1999:  # what those of 3.1.1 can hold
                old = [(query, readers.pop(query)) for query in counts if "3.1.1" in query]
                for query, reader in old:
                    assert [reader.read(5000) for _ in range(2000)] == list(
                        map(str, range(2000))
                    ), query
                    reader.close()
        for query, reader in readers.items():
            assert [reader.read(5000) for _ in range(4000)] == list(map(str, range(4000))), query
    assert "give version=5" not in caplog.text
    with dial(at(server, "topic=t&qos=1&version=3.1.1&clean=false&client_id=old")):
        until(lambda: "drops what is over its own limit" in caplog.text, "the advice")


def _buffers_more(reader: Connection, than: int) -> bool:
    return reader.stats().buffered > than


def _await_buffered(readers: Iterable[Connection], least: int) -> None:
    for reader in readers:
        until(partial(_buffers_more, reader, least), "the worker")


def test_revoked_credentials_are_said_and_tried_until_they_are_right_again(
    start_mosquitto: Start,
) -> None:
    server = start_mosquitto(users={"me": "geheim"})
    with dial(
        at(server, "topic=t", "auth"), username="me", password="geheim", maxInterval=100, **FAST
    ) as conn:
        server.set_users({"you": "other"})
        server.restart()
        text = "refused the login: not authorized; check the user and password"
        until(lambda: text in str(conn.stats().last_error), "the refusal", seconds=20)
        error = str(conn.stats().last_error)
        assert "geheim" not in error
        assert conn.read() == ""
        assert conn.write("x") == 0
        server.set_users({"me": "geheim"})
        server.restart()
        until(lambda: conn.stats().state == "open", "the new link", seconds=20)


def test_a_subscription_is_there_again_before_the_outage_is_over(start_mosquitto: Start) -> None:
    server = start_mosquitto()
    with dial(at(server, "topic=a/%2B&topic=b&qos=1"), **FAST) as conn:
        for outage in range(1, 4):
            server.restart()
            assert conn.read(5000) == ""
            until(lambda n=outage: conn.stats().reconnects == n, "the link")
            with MqttSide(server.port) as side:
                side.publish("a/1", "first")
                side.publish("b", "second")
            got: list[object] = []
            while len(got) < 2:
                if message := conn.read(5000):
                    got.append(message)
            assert got == ["first", "second"]


def test_a_frozen_broker_shows_within_twice_the_ping_interval(start_mosquitto: Start) -> None:
    server = start_mosquitto()
    with connect(at(server, "topic=t&qos=1"), FAST) as conn:
        server.freeze()
        began = time.monotonic()
        with pytest.raises(Unconfirmed, match="may or may not have arrived"):
            conn.write("x", 200)
        until(lambda: conn.stats().state == "down", "the loss", seconds=10)
        assert time.monotonic() - began < 4
        server.thaw()
        until(lambda: conn.stats().state == "open", "the link", seconds=20)


def test_a_refused_message_with_mqtt_5_and_without(
    start_mosquitto: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_mosquitto(config="max_queued_messages 1000")
    login = {"username": "limited", "password": "p"}
    query = "write_topic=secret/x&qos=1&version="
    with Dial(at(server, f"{query}5", "auth"), login) as conn:  # type: ignore[union-attr]
        assert conn.write("x") == 0
        assert "refused the message to secret/x: not authorized" in str(last_error())
    with connect(at(server, f"{query}5", "auth"), login) as conn, pytest.raises(RefusedError):
        conn.write("x")
    with dial(at(server, f"{query}3.1.1", "auth"), **login) as conn:
        assert conn.write("x") == 1  # as docs/mqtt.md says: with 3.1.1 a broker cannot say no


def test_nothing_written_while_the_network_is_cut_arrives_later(mosquitto: Mosquitto) -> None:
    topic = mosquitto.unique()
    with FaultProxy(mosquitto.port) as proxy, MqttSide(mosquitto.port) as side:
        side.watch(topic)
        address = f"mqtt://{proxy.address}?write_topic={topic}&qos=1&clean=false&client_id={topic}"
        with dial(address, **FAST) as conn:
            assert conn.write("before") == 6
            proxy.blackhole()
            assert [conn.write("lost", 100) for _ in range(3)] == [0, 0, 0]
            until(lambda: conn.stats().outages == 1, "the loss", seconds=10)
            assert conn.write("down", 100) == 0
            proxy.heal()
            until(lambda: conn.stats().state == "open", "the link", seconds=20)
            assert conn.write("after") == 5
            until(lambda: b"after" in side.seen[topic], "the last message")
            assert side.seen[topic] == [b"before", b"after"]


# wrong input


WRONG = [
    ("topic=a%23", "topic=a# has a misplaced wildcard"),
    ("topic=t&clean=false", "clean=false needs a client_id"),
    ("topic=t&will_payload=x", "a will needs will_topic"),
    ("topic=t|headers=%7B%22a%22:%221%22%7D", "headers= need MQTT 5"),
    ("", "needs 'topic' or 'write_topic'"),
    ("topic=t&qos=3", "qos"),
    ("topic=t&queue=q", "queue"),
]


@pytest.mark.parametrize(("query", "says"), WRONG)
def test_a_wrong_address_is_one_clear_line(mosquitto: Mosquitto, query: str, says: str) -> None:
    began = time.monotonic()
    assert Dial(at(mosquitto, query)) is None
    assert says in str(last_error())
    assert "\n" not in str(last_error())
    assert time.monotonic() - began < 5


def test_a_wrong_password_no_server_and_the_wrong_port(mosquitto: Mosquitto, certs: Certs) -> None:
    began = time.monotonic()
    assert Dial(at(mosquitto, "topic=t", "auth"), username="u", password="geheim") is None
    assert "refused the login: not authorized; check the user and password" in str(last_error())
    assert "geheim" not in str(last_error())
    with unused_port() as nobody:
        assert Dial(f"mqtt://127.0.0.1:{nobody}?topic=t") is None
        assert "refused the connection; is the server running?" in str(last_error())
    assert Dial(f"mqtts://127.0.0.1:{mosquitto.port}?topic=t", cafile=str(certs.ca)) is None
    assert "TLS" in str(last_error())
    assert "is this mqtts? use mqtt:// or the TLS port" in str(last_error())
    assert Dial(at(mosquitto, "topic=t", "tls")) is None
    assert "check the port" in str(last_error())

    def another(peer: Peer) -> None:
        peer.send(b"SSH-2.0-OpenSSH_9.6\r\n")
        peer.read()

    with SocketServer(another) as server:
        assert Dial(f"mqtt://127.0.0.1:{server.port}?topic=t") is None
        assert "does not speak MQTT; check the port and the scheme" in str(last_error())
    assert time.monotonic() - began < 20


def test_a_server_that_says_nothing_is_left_at_the_timeout() -> None:
    with SocketServer(deaf) as server:
        began = time.monotonic()
        assert Dial(f"mqtt://127.0.0.1:{server.port}?topic=t", 3) is None
        assert "did not answer the MQTT login in the time allowed" in str(last_error())
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_over_the_brokers_limit(start_mosquitto: Start, qos: int) -> None:
    server = start_mosquitto(config="max_packet_size 1000")
    with dial(at(server, f"topic=t&qos={qos}&version=5")) as conn:
        assert conn.write("x" * 1000) == 0
        assert "takes packets of 1000 bytes at most" in str(last_error())
        assert conn.write("x") == 1
        assert conn.read(5000) == "x"


def test_writing_to_a_wildcard(mosquitto: Mosquitto) -> None:
    with dial(at(mosquitto, "topic=nobody/%23")) as conn:
        assert conn.write("x") == 0
        assert "is for reading only: give write_topic=" in str(last_error())


def test_the_will_of_a_killed_strategy(mosquitto: Mosquitto, tmp_path: Path) -> None:
    topic = mosquitto.unique()
    address = at(mosquitto, f"write_topic=x&will_topic={topic}&will_payload=gone&will_qos=1")
    with MqttSide(mosquitto.port) as side:
        side.watch(topic)
        with dial(address) as conn:
            subprocess.run(["kill", "-9", str(conn.stats().pid)], check=True)
            until(lambda: side.seen[topic] == [b"gone"], "the will")
