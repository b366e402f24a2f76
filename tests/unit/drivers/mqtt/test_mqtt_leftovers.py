"""What a kept MQTT session has of an earlier address, on mosquitto and on brokers with other habits."""

from __future__ import annotations

import asyncio

import pytest
from paho.mqtt.client import topic_matches_sub

from tests.servers.mosquitto import Mosquitto
from tests.support.mqtt_packets import packet, publish_v5, text
from tests.support.mqtt_side import MqttSide
from tests.support.recorder import opened
from tests.support.sockets import Peer, SocketServer
from tests.unit.drivers.mqtt.test_mqtt_driver import Sink
from trunkline.actors.drivers.mqtt.driver import MqttDriver
from trunkline.actors.drivers.mqtt.leftovers import filters_for
from trunkline.deadline import Deadline


def test_every_filter_that_could_have_brought_a_topic() -> None:
    assert sorted(filters_for("a/b")) == sorted(
        ["a/b", "a/b/#", "a/#", "#", "a/+", "+/b", "+/+", "+/#", "a/+/#", "+/b/#", "+/+/#"]
    )
    for topic in ("a", "/", "a//b", "a/b/c/d/e/f", "a/b/c/d/e/f/g/h", "x/" * 60):
        found = filters_for(topic)
        assert len(found) == len(set(found)) < 400
        assert all(topic_matches_sub(each, topic) for each in found)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("old", ["{0}/{0}", "{0}/+", "{0}/#", "{0}/{0}/#", "+/{0}"])
def test_topics_of_an_earlier_run_are_unsubscribed(
    mosquitto: Mosquitto, old: str, qos: int, version: str
) -> None:
    was, new = mosquitto.unique("old"), mosquitto.unique("new")
    kept = f"&qos={qos}&client_id={mosquitto.unique('c')}&clean=false&version={version}"

    async def body() -> None:
        url = f"mqtt://127.0.0.1:{mosquitto.port}?topic={{}}{kept}"
        driver = await opened(MqttDriver, url.format(old.format(was).replace("#", "%23")), Sink())
        await driver.close()
        with MqttSide(mosquitto.port) as side:
            side.publish(f"{was}/{was}", "while away")
            sink = Sink()
            driver = await opened(MqttDriver, url.format(f"{new}/%23"), sink)
            sink.settling = driver
            side.publish(f"{was}/{was}", "old")
            side.publish(f"{new}/x", "first")
            await sink.until(lambda: b"first" in sink.received)
            ended = f"earlier run with this client_id, for {was}/{was}"
            await sink.until(lambda: ended in " ".join(sink.warnings))
            await driver.close()
            side.publish(f"{was}/{was}", "older")
            side.publish(f"{new}/x", "second" if qos else "lost")
            again = Sink()
            driver = await opened(MqttDriver, url.format(f"{new}/%23"), again)
            side.publish(f"{new}/b", "third")
            await again.until(lambda: b"third" in again.received)
            assert (sink.received, sink.drops) == ([b"first"], 0)
            assert again.received == ([b"second", b"third"] if qos else [b"third"])
            assert not any("earlier run" in each for each in again.warnings)
            await driver.close()
        driver = await opened(MqttDriver, url.format(new).replace("=false", "=true"), Sink())
        await driver.close()

    asyncio.run(body())


def test_topics_that_fit_and_shared_ones_stay(mosquitto: Mosquitto) -> None:
    name = mosquitto.unique()
    kept = f"&qos=1&client_id={mosquitto.unique('c')}&clean=false&version=5"

    async def body() -> None:
        url = f"mqtt://127.0.0.1:{mosquitto.port}?topic={name}/a,$share/g/{name}/b/%2B,{name}/c/%23{kept}"
        driver = await opened(MqttDriver, url, Sink())
        await driver.close()
        sink = Sink()
        driver = await opened(MqttDriver, url, sink)
        sink.settling = driver
        with MqttSide(mosquitto.port) as side:
            for topic in ("a", "b/x", "c", "c/d/e"):
                side.publish(f"{name}/{topic}", topic)
        await sink.wait_received(4)
        assert sorted(sink.received) == [b"a", b"b/x", b"c", b"c/d/e"]
        assert sink.warnings == []
        await driver.close()
        driver = await opened(MqttDriver, url.replace("=false", "=true"), Sink())
        await driver.close()

    asyncio.run(body())


def test_a_topic_that_no_subscription_brings_is_read() -> None:
    """A broker that rewrites topics, with MQTT 5: it says that there is no such subscription."""

    def handler(peer: Peer) -> None:
        peer.read()
        peer.send(packet(0x20, b"\1\0\0"))
        number = peer.read()[2:4]
        peer.send(packet(0x90, number + b"\0\1"))
        peer.send(
            publish_v5("other/t", b"one", b"", 1, 1) + publish_v5("other/t", b"two", b"", 1, 2)
        )
        asked = peer.read()
        assert asked[0] == 0xA2
        at = 2 + (asked[1] >= 0x80)
        count, rest = 0, asked[at + 3 :]
        while rest:
            count, rest = count + 1, rest[2 + int.from_bytes(rest[:2], "big") :]
        peer.send(packet(0xB0, asked[at : at + 2] + b"\0" + b"\x11" * count))
        peer.send(publish_v5("other/t", b"three", b"", 1, 3))
        while peer.read():
            pass

    async def body() -> None:
        sink = Sink()
        query = "topic=t&qos=1&client_id=c&clean=false&version=5"
        driver = await opened(MqttDriver, f"mqtt://127.0.0.1:{server.port}?{query}", sink)
        await sink.wait_received(3)
        assert sink.received == [b"one", b"two", b"three"]
        assert sink.warnings == []
        await driver.close()

    assert text("t") == b"\0\1t"
    with SocketServer(handler) as server:
        asyncio.run(body())


def test_answers_of_a_former_link_are_no_messages(mosquitto: Mosquitto) -> None:
    """A kept session kept the topic of the answers, too; what came late was handed to the reader."""
    name = mosquitto.unique()
    kept = f"client_id={mosquitto.unique('c')}&clean=false&version=5&qos=1"
    query = f"topic={name}/in&write_topic={name}/ask&{kept}"

    async def body() -> None:
        address = f"mqtt://127.0.0.1:{mosquitto.port}?{query}"
        driver = await opened(MqttDriver, address, Sink())
        with pytest.raises(TimeoutError):
            await driver.request("?", Deadline(0.2))
        topic = driver._session.reply_topic  # type: ignore[attr-defined]
        assert topic is not None
        await driver.close()
        with MqttSide(mosquitto.port) as side:
            side.publish(topic, "late")
            sink = Sink()
            driver = await opened(MqttDriver, address, sink)  # another process, as far as it knows
            side.publish(f"{name}/in", "message")
            await sink.wait_received(1)
            assert sink.received == [b"message"]
            await driver.close()
        driver = await opened(MqttDriver, address.replace("=false", "=true"), Sink())
        await driver.close()

    asyncio.run(body())
