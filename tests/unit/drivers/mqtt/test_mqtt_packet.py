"""MQTT messages as they come: what is well formed is read as it is, and no message ends the link or stops
those behind it."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.servers.mosquitto import Mosquitto
from tests.support.mqtt_packets import (
    RawMqtt,
    accept,
    packet,
    publish,
    publish_v5,
    text,
    user_property,
)
from tests.support.recorder import opened
from tests.support.sockets import Peer, SocketServer
from tests.unit.drivers.mqtt.test_mqtt_driver import Sink
from trunkline.actors.driver import StreamDriver
from trunkline.actors.drivers.mqtt.driver import MqttDriver
from trunkline.actors.drivers.mqtt.packet import Publish, Unreadable, read_publish
from trunkline.deadline import Deadline
from trunkline.wire import values

LEFT_OUT = "properties of a message could not be read and were left out"


def read(properties: bytes, payload: bytes = b"hi") -> Publish:
    whole = publish_v5("t", payload, properties, 1, 7)
    return read_publish(whole[0], whole[3:] if whole[1] & 0x80 else whole[2:], v5=True)


def test_what_paho_writes_is_read_as_it_was() -> None:
    given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    given.PayloadFormatIndicator = 1
    given.MessageExpiryInterval = 60
    given.ContentType = "text/plain"
    given.ResponseTopic = "back/grüße"
    given.CorrelationData = b"\xff\x00"
    given.SubscriptionIdentifier = [1, 200_000]
    given.UserProperty = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]
    packed: bytes = given.pack()  # type: ignore[no-untyped-call]
    found = read_publish(0x3B, text("t/ö") + b"\0\7" + packed + b"hi", v5=True)
    assert (found.topic, found.number, found.qos, found.again, found.kept) == (
        "t/ö",
        7,
        1,
        True,
        True,
    )
    assert (found.payload, found.reply_to) == (b"hi", "back/grüße")
    assert found.headers == {"a": ["1", "3", "4"], "b": "2"}
    assert found.properties == {
        "payload_format": 1,
        "message_expiry": 60,
        "content_type": "text/plain",
        "correlation_data": b"\xff\x00",
        "subscription_id": [1, 200_000],
    }
    assert found.unread == []
    plain = read_publish(0x30, text("t") + b"hi", v5=False)
    assert (plain.payload, plain.headers, plain.properties, plain.number) == (b"hi", None, {}, 0)


@pytest.mark.parametrize(
    ("properties", "unread"),
    [
        (b"\x7e\x01", ["property 126"]),
        (b"\x1f" + text("why"), ["property 31"]),
        (b"\x11\0\0\0\1", ["property 17"]),
        (b"\x16" + text(b"\xff"), ["property 22"]),
        (b"\x08" + text(b"\xff"), ["reply_to"]),
        (b"\x03\xff\xffabc", ["content_type"]),
        (b"\x02\0", ["message_expiry"]),
        (b"\x26" + text("a"), ["user property"]),
        (b"\xff\xff\xff\xff\x01", ["properties"]),
        (b"\x80", ["properties"]),
        (b"\x23\0\5", []),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(properties: bytes, unread: list[str]) -> None:
    before = user_property("before", "x")
    found = read(before + properties)
    assert (found.payload, found.headers, found.properties) == (b"hi", {"before": "x"}, {})
    assert (found.reply_to, found.unread) == (None, unread)


def test_texts_that_are_no_utf_8_and_what_stands_twice() -> None:
    found = read(user_property(b"\xff", "\ufeffx") + b"\x03" + text(b"a\xfe"))
    assert found.headers == {"\ufffd": "\ufeffx"}
    assert found.properties == {"content_type": "a\ufffd"}
    twice = read(
        b"\x02\0\0\0\5\x02\0\0\0\6" + (b"\x08" + text("a")) + (b"\x08" + text("b")) + b"\x01\xff"
    )
    assert (twice.properties, twice.reply_to) == ({"message_expiry": 5, "payload_format": 255}, "a")
    assert read_publish(0x30, text(b"\xff/a") + b"hi", v5=False).topic == "\ufffd/a"


def test_nothing_at_random_raises_anything_else_or_is_too_much_to_pass_on() -> None:
    random, right = Random(7), 0
    whole = publish_v5(
        "t/u", b"hi", user_property("a", "b") + b"\x02\0\0\0\5\x09" + text(b"\xff"), 2, 9
    )
    for _ in range(20_000):
        data = bytearray(whole[2:])
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.randrange(256)
        body = bytes(data[: random.choice((len(data), random.randrange(len(data) + 1)))])
        with contextlib.suppress(Unreadable):
            found = read_publish(
                random.choice((0x30, 0x32, 0x34, 0x3D)), body, v5=random.random() < 0.9
            )
            values.pack(
                [found.topic, found.payload, found.headers, found.reply_to, found.properties]
            )
            right += 1
    assert right > 2000


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("v5", [False, True])
def test_no_message_stops_those_behind_it(v5: bool, qos: int) -> None:
    """No broker of ours sends these; others have."""

    def message(
        number: int, payload: bytes, properties: bytes = b"", topic: str | bytes = "t"
    ) -> bytes:
        if v5:
            return publish_v5(topic, payload, properties, qos, number)
        return publish(topic, payload, qos, number)

    def odd() -> bytes:
        odd_ones = [message(1, b"a", topic=b"\xff"), message(2, b"b", topic="")]
        if v5:
            odd_ones.append(message(3, b"c", b"\x7e\x01"))
            odd_ones.append(message(4, b"d", b"\x08" + text(b"\xff")))
            beyond = (
                text("t") + (b"\0\5" if qos else b"") + b"\x7fxx"
            )  # properties beyond the packet
            odd_ones.append(packet(0x30 | qos << 1, beyond))
        return b"".join(odd_ones) + message(6, b"last")

    def handler(peer: Peer) -> None:
        accept(peer, v5=v5, qos=qos)
        peer.send(odd())
        while peer.read():
            pass

    async def body() -> None:
        url = f"mqtt://127.0.0.1:{server.port}?topic=t&qos={qos}&version={'5' if v5 else '3.1.1'}"
        sink = Sink()
        driver = await opened(MqttDriver, url, sink)
        await sink.until(lambda: b"last" in sink.received)
        assert sink.received == ([b"a", b"b", b"c", b"d", b"last"] if v5 else [b"a", b"b", b"last"])
        assert [each.topic for each in sink.deliveries][:2] == ["\ufffd", ""]
        assert (sink.losses, sink.drops) == ([], int(v5))
        if v5:
            assert sink.warnings[:2] == [f"{LEFT_OUT}: property 126", f"{LEFT_OUT}: reply_to"]
            assert "too short for it: it was discarded" in sink.warnings[2]
            if qos:  # else it would come again and again
                answer = b"\x40\2\0\5" if qos == 1 else b"\x50\2\0\5"
                await asyncio.to_thread(server.wait_received, answer)
        await driver.close()

    with SocketServer(handler) as server:
        asyncio.run(body())


def test_a_message_that_cannot_be_acknowledged_ends_the_link_in_words() -> None:
    def handler(peer: Peer) -> None:
        accept(peer, v5=False, qos=1)
        peer.send(packet(0x32, text("t") + b"\0"))
        peer.read()

    async def body() -> None:
        sink = Sink()
        driver = await opened(MqttDriver, f"mqtt://127.0.0.1:{server.port}?topic=t&qos=1", sink)
        assert "a message in a packet that is too short for it" in str(await sink.wait_lost())
        await driver.close()

    with SocketServer(handler) as server:
        asyncio.run(body())


@pytest.mark.parametrize(
    "answer", [b"\x91", b"\x7b", b"\x00\x7f", b"\x91\x03\x1f\xff\xff", b"\x10\x02\x7e\1"]
)
def test_an_odd_word_about_our_own_message_is_yes_or_no(answer: bytes) -> None:
    def handler(peer: Peer) -> None:
        peer.read()
        peer.send(packet(0x20, b"\0\0\0"))
        for _ in range(2):
            whole = peer.read()
            number = whole[whole.index(b"\1t") + 2 :][:2]
            peer.send(packet(0x40, number + (b"" if whole.endswith(b"next") else answer)))
        peer.read()

    async def send(driver: StreamDriver, data: str) -> int | str:
        try:
            return await driver.send(data, Deadline(10))
        except Exception as error:
            return type(error).__name__

    async def body() -> None:
        sink = Sink()
        url = f"mqtt://127.0.0.1:{server.port}?write_topic=t&qos=1&version=5"
        driver = await opened(MqttDriver, url, sink)
        assert await send(driver, "x") == ("RefusedError" if answer[0] & 0x80 else 1)
        assert await send(driver, "next") == 4
        assert sink.losses == []
        await driver.close()

    with SocketServer(handler) as server:
        asyncio.run(body())


def test_what_mosquitto_passes_on_and_paho_does_not_take(mosquitto: Mosquitto) -> None:
    """A byte order mark, a payload format that is none; a retained message came again with each link."""
    odd = [
        user_property("a", "\ufeffx"),
        user_property("\ufeffa", "x"),
        b"\x03" + text("\ufeffx"),
        b"\x08" + text("\ufeffback"),
        b"\x01\x02",
        b"\x01\xff",
    ]

    async def body() -> None:
        topic = mosquitto.unique()
        with RawMqtt(mosquitto.port, mosquitto.unique("c")) as raw:
            raw.publish(topic, b"kept", odd[0] + odd[4], kept=True)
            sink = Sink()
            driver = await opened(
                MqttDriver, f"mqtt://127.0.0.1:{mosquitto.port}?topic={topic}&version=5", sink
            )
            for number, properties in enumerate(odd):
                raw.publish(topic, str(number).encode(), properties)
            raw.publish(topic, b"", b"", kept=True)
        await sink.wait_received(len(odd) + 2)
        assert sink.received == [
            b"kept",
            *(str(number).encode() for number in range(len(odd))),
            b"",
        ]
        assert (sink.losses, sink.warnings) == ([], [])
        assert [each.headers for each in sink.deliveries[:3]] == [
            {"a": "\ufeffx"},
            {"a": "\ufeffx"},
            {"\ufeffa": "x"},
        ]
        assert [(each.properties or {}).get("payload_format") for each in sink.deliveries[5:7]] == [
            2,
            255,
        ]
        await driver.close()

    asyncio.run(body())
