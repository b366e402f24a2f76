"""What MQTT 5 lets a subscriber say about its subscription, through Dial and mosquitto."""

from __future__ import annotations

import pytest

from tests.servers.mosquitto import Mosquitto
from tests.support.mqtt_side import MqttSide
from tests.support.waiting import until
from trunkline import Connection, Dial, Message, last_error
from trunkline.testing.faultproxy import FaultProxy


def dial(port: int, query: str) -> Connection:
    conn = Dial(f"mqtt://127.0.0.1:{port}?version=5&{query}", {"interval": 20})
    assert conn is not None, last_error()
    return conn


def read_all(
    conn: Connection, side: MqttSide, topic: str, last: str
) -> list[tuple[str | bytes, bool]]:
    """What comes before a message that is published now, and whether it was retained."""
    side.publish(topic, last)
    found: list[tuple[str | bytes, bool]] = []
    while True:
        message = conn.receive(10_000)
        if isinstance(message, Message):
            if message.data == last:
                return found
            found.append((message.data, message.properties["retain"]))


def acknowledged(conn: Connection) -> None:
    """What was read, and the broker has the acknowledgement: it confirms what is written behind it."""
    until(lambda: conn.stats().buffered == 0, "the acknowledgement")
    assert conn.write("x", topic="trunkline/nowhere") == 1


@pytest.mark.parametrize(
    ("handling", "first", "link", "later"),
    [(0, 1, 1, 1), (1, 1, 0, 0), (2, 0, 0, 0), (None, 1, 1, 1)],
)
@pytest.mark.parametrize("kept", [False, True])
def test_when_retained_messages_come(
    mosquitto: Mosquitto, handling: int | None, first: int, link: int, later: int, kept: bool
) -> None:
    """`first`: at the first Dial; `link`: after an outage; `later`: at the next Dial."""
    topic = mosquitto.unique()
    session = f"&clean=false&client_id={topic}" if kept else ""
    query = f"topic={topic}&qos=1{session}" + (
        "" if handling is None else f"&retain_handling={handling}"
    )
    again = [("R", True)]
    with MqttSide(mosquitto.port) as side, FaultProxy(mosquitto.port) as proxy:
        side.publish(topic, "R", retain=True)
        with dial(proxy.port, query) as conn:
            assert read_all(conn, side, topic, "1") == again * first
            acknowledged(conn)
            proxy.cut()
            until(lambda: conn.stats().reconnects == 1, "the new link")
            assert read_all(conn, side, topic, "2") == again * link
            acknowledged(conn)
        with dial(proxy.port, query) as conn:
            assert read_all(conn, side, topic, "3") == again * (later if kept else first)
        side.publish(topic, "", retain=True)
    dial(mosquitto.port, f"topic={topic}&client_id={topic}").close()


@pytest.mark.parametrize("qos", [0, 2])
def test_what_one_writes_does_not_come_back(mosquitto: Mosquitto, qos: int) -> None:
    topic = mosquitto.unique()
    with (
        MqttSide(mosquitto.port) as side,
        dial(mosquitto.port, f"topic={topic}&qos={qos}&no_local=true") as conn,
        dial(mosquitto.port, f"topic={topic}&qos={qos}") as other,
    ):
        assert conn.write("mine") == 4
        assert other.read(5000) == "mine"
        assert other.write("theirs") == 6
        assert conn.read(5000) == "theirs"
        assert read_all(conn, side, topic, "end") == []
        assert conn.write("question", topic=f"{topic}/ask") == 8


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("topic=t&retain_handling=1", "retain_handling= is of MQTT 5: give version=5"),
        ("topic=t&no_local=true", "no_local= is of MQTT 5: give version=5"),
        ("topic=t&version=5&retain_handling=3", "retain_handling"),
        ("topic=t&version=5&no_local=maybe", "no_local"),
        ("topic=$share/g/t&version=5&no_local=true", "no_local= cannot be with $share"),
    ],
)
def test_what_cannot_be_is_said(mosquitto: Mosquitto, query: str, says: str) -> None:
    assert Dial(f"mqtt://127.0.0.1:{mosquitto.port}?{query}") is None
    assert says in str(last_error())
