"""Messages with an address of their own: `write(data, topic=, key=, headers=, expiry_ms=, reply_to=)`,
`Message.reply` and null values, on the real servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.servers.kafka import Kafka
from tests.servers.mosquitto import Mosquitto
from tests.servers.nats import Nats
from tests.servers.rabbitmq import RabbitMq
from tests.support.kafka import make_topic
from tests.support.nats_side import NatsSide
from tests.support.rabbit import Rabbit, rabbit_url
from tests.support.sockets import SocketServer
from tests.support.waiting import Background, until
from trunkline import Connection, Message, connect
from trunkline.errors import DialError, RefusedError, Unsupported


def take(conn: Connection) -> Message:
    message = conn.receive(20_000)
    assert isinstance(message, Message)
    return message


def answered_by(answer: Callable[[], object], ask: Connection) -> object:
    """What `ask.request` gives, asked while `answer` runs."""
    asking = Background(lambda: ask.request("what?", 20_000))
    answer()
    return asking.result()


def test_mqtt(mosquitto: Mosquitto) -> None:
    name = mosquitto.unique("t")
    at = f"mqtt://127.0.0.1:{mosquitto.port}?version=5&"
    with connect(f"{at}topic={name}/%2B&write_topic={name}/a&qos=1") as conn:
        assert (
            conn.write(
                "1", topic=f"{name}/b", headers={"n": "1", "m": ["x", "y"]}, expiry_ms=60_000
            )
            == 1
        )
        message = take(conn)
        assert (message.data, message.topic) == ("1", f"{name}/b")
        assert message.headers == {"n": "1", "m": ["x", "y"]}
        assert 0 < message.properties["message_expiry"] <= 60
        assert conn.write("2") == 1
        assert take(conn).topic == f"{name}/a"
        assert conn.write("3", topic=f"{name}/c", reply_to="back", correlation_id=b"\x00\xff") == 1
        message = take(conn)
        assert (message.reply_to, message.properties["correlation_data"]) == ("back", b"\x00\xff")
        with pytest.raises(RefusedError, match="no topic to write to"):
            conn.write("4", topic=f"{name}/#")
        with pytest.raises(Unsupported, match=r"key.*takes .*topic"):
            conn.write("4", key="k")
        with connect(f"{at}write_topic={name}/q") as ask:
            assert answered_by(lambda: take(conn).reply("that"), ask) == "that"
    with connect(f"mqtt://127.0.0.1:{mosquitto.port}?topic={name}") as old:
        assert old.write("5", topic=name) == 1
        assert take(old).topic == name
        with pytest.raises(Unsupported, match="version=5"):
            old.write("6", headers={"a": "b"})


def test_nats(nats_server: Nats, jetstream: Nats) -> None:
    name = nats_server.unique("s")
    at = f"nats://127.0.0.1:{nats_server.port}"
    with connect(f"{at}?topic={name}.>&write_topic={name}.a") as conn:
        assert conn.write("1", topic=f"{name}.b.c", headers={"n": "1"}, reply_to="inbox") == 1
        message = take(conn)
        assert (message.data, message.topic, message.reply_to) == ("1", f"{name}.b.c", "inbox")
        assert message.headers == {"n": "1"}
        assert conn.write("2") == 1
        assert take(conn).topic == f"{name}.a"
        for topic in (f"{name}.>", "a..b", "a b", "a\r\nPUB x 1"):
            with pytest.raises(RefusedError, match="no subject"):
                conn.write("3", topic=topic)
        with pytest.raises(RefusedError, match="one line"):
            conn.write("3", headers={"n": "1\r\nm: 2"})
        with pytest.raises(Unsupported, match="expiry_ms"):
            conn.write("3", expiry_ms=1000)
        with connect(f"{at}?write_topic={name}.q") as ask:
            assert answered_by(lambda: take(conn).reply("that"), ask) == "that"
    with NatsSide(f"nats://127.0.0.1:{jetstream.port}") as side:
        side.stream(name, f"{name}.>")
        with connect(f"nats://127.0.0.1:{jetstream.port}?topic={name}.>&stream={name}") as conn:
            assert conn.write("1", topic=f"{name}.x", headers={"n": "1"}) == 1
            message = take(conn)
            assert (message.topic, message.headers["n"]) == (f"{name}.x", "1")
            with pytest.raises(RefusedError, match="no stream takes"):
                conn.write("2", topic="elsewhere")
        side.delete_stream(name)


def test_nats_says_which_subject_is_not_allowed(start_nats: Callable[..., Nats]) -> None:
    server = start_nats(
        config="""authorization { users: [ { user: "u", password: "p", permissions: {
            publish: ["ok.>"], subscribe: [">"] } } ] }"""
    )
    with connect(f"nats://u:p@127.0.0.1:{server.port}?topic=ok.%3E&write_topic=ok.a") as conn:
        assert conn.write("1", topic="ok.b") == 1
        for _ in range(2):
            with pytest.raises(RefusedError, match="not allow to publish to no"):
                conn.write("2", topic="no")
        assert conn.write("3") == 1
        assert [take(conn).data for _ in range(2)] == ["1", "3"]


def test_amqp(rabbitmq: RabbitMq) -> None:
    name = rabbitmq.unique("q")
    with Rabbit(rabbitmq) as client:
        client.queue(name)
        client.queue(f"{name}.b")
        with connect(rabbit_url(rabbitmq, f"queue={name}")) as conn:
            sent = conn.write(
                "1",
                topic=f"{name}.b",
                headers={"n": 1, "list": [1, "a"]},
                expiry_ms=60_000,
                reply_to="back",
                correlation_id="c1",
            )
            assert sent == 1
            properties, body = client.take(f"{name}.b")
            assert (body, properties.headers) == (b"1", {"n": 1, "list": [1, "a"]})
            assert (properties.expiration, properties.reply_to) == ("60000", "back")
            assert properties.correlation_id == "c1"
            assert conn.write("2") == 1
            assert take(conn).topic == name
            with pytest.raises(RefusedError, match=f"routing key '{name}.nowhere'"):
                conn.write("3", topic=f"{name}.nowhere")
            with pytest.raises(RefusedError, match="for which AMQP has no type"):
                conn.write("3", headers={"n": {1, 2}})
            with pytest.raises(Unsupported, match="key"):
                conn.write("3", key="k")
            with connect(rabbit_url(rabbitmq, f"write_topic={name}")) as ask:
                assert answered_by(lambda: take(conn).reply("that"), ask) == "that"
            assert conn.write("4") == 1
            with pytest.raises(ValueError, match="reply_to"):
                take(conn).reply("nobody asked")
        client.delete(name, f"{name}.b")


def test_kafka(apache_kafka: Kafka) -> None:
    topic, other = make_topic(apache_kafka), make_topic(apache_kafka)
    address = f"kafka://{apache_kafka.address}/?topic={topic},{other}&write_topic={topic}"
    with connect(address, timeout=30) as conn:
        assert conn.write("1", topic=other, key="k", headers={"n": "1", "b": b"\xff"}) == 1
        message = take(conn)
        assert (message.data, message.topic, message.key) == ("1", other, "k")
        assert message.headers == {"n": "1", "b": b"\xff"}
        assert conn.write(None, key="k") == 0
        message = take(conn)
        assert (message.data, message.topic, message.key) == ("", topic, "k")
        assert message.properties == {"tombstone": True}
        with pytest.raises(RefusedError, match="no name of a topic"):
            conn.write("3", topic="no topic")
        with pytest.raises(Unsupported, match="reply_to"):
            conn.write("3", reply_to="x")
        with pytest.raises(RefusedError, match=r"header 'a\\x00b' has the character"):
            conn.write("3", headers={"a\0b": "x"})
        with pytest.raises(RefusedError, match=f"has no topic '{topic}-none'"):
            conn.write("3", 20_000, topic=f"{topic}-none")
        apache_kafka.create(f"{topic}-none")
        until(lambda: _is_taken(conn, f"{topic}-none"), "the topic is there")


def _is_taken(conn: Connection, topic: str) -> bool:
    with contextlib.suppress(RefusedError):
        return conn.write("4", 20_000, topic=topic) == 1
    return False


def test_kafka_names_that_cannot_be(apache_kafka: Kafka) -> None:
    topic = make_topic(apache_kafka)
    for query, says in (
        (f"topic={topic}&write_topic=%5Ex", "topic='^x' is no name of a topic"),
        (f"topic=%5E(&group={topic}", "does not take the pattern ^("),
        (
            f"topic=%5E{topic}none&group={topic}",
            f"{apache_kafka.address} has no topic that '^{topic}none' matches",
        ),
    ):
        with pytest.raises(DialError) as told:
            connect(f"kafka://{apache_kafka.address}/?{query}", timeout=30)
        assert says in str(told.value)


def test_what_makes_no_sense_raises_at_once_for_every_object() -> None:
    with SocketServer() as server, connect(server.url) as conn:
        with pytest.raises(TypeError, match="topic as str, not int"):
            conn.write("x", topic=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not NoneType"):
            conn.write(None)
        with pytest.raises(ValueError, match="expiry_ms"):
            conn.write("x", expiry_ms=-1)
        with pytest.raises(TypeError, match="names are str"):
            conn.write("x", headers={1: "a"})  # type: ignore[dict-item]
        with pytest.raises(Unsupported, match="tcp:// writes no message with topic"):
            conn.write("x", topic="t")
