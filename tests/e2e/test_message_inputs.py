"""Arguments of single messages that a protocol has no place for: refused in words, no link is lost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.servers.mosquitto import Mosquitto
from tests.servers.rabbitmq import RabbitMq
from tests.support.rabbit import Rabbit, rabbit_url
from trunkline import Connection, Dial, Message, connect, last_error
from trunkline.errors import RefusedError

ODD_TEXTS = ("a\0b", "line\nbreak", "\x7f", "\x85", "\uffff", "\ufdd0", "\U0001fffe")


def refused(conn: Connection, says: str, **address: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        conn.write("refused", **address)
    assert says in str(caught.value)


def still_whole(conn: Connection) -> None:
    assert conn.write("next") == 4
    message = conn.receive(5000)
    assert isinstance(message, Message)
    assert message.data == "next"
    stats = conn.stats()
    assert (stats.state, stats.outages) == ("open", 0)


def test_amqp(rabbitmq: RabbitMq) -> None:
    queue = rabbitmq.unique("q")
    with Rabbit(rabbitmq) as rabbit:
        try:
            with connect(rabbit_url(rabbitmq, f"queue={queue}")) as conn:
                for headers, says in (
                    ({"n": 1 << 70}, "beyond 64 bits"),
                    ({"n": float("nan")}, "holds nan"),
                    ({"n": Decimal(1 << 40)}, "a Decimal"),
                    ({"n" * 256: 1}, "a name of 256 bytes"),
                    ({"n": "x" * 100_000}, "60000 is the most"),
                ):
                    refused(conn, says, headers=headers)
                refused(
                    conn, "correlation_id has 256 bytes", reply_to="r", correlation_id="x" * 256
                )
                refused(conn, "reply_to has 256 bytes", reply_to="r" * 256)
                refused(conn, "AMQP allows 255", topic="k" * 256)
                still_whole(conn)
                headers = {"price": 1.5, "pair": (1, 2), "n": Decimal("0.1"), "deep": {"a": [None]}}
                assert conn.write("x", headers=headers) == 1
                message = conn.receive(5000)
                assert isinstance(message, Message)
                assert message.headers == {**headers, "pair": [1, 2]}
        finally:
            rabbit.delete(queue)


@pytest.mark.parametrize("correlation", [b"\xff\x00", b"plain", "text", ""])
def test_amqp_answers_carry_any_correlation(rabbitmq: RabbitMq, correlation: str | bytes) -> None:
    ask, back = rabbitmq.unique("ask"), rabbitmq.unique("back")
    with Rabbit(rabbitmq) as rabbit:
        try:
            with connect(rabbit_url(rabbitmq, f"queue={ask}")) as conn:
                assert conn.write("question", reply_to=back, correlation_id=correlation) == 8
                question = conn.receive(5000)
                assert isinstance(question, Message)
                with pytest.raises(RefusedError, match="no queue takes messages"):
                    question.reply("nobody")
                rabbit.queue(back)
                assert question.reply("answer") == 6
                properties, body = rabbit.take(back)
                assert body == b"answer"
                given = properties.correlation_id
                assert given in (
                    correlation,
                    correlation.decode() if correlation == b"plain" else correlation,
                )
        finally:
            rabbit.delete(ask, back)


def test_mqtt_5(mosquitto: Mosquitto) -> None:
    topic = mosquitto.unique()
    url = f"mqtt://127.0.0.1:{mosquitto.port}?topic={topic}&qos=1&version=5"
    with connect(url) as conn:
        for text in ODD_TEXTS:
            code = f"U+{next(ord(char) for char in text if char not in 'abelinerk'):04X}"
            refused(conn, f"no topic to write to: it has the character {code}", topic=text)
            refused(conn, code, reply_to=text)
            refused(conn, f"header 'n' has the character {code}", headers={"n": text})
            refused(conn, code, headers={text: "n"})
        for wrong in ("a/+", "#", "a/#/b"):
            refused(conn, "it has a wildcard", topic=wrong)
            refused(conn, "it has a wildcard", reply_to=wrong)
        refused(conn, "$share/group/topic is for reading", topic="$share/g/t")
        refused(conn, "$SYS is the broker's own", topic="$SYS/broker/uptime")
        refused(conn, "bytes that are no UTF-8", headers={"n": b"\xff"})
        refused(conn, "60000 is the most", topic="t" * 65_536)
        still_whole(conn)
        assert conn.write("x", headers={"n": "ü" * 20_000, "b": b"text", "mark": "\ufeff"}) == 1
        message = conn.receive(5000)
        assert isinstance(message, Message)
        assert message.headers == {"n": "ü" * 20_000, "b": "text", "mark": "\ufeff"}


def test_mqtt_3(mosquitto: Mosquitto) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}?topic={mosquitto.unique()}&qos=1"
    with connect(url) as conn:
        for text in (*ODD_TEXTS, "a/+", "$share/g/t"):
            refused(conn, "is no topic to write to", topic=text)
        still_whole(conn)


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("topic=a%EF%BF%BFb", {}, "topic= is no MQTT topic: it has the character U+FFFF"),
        ("write_topic=a%EF%BF%BEb", {}, "is no topic to write to: it has the character U+FFFE"),
        ("write_topic=$share/g/t", {}, "is for reading"),
        ("write_topic=t&will_topic=a%EF%BF%BF", {}, "it has the character U+FFFF"),
        ("topic=t&client_id=a%EF%BF%BF", {}, "client_id= has the character U+FFFF"),
        (
            "topic=t&version=5",
            {"headers": {"n": "a\tb"}},
            "headers= cannot be sent: header 'n' has the character",
        ),
    ],
)
def test_mqtt_addresses(
    mosquitto: Mosquitto, query: str, options: dict[str, Any], says: str
) -> None:
    assert Dial(f"mqtt://127.0.0.1:{mosquitto.port}?{query}", options) is None
    assert says in str(last_error())


def test_mqtt_logins_that_are_too_long(mosquitto: Mosquitto) -> None:
    for login, says in (
        (f"{'u' * 70_000}:p", "the user has 70000"),
        (f"u:{'p' * 70_000}", "the password has 70000"),
    ):
        assert Dial(f"mqtt://{login}@127.0.0.1:{mosquitto.port}?topic=t") is None
        assert says in str(last_error())
