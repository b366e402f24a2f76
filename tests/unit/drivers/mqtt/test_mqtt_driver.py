"""The mqtt driver against a real mosquitto: what arrives, what is acknowledged when, what writes promise."""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import paho.mqtt.client as paho
import pytest
import uvloop
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers.mosquitto import Mosquitto
from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy
from tests.support.loops import Run, on_both_loops
from tests.support.mqtt_packets import packet
from tests.support.mqtt_side import MqttSide, properties
from tests.support.recorder import Recorder
from tests.support.sockets import Peer, SocketServer, deaf, unused_port
from tests.support.watching import watched
from trunkline.actors.driver import Delivery, FatalError
from trunkline.actors.drivers.mqtt.client import Client
from trunkline.actors.drivers.mqtt.driver import MqttDriver
from trunkline.actors.drivers.ws.driver import ENGINES
from trunkline.address import Address, parse_address
from trunkline.deadline import Deadline
from trunkline.errors import (
    DialError,
    DialTimeout,
    OperationTimeout,
    RefusedError,
    Unconfirmed,
    Unsupported,
)
from trunkline.testing.faultproxy import FaultProxy

SCHEMES = {"mqtt": "tcp", "mqtts": "tls", "ws+mqtt": "ws", "wss+mqtt": "wss"}
SOON = 0.2


class Sink(Recorder):
    """Also keeps the envelopes. `settling` acknowledges each message as a quick reader would."""

    def __init__(self, driver: MqttDriver | None = None) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []
        self.settling = driver

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.deliveries += batch
        self.messages([each.data for each in batch])
        if self.settling is not None:
            self.settling.settle([each.token for each in batch if each.token is not None])


@contextlib.asynccontextmanager
async def dialled(
    address: str | Address, *, settling: bool = True, **options: object
) -> AsyncIterator[tuple[MqttDriver, Sink]]:
    """An open driver and its sink; closed at the end."""
    sink = Sink()
    parsed = parse_address(address, options) if isinstance(address, str) else address
    driver = MqttDriver(parsed, sink)
    sink.settling = driver if settling else None
    await driver.open(Deadline(10))
    try:
        yield driver, sink
    finally:
        await driver.close()


def at(server: Mosquitto | FaultProxy, query: str, port: str = "tcp") -> str:
    number = server.port if isinstance(server, FaultProxy) else server.ports[port]
    return f"mqtt://127.0.0.1:{number}?{query}"


async def send(driver: MqttDriver, data: str | bytes, seconds: float = 10) -> int:
    return await driver.send(data, Deadline(seconds))


@pytest.fixture
def proxy(mosquitto: Mosquitto) -> Iterator[FaultProxy]:
    with FaultProxy(mosquitto.port) as made:
        yield made


def on_uvloop(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(40):
            await body()

    uvloop.run(run())


# there and back


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("scheme", list(SCHEMES))
@on_both_loops
def test_what_is_sent_comes_back_in_order(
    run: Run, mosquitto: Mosquitto, certs: Certs, scheme: str, qos: int, version: str
) -> None:
    async def body() -> None:
        port = SCHEMES[scheme]
        login = {"username": "u", "password": "p"} if port in ("tls", "wss") else {}
        tls = {"cafile": str(certs.ca)} if port in ("tls", "wss") else {}
        topic = mosquitto.unique("a/b")
        address = f"{scheme}://127.0.0.1:{mosquitto.ports[port]}?topic={topic}&qos={qos}&version={version}"
        async with dialled(address, **login, **tls) as (driver, sink):
            texts = [f"grüße {number}" for number in range(60)]
            taken = await asyncio.gather(*(send(driver, text) for text in texts))
            assert taken == [len(text.encode()) for text in texts]
            await sink.wait_received(60)
            assert sink.received == [text.encode() for text in texts]
            assert {each.topic for each in sink.deliveries} == {topic}
            assert sink.deliveries[0].properties == {"qos": qos, "retain": False}
            assert not any(each.redelivered for each in sink.deliveries)
        await driver.close()
        assert (sink.losses, sink.warnings) == ([], [])
        with pytest.raises(OSError, match="gone"):
            await send(driver, "late")

    run(body())


@pytest.mark.parametrize("engine", list(ENGINES))
def test_both_websocket_engines_carry_it_and_log_out(
    mosquitto: Mosquitto, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_WS_ENGINE", engine)

    async def body() -> None:
        topic, will = mosquitto.unique(), mosquitto.unique()
        address = f"ws+mqtt://127.0.0.1:{mosquitto.ports['ws']}?topic={topic}&qos=2&will_topic={will}&will_payload=x"
        async with dialled(at(mosquitto, f"topic={will}")) as (watcher, seen):
            for _ in range(5):
                async with dialled(address, headers={"x-who": "me"}) as (driver, sink):
                    assert await send(driver, bytes(3000)) == 3000
                    await sink.wait_received(1)
            await settled(watcher)
            assert seen.received == []

    on_uvloop(body)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_big_messages_and_none_at_all(mosquitto: Mosquitto, qos: int) -> None:
    async def body() -> None:
        big = bytes(range(256)) * 12_000
        async with dialled(at(mosquitto, f"topic={mosquitto.unique()}&qos={qos}")) as (
            driver,
            sink,
        ):
            counts = await asyncio.gather(
                *(send(driver, data) for data in (big, b"", "x", big[1:]))
            )
            assert counts == [len(big), 0, 1, len(big) - 1]
            await sink.wait_received(4)
            assert sink.received == [big, b"", b"x", big[1:]]

    on_uvloop(body)


def test_several_topics_and_wildcards(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        one = mosquitto.unique()
        async with (
            dialled(at(mosquitto, f"topic={one}/%23&topic={one}x")) as (reader, sink),
            dialled(at(mosquitto, f"write_topic={one}/a/b")) as (writer, silence),
        ):
            await send(writer, "1")
            await sink.wait_received(1)
            assert await send(reader, "2") == 1  # to the first one that can be written to
            await sink.wait_received(2)
            assert [each.topic for each in sink.deliveries] == [f"{one}/a/b", f"{one}x"]
            assert silence.received == []

    on_uvloop(body)


def test_a_topic_with_a_wildcard_alone_is_not_written_to(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        async with dialled(at(mosquitto, "topic=nobody/%23")) as (driver, _):
            with pytest.raises(
                Unsupported, match="topic=nobody/# is for reading only: give write_topic="
            ):
                await send(driver, "x")

    on_uvloop(body)


# envelopes


def test_the_envelope_of_mqtt_5(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        found = properties(
            UserProperty=[("a", "1"), ("b", "2"), ("a", "3")],
            ResponseTopic="answers/here",
            CorrelationData=b"\x00\x01",
            ContentType="text/plain",
            MessageExpiryInterval=60,
        )
        async with dialled(at(mosquitto, f"topic={topic}&qos=1&version=5")) as (_, sink):
            with MqttSide(mosquitto.port) as side:
                side.publish(topic, "x", found=found)
            await sink.wait_received(1)
            got = sink.deliveries[0]
            assert got.headers == {"a": ["1", "3"], "b": "2"}
            assert got.reply_to == "answers/here"
            assert got.properties is not None
            expiry = got.properties.pop("message_expiry")
            assert 55 <= expiry <= 60
            assert got.properties == {
                "qos": 1,
                "retain": False,
                "correlation_data": b"\x00\x01",
                "content_type": "text/plain",
            }

    on_uvloop(body)


def test_headers_are_written_with_each_message(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        address = at(mosquitto, f"topic={mosquitto.unique()}&version=5")
        async with dialled(address, headers={"who": "me", "tag": ["x", "ü"]}) as (driver, sink):
            await send(driver, "1")
            await send(driver, "2")
            await sink.wait_received(2)
            assert [each.headers for each in sink.deliveries] == [
                {"who": "me", "tag": ["x", "ü"]}
            ] * 2

    on_uvloop(body)


def test_a_retained_message_greets_who_comes_later(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        async with dialled(at(mosquitto, f"write_topic={topic}&retain=true&qos=1")) as (driver, _):
            assert await send(driver, "kept") == 4
        async with dialled(at(mosquitto, f"topic={topic}&qos=1")) as (_, sink):
            await sink.wait_received(1)
            assert sink.deliveries[0].properties == {"qos": 1, "retain": True}

    on_uvloop(body)


def test_the_will_is_published_when_the_link_breaks_and_not_after_close(
    mosquitto: Mosquitto, proxy: FaultProxy
) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        will = f"write_topic=x&will_topic={topic}&will_qos=1&will_payload="
        async with dialled(at(mosquitto, f"topic={topic}&qos=1")) as (_, watcher):
            async with dialled(at(proxy, f"{will}gone")):
                pass
            async with dialled(at(proxy, f"{will}broken")) as (_, sink):
                proxy.reset()
                await sink.wait_lost()
            await watcher.wait_received(1)
            assert watcher.received == [b"broken"]

    on_uvloop(body)


# acknowledging


KEPT = "topic={0}&qos={1}&clean=false&client_id={0}"


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_nobody_has_read_comes_again_and_is_known_again(
    mosquitto: Mosquitto, proxy: FaultProxy, qos: int, version: str
) -> None:
    async def body() -> None:
        name = mosquitto.unique()
        address = parse_address(at(proxy, KEPT.format(name, qos) + f"&version={version}"))
        async with dialled(at(mosquitto, f"write_topic={name}&qos={qos}")) as (writer, _):
            async with dialled(address, settling=False) as (driver, sink):
                for text in ("1", "2", "3"):
                    await send(writer, text)
                await sink.wait_received(3)
                first = sink.deliveries
                driver.settle([first[0].token])
                await settled(driver)
                proxy.reset()
                await sink.wait_lost()
            async with dialled(address) as (driver, sink):
                await sink.wait_received(2)
                assert sink.received == [b"2", b"3"]
                assert all(each.redelivered for each in sink.deliveries)
                assert [each.identity for each in sink.deliveries] == [
                    each.identity for each in first[1:]
                ]
                await settled(driver)
                proxy.reset()
                await sink.wait_lost()
            async with dialled(address) as (_, sink):
                await send(writer, "4")
                await sink.wait_received(1)
                assert sink.received == [b"4"]
                assert sink.deliveries[0].redelivered is False

    on_uvloop(body)


async def settled(driver: MqttDriver) -> None:
    """What was acknowledged has arrived at the broker: it answers what is asked after it."""
    await driver._subscriptions.subscribe(["trunkline/nothing"], Deadline(10))


@pytest.mark.parametrize("lost", ["on its way", "before it was sent"])
def test_a_qos_2_message_whose_acknowledgement_was_lost_is_not_handed_over_again(
    mosquitto: Mosquitto, proxy: FaultProxy, lost: str
) -> None:
    async def body() -> None:
        name = mosquitto.unique()
        address = parse_address(at(proxy, KEPT.format(name, 2)))
        async with dialled(at(mosquitto, f"write_topic={name}&qos=2")) as (writer, _):
            async with dialled(address, settling=False) as (driver, sink):
                await send(writer, "once")
                await sink.wait_received(1)
                if lost == "on its way":
                    proxy.blackhole("up")
                    driver.settle([sink.deliveries[0].token])
                proxy.reset()
                await sink.wait_lost()
                if lost == "before it was sent":
                    driver.settle([sink.deliveries[0].token])
            proxy.heal()
            async with dialled(address) as (_, sink):
                await send(writer, "next")
                await sink.wait_received(1)
                assert sink.received == [b"next"]

    on_uvloop(body)


def test_a_qos_1_message_whose_acknowledgement_was_lost_comes_again_as_a_new_one(
    mosquitto: Mosquitto, proxy: FaultProxy
) -> None:
    async def body() -> None:
        name = mosquitto.unique()
        address = parse_address(at(proxy, KEPT.format(name, 1)))
        async with dialled(at(mosquitto, f"write_topic={name}&qos=1")) as (writer, _):
            async with dialled(address, settling=False) as (driver, sink):
                await send(writer, "once or twice")
                await sink.wait_received(1)
                first = sink.deliveries[0]
                proxy.blackhole("up")
                driver.settle([first.token])
                proxy.reset()
                await sink.wait_lost()
            proxy.heal()
            async with dialled(address) as (_, sink):
                await sink.wait_received(1)
                assert sink.deliveries[0].redelivered
                assert sink.deliveries[0].identity != first.identity

    on_uvloop(body)


def test_with_mqtt_5_a_clean_connection_goes_on_after_an_outage_and_leaves_nothing_behind(
    mosquitto: Mosquitto, proxy: FaultProxy
) -> None:
    async def body() -> None:
        name = mosquitto.unique()
        address = parse_address(at(proxy, f"topic={name}&qos=1&version=5&client_id={name}"))
        async with dialled(at(mosquitto, f"write_topic={name}&qos=1")) as (writer, _):
            async with dialled(address) as (_, sink):
                proxy.reset()
                await sink.wait_lost()
            await send(writer, "in the outage")
            async with dialled(address) as (_, sink):
                await sink.wait_received(1)
                assert sink.received == [b"in the outage"]
            await send(writer, "to nobody")
            async with dialled(address) as (driver, sink):
                await settled(driver)
                assert sink.received == []

    on_uvloop(body)


# writing


def test_writes_are_confirmed_in_the_order_of_the_calls(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        count = 500
        address = at(mosquitto, f"topic={mosquitto.unique()}&qos=1")
        async with dialled(address) as (driver, sink):
            order: list[int] = []

            async def one(number: int) -> None:
                await send(driver, str(number))
                order.append(number)

            await asyncio.gather(*(one(number) for number in range(count)))
            await sink.wait_received(count)
            assert order == list(range(count))
            assert sink.received == [str(number).encode() for number in range(count)]

    on_uvloop(body)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_write_without_confirmation_is_unconfirmed_and_what_did_not_go_out_is_never_sent(
    mosquitto: Mosquitto, proxy: FaultProxy, qos: int
) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        async with (
            dialled(at(mosquitto, f"topic={topic}&qos={qos}")) as (_, sink),
            dialled(at(proxy, f"write_topic={topic}&qos={qos}")) as (driver, own),
        ):
            proxy.stall()
            results = await asyncio.gather(
                *(send(driver, str(number), SOON) for number in range(30)), return_exceptions=True
            )
            assert [type(each) for each in results[:20]] == [Unconfirmed] * 20
            assert "may or may not have arrived" in str(results[0])
            assert results[20:] == [0] * 10
            proxy.heal()
            assert await send(driver, "after") == 5
            await sink.until(lambda: b"after" in sink.received)
            assert sink.received == [*(str(number).encode() for number in range(20)), b"after"]
            assert own.losses == []

    on_uvloop(body)


def test_a_full_link_takes_nothing_and_says_so_by_the_deadline(
    proxy: FaultProxy, mosquitto: Mosquitto
) -> None:
    async def body() -> None:
        async with dialled(at(proxy, f"write_topic={mosquitto.unique()}")) as (driver, sink):
            proxy.stall("up")
            while await send(driver, bytes(50_000), SOON):
                pass
            assert driver.would_wait(1)
            assert await send(driver, "x", SOON) == 0
            assert sink.losses == []
            proxy.heal()
            assert await send(driver, "y") == 1

    on_uvloop(body)


@pytest.mark.parametrize("qos", [0, 1])
def test_the_rest_of_a_message_does_not_go_out_after_the_deadline(
    proxy: FaultProxy, mosquitto: Mosquitto, qos: int
) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        async with (
            dialled(at(mosquitto, f"topic={topic}&qos={qos}")) as (watcher, seen),
            dialled(at(proxy, f"write_topic={topic}&qos={qos}")) as (driver, sink),
        ):
            proxy.stall("up")
            with pytest.raises(Unconfirmed, match="may or may not have arrived"):
                await send(driver, bytes(20_000_000), SOON)
            assert "only a part of a message went out in time" in str(await sink.wait_lost())
            await driver.close()
            proxy.heal()
            await asyncio.to_thread(proxy.wait_live, 0)
            await settled(watcher)
            assert seen.received == []

    on_uvloop(body)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("session", ["", "&clean=false&client_id={}"])
def test_a_write_whose_link_broke_is_not_sent_by_the_next_one(
    mosquitto: Mosquitto, proxy: FaultProxy, qos: int, session: str
) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        address = parse_address(at(proxy, f"write_topic={topic}&qos={qos}" + session.format(topic)))
        async with dialled(at(mosquitto, f"topic={topic}&qos={qos}")) as (_, reader):
            async with dialled(address) as (driver, sink):
                proxy.blackhole("up")
                writes = [asyncio.create_task(send(driver, text)) for text in ("1", "2")]
                await asyncio.sleep(0)
                proxy.reset()
                for write in writes:
                    with pytest.raises(ConnectionError, match="may have arrived"):
                        await write
                await sink.wait_lost()
            proxy.heal()
            async with dialled(address) as (driver, _):
                assert await send(driver, "new") == 3
                await reader.wait_received(1)
                assert reader.received == [b"new"]

    on_uvloop(body)


def test_half_a_qos_2_handshake_is_never_finished(mosquitto: Mosquitto, proxy: FaultProxy) -> None:
    """The broker has the message and waits for PUBREL: sent after the outage, that would publish it."""

    async def body() -> None:
        topic = mosquitto.unique()
        address = parse_address(
            at(proxy, f"write_topic={topic}&qos=2&clean=false&client_id={topic}")
        )
        async with dialled(at(mosquitto, f"topic={topic}&qos=2")) as (_, reader):
            for number in range(20):
                async with dialled(address) as (driver, sink):
                    before = proxy.taken("down")
                    proxy.blackhole("down")
                    write = asyncio.create_task(send(driver, f"old {number}"))
                    await asyncio.to_thread(proxy.wait_taken, "down", before + 4)  # PUBREC
                    proxy.reset()
                    with pytest.raises(ConnectionError, match="may have arrived"):
                        await write
                    await sink.wait_lost()
                proxy.heal()
                if number == 10:
                    async with dialled(address) as (driver, _):
                        assert await send(driver, "new") == 3
                        await reader.wait_received(1)
            async with dialled(address) as (driver, _):
                # mosquitto drops what comes over its limit without a word.
                with pytest.raises(RefusedError, match="holds 20 unfinished QoS 2 messages"):
                    await send(driver, "one too many")
            assert reader.received == [b"new"]

    on_uvloop(body)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_refused_message_is_said_with_mqtt_5_and_the_link_goes_on(
    start_mosquitto: Callable[..., Mosquitto], qos: int
) -> None:
    # With no limit mosquitto 2.0.11 ends the connection after a refused message.
    server = start_mosquitto(config="max_queued_messages 1000")

    async def body() -> None:
        address = at(server, f"write_topic=forbidden&qos={qos}&version=5", "auth")
        async with dialled(address, username="limited", password="p") as (driver, sink):
            with pytest.raises(
                RefusedError, match="refused the message to forbidden: not authorized"
            ) as caught:
                await send(driver, "x")
            assert caught.value.code == 0x87
            for _ in range(3):
                with pytest.raises(RefusedError):
                    await send(driver, "x")
            assert sink.losses == []

    on_uvloop(body)


def test_a_message_over_the_brokers_limit_is_refused_here(
    start_mosquitto: Callable[..., Mosquitto],
) -> None:
    server = start_mosquitto(config="max_packet_size 1000")

    async def body() -> None:
        async with dialled(at(server, "topic=t&qos=1&version=5")) as (driver, sink):
            with pytest.raises(RefusedError, match="takes packets of 1000 bytes at most"):
                await send(driver, bytes(1000))
            assert await send(driver, bytes(900)) == 900
            await sink.wait_received(1)

    on_uvloop(body)


# requests


def test_a_request_and_its_answer(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        topic = mosquitto.unique()

        async with (
            dialled(at(mosquitto, f"topic={topic}&version=5&qos=1")) as (_, questions),
            dialled(at(mosquitto, f"write_topic={topic}&version=5&qos=1")) as (driver, sink),
        ):
            asked = [asyncio.create_task(driver.request(text, Deadline(10))) for text in ("a", "b")]
            await questions.wait_received(2)
            for question in reversed(questions.deliveries):
                assert question.reply_to
                assert question.properties is not None
                found = properties(CorrelationData=question.properties["correlation_data"])
                with MqttSide(mosquitto.port) as side:
                    side.publish(question.reply_to, bytes(question.data) + b"!", found=found)
            assert [(await each).data for each in asked] == [b"a!", b"b!"]
            assert sink.received == []
            with pytest.raises(OperationTimeout, match="nobody answered"):
                await driver.request("c", Deadline(SOON))

    on_uvloop(body)


def test_a_request_needs_mqtt_5(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        async with dialled(at(mosquitto, "topic=t")) as (driver, _):
            with pytest.raises(Unsupported, match="needs version=5"):
                await driver.request("x", Deadline(1))

    on_uvloop(body)


# back-pressure


def test_while_the_buffer_is_full_writes_are_still_confirmed(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        address = at(mosquitto, f"topic={mosquitto.unique()}&qos=1&version=5")
        async with dialled(address) as (driver, sink):
            driver.pause()
            for number in range(300):
                assert await send(driver, str(number)) > 0
            assert sink.received == []
            driver.resume()
            await sink.wait_received(300)
            assert sink.received == [str(number).encode() for number in range(300)]

    on_uvloop(body)


def test_of_qos_0_what_a_full_buffer_cannot_hold_is_counted(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        topic = mosquitto.unique()
        async with (
            dialled(at(mosquitto, f"topic={topic}&qos=1")) as (driver, sink),
            dialled(at(mosquitto, f"write_topic={topic}")) as (writer, _),
        ):
            driver.pause()
            for number in range(2500):
                assert await send(writer, str(number)) > 0
            await sink.until(lambda: sink.drops == 500)
            driver.resume()
            await sink.wait_received(2000)
            assert sink.received == [str(number).encode() for number in range(2000)]

    on_uvloop(body)


def test_a_message_over_max_size_is_discarded_and_counted(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        address = at(mosquitto, f"topic={mosquitto.unique()}&qos=1")
        async with dialled(address, max_size=1000) as (driver, sink):
            await send(driver, bytes(1001))
            await send(driver, bytes(1000))
            await sink.wait_received(1)
            assert (sink.drops, len(sink.received[0])) == (1, 1000)
            assert "over the option max_size" in sink.warnings[0]

    on_uvloop(body)


# brokers that keep no bounds; packets stand here, for no real one does so at will


def greets(peer: Peer, *, v5: bool = False, resumed: bool = False, qos: int = 0) -> None:
    """Accept the login and the subscription."""
    peer.read()
    peer.send(bytes([0x20, 2 + v5, resumed, 0]) + bytes(v5))
    number = peer.read()[2:4]
    peer.send(bytes([0x90, 3 + v5]) + number + bytes(v5) + bytes([qos]))


def message(
    payload: bytes, qos: int = 0, number: int = 7, *, v5: bool = False, again: bool = False
) -> bytes:
    """A PUBLISH to "t"."""
    body = b"\0\1t" + (number.to_bytes(2, "big") if qos else b"") + bytes(v5) + payload
    return bytes([0x30 | again << 3 | qos << 1]) + length(len(body)) + body


def length(count: int) -> bytes:
    return bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14 & 127 | 128, count >> 21])


@pytest.mark.parametrize("v5", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_of_a_message_far_over_max_size_nothing_is_kept(qos: int, v5: bool) -> None:
    megabytes = 64

    def handler(peer: Peer) -> None:
        greets(peer, v5=v5, qos=qos)
        head = b"\0\1t" + (b"\0\7" if qos else b"") + bytes(v5)
        peer.send(bytes([0x30 | qos << 1]) + length(len(head) + (megabytes << 20)) + head)
        for _ in range(megabytes):
            peer.send(piece)
        peer.send(message(b"next", v5=v5))
        while peer.read():
            pass

    async def body() -> None:
        version = "5" if v5 else "3.1.1"
        address = f"mqtt://127.0.0.1:{server.port}?topic=t&qos={qos}&version={version}"
        tracemalloc.start()
        try:
            async with dialled(address, max_size=1000) as (_, sink):
                await sink.wait_received(1)
                assert tracemalloc.get_traced_memory()[1] < 8 << 20
                assert (sink.received, sink.drops, sink.losses) == ([b"next"], 1, [])
                assert (
                    f"a message of {(megabytes << 20) + v5} bytes was discarded" in sink.warnings[0]
                )
                if qos:  # else it would come again and again
                    answer = b"\x40\2\0\7" if qos == 1 else b"\x50\2\0\7"
                    await asyncio.to_thread(server.wait_received, answer)
        finally:
            tracemalloc.stop()

    piece = bytes(1 << 20)
    with SocketServer(handler) as server:
        on_uvloop(body)


def test_a_packet_that_is_too_big_and_no_message_ends_the_link() -> None:
    def handler(peer: Peer) -> None:
        greets(peer)
        peer.send(b"\x90" + length(64 << 20) + bytes(1000))
        peer.read()

    async def body() -> None:
        async with dialled(f"mqtt://127.0.0.1:{server.port}?topic=t", max_size=1000) as (_, sink):
            assert "a packet of 67108864 bytes that is no message" in str(await sink.wait_lost())

    with SocketServer(handler) as server:
        on_uvloop(body)


def test_with_mqtt_5_the_broker_is_told_what_is_too_big(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        address = at(mosquitto, f"topic={mosquitto.unique()}&qos=1&version=5")
        async with dialled(address, max_size=1000) as (driver, sink):
            for data in (bytes(500_000), b"next"):
                assert await send(driver, data) == len(data)
            await sink.wait_received(1)
            assert (sink.received, sink.drops) == ([b"next"], 0)

    on_uvloop(body)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_broker_that_does_not_wait_for_acknowledgements_has_to_wait(qos: int) -> None:
    count, ping = 8000, b"\xc0\0"

    def handler(peer: Peer) -> None:
        greets(peer, qos=qos)
        for number in range(count):
            peer.send(message(b"%d" % number + bytes(4000), qos, number + 1))
            if (
                number % 50 == 0
                and select.select([peer.sock], [], [], 0)[0]
                and peer.read().count(ping)
            ):
                peer.send(b"\xd0\0")
        while data := peer.read():
            peer.send(b"\xd0\0" * (ping in data))

    async def body() -> None:
        address = f"mqtt://127.0.0.1:{server.port}?topic=t&qos={qos}"
        async with (
            dialled(address, settling=False, buffer=5, pingInterval=1000) as (driver, sink),
            watched(driver, sink),
        ):
            while driver._intake.held_count < 2000:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)
            await asyncio.sleep(2.5)  # twice what a silent broker is given
            assert (len(sink.received), driver._intake.held_count, sink.losses) == (5, 2000, [])
            sink.settling = driver
            driver.settle([each.token for each in sink.deliveries])
            await sink.wait_received(count)
            numbers = [int(data.rstrip(b"\0")) for data in sink.received if isinstance(data, bytes)]
            assert numbers == list(range(count))
            assert (sink.losses, sink.drops) == ([], 0)
        assert server.peers[0].received.count(ping) >= 2

    with SocketServer(handler) as server:
        on_uvloop(body)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_message_is_only_known_again_if_the_broker_means_the_same_one(
    qos: int, resumed: bool
) -> None:
    """A killed broker may have lost the session, or have it as it was before."""

    def handler(peer: Peer) -> None:
        greets(peer, resumed=resumed and peer.number > 0, qos=qos)
        for number, text in enumerate((b"read", b"held"), 1):
            peer.send(message(text, qos, number, again=peer.number > 0))
        if peer.number:
            for number, text in enumerate((b"other", b"another"), 1):
                peer.send(message(text, qos, number, again=True))
        peer.read()
        if peer.number:
            peer.read()

    async def body() -> None:
        address = parse_address(
            f"mqtt://127.0.0.1:{server.port}?topic=t&qos={qos}&clean=false&client_id=c"
        )
        async with dialled(address, settling=False) as (driver, sink):
            await sink.wait_received(2)
            read, held = sink.deliveries
            driver.settle([read.token])
            await sink.wait_lost()
        async with dialled(address, settling=False) as (_, sink):
            await sink.until(lambda: b"another" in sink.received)
            same = {
                each.data: each.identity in (read.identity, held.identity)
                for each in sink.deliveries
            }
            known = {b"held": resumed, b"other": False, b"another": False}
            # Read, and the broker may not have heard of that: QoS 2 promises that it is not read twice.
            assert same == (known if qos == 2 and resumed else {b"read": False, **known})

    with SocketServer(handler) as server:
        on_uvloop(body)


def test_what_a_server_sent_that_was_given_up_is_not_acknowledged_to_the_next() -> None:
    def first(peer: Peer) -> None:
        peer.read()
        peer.send(b"\x20\2\1\0" + message(b"of the first", 1))
        peer.read()

    def second(peer: Peer) -> None:
        greets(peer, qos=1)
        peer.send(message(b"of the second", 1))
        while peer.read():
            pass

    async def body() -> None:
        servers = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
        async with dialled(f"mqtt://{servers}?topic=t&qos=1&client_id=c") as (_, sink):
            await asyncio.to_thread(two.wait_received, b"\x40\2\0\7")
            assert sink.received == [b"of the second"]
            assert two.peers[0].received.count(b"\x40\2") == 1

    with SocketServer(first) as one, SocketServer(second) as two:
        on_uvloop(body)


# ends


def test_a_restarted_server_ends_the_link(start_mosquitto: Callable[..., Mosquitto]) -> None:
    server = start_mosquitto()

    async def body() -> None:
        address = parse_address(at(server, "topic=t&qos=1"))
        async with dialled(address) as (driver, sink):
            await asyncio.to_thread(server.stop)
            await sink.wait_lost()
            with pytest.raises(OSError, match="gone"):
                await send(driver, "x")
        with pytest.raises(DialError, match="refused the connection; is the server running"):
            async with dialled(address):
                pass
        await asyncio.to_thread(server.start)
        async with dialled(address) as (driver, sink):
            await send(driver, "x")
            await sink.wait_received(1)

    on_uvloop(body)


@pytest.mark.parametrize("scheme", ["mqtt", "wss+mqtt"])
def test_a_frozen_server_is_noticed(
    start_mosquitto: Callable[..., Mosquitto], certs: Certs, scheme: str
) -> None:
    server = start_mosquitto()

    async def body() -> None:
        login = (
            {"username": "u", "password": "p", "cafile": str(certs.ca)} if "wss" in scheme else {}
        )
        address = f"{scheme}://127.0.0.1:{server.ports[SCHEMES[scheme]]}?topic=t&qos=1"
        async with dialled(address, pingInterval=1000, **login) as (driver, sink):
            server.freeze()
            with pytest.raises(Unconfirmed):
                await send(driver, "x", SOON)
            async with watched(driver, sink):
                reason = await sink.wait_lost()
            assert isinstance(reason, TimeoutError)
            assert "nothing came from the peer" in str(reason)
        with pytest.raises(DialTimeout, match="in the time allowed"):
            async with asyncio.timeout(5):
                await MqttDriver(parse_address(address, login), Sink()).open(Deadline(SOON))
        server.thaw()

    on_uvloop(body)


def test_a_link_that_only_reads_stays_alive(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        async with dialled(at(mosquitto, "topic=silence"), pingInterval=1000) as (driver, sink):
            await asyncio.sleep(2.5)  # twice what the broker allows without a ping
            assert sink.losses == []
            assert await send(driver, "x") == 1

    on_uvloop(body)


@pytest.mark.parametrize("theirs", [0, 3600, 65535])
def test_a_keepalive_that_the_broker_sets_does_not_turn_ours_off(theirs: int) -> None:
    def handler(peer: Peer) -> None:
        peer.read()
        peer.send(packet(0x20, b"\0\0\3\x13" + theirs.to_bytes(2, "big")))
        while peer.read():
            pass  # no ping is answered

    async def body() -> None:
        address = f"mqtt://127.0.0.1:{server.port}?write_topic=t&version=5"
        async with dialled(address, pingInterval=1000) as (driver, sink), watched(driver, sink):
            assert "nothing came from the peer" in str(await sink.wait_lost())

    with SocketServer(handler) as server:
        on_uvloop(body)


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (b"\0\x80", "refused the subscription to b: it gives no reason; check the rights"),
        (b"\x87\0", "refused the subscription to a: not authorized"),
        (b"\0", "confirmed 1 of 2 topics"),
        (b"", "confirmed 0 of 2 topics"),
        (b"\0\0\0", "confirmed 3 of 2 topics"),
        (b"\0\x77", "closed the connection"),
    ],
)
@pytest.mark.parametrize("v5", [False, True])
def test_what_a_broker_does_not_confirm_is_not_taken_for_read(
    codes: bytes, says: str, v5: bool
) -> None:
    def handler(peer: Peer) -> None:
        peer.read()
        peer.send(packet(0x20, bytes(2 + v5)))
        number = peer.read()[2:4]
        peer.send(packet(0x90, number + bytes(v5) + codes))
        peer.read()

    async def body() -> None:
        address = f"mqtt://127.0.0.1:{server.port}?topic=a,b&version={'5' if v5 else '3.1.1'}"
        with pytest.raises(DialError, match=says):
            async with dialled(address):
                pass

    if codes[:1] == b"\x87" and not v5:
        return  # no code of MQTT 3.1.1
    with SocketServer(handler) as server:
        on_uvloop(body)


def test_who_takes_the_client_id_ends_our_link(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        address = at(mosquitto, f"topic=t&client_id={mosquitto.unique()}")
        async with dialled(address) as (_, sink), dialled(address):
            await sink.wait_lost()

    on_uvloop(body)


def test_a_broker_that_speaks_mqtt_5_says_why_it_ends_the_link() -> None:
    def handler(peer: Peer) -> None:
        peer.read()
        peer.send(
            b"\x20\x03\x00\x00\x00"
        )  # mosquitto 2.0.11 does not say it, so the packets stand here
        peer.send(b"\xe0\x01\x8e")
        peer.read()

    async def body() -> None:
        async with dialled(f"mqtt://127.0.0.1:{server.port}?write_topic=t&version=5") as (_, sink):
            reason = await sink.wait_lost()
            assert "another client logged in with the same client_id" in str(reason)

    with SocketServer(handler) as server:
        on_uvloop(body)


# opening


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("login", [{}, {"username": "u", "password": "geheim"}])
def test_a_wrong_login_is_fatal_and_shows_no_secret(
    mosquitto: Mosquitto, login: dict[str, str], version: str
) -> None:
    async def body() -> None:
        with pytest.raises(
            FatalError, match="refused the login: not authorized; check the user"
        ) as caught:
            async with dialled(at(mosquitto, f"topic=t&version={version}", "auth"), **login):
                pass
        assert "geheim" not in str(caught.value)

    on_uvloop(body)


def test_a_client_certificate(mosquitto: Mosquitto, certs: Certs) -> None:
    async def body() -> None:
        address = f"mqtts://localhost:{mosquitto.ports['mtls']}?topic={mosquitto.unique()}"
        own = {"certfile": str(certs.client.cert), "keyfile": str(certs.client.key)}
        async with dialled(address, cafile=str(certs.ca), **own) as (driver, sink):
            await send(driver, "x")
            await sink.wait_received(1)
        with pytest.raises(FatalError, match="is not trusted"):
            async with dialled(address, **own):
                pass
        with pytest.raises(DialError):
            async with dialled(address, cafile=str(certs.ca)):
                pass

    on_uvloop(body)


def speaks(text: bytes) -> Callable[[Peer], None]:
    def handler(peer: Peer) -> None:
        peer.send(text)
        peer.read()

    return handler


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-x\r\n", b"INFO {}\r\n", b"HTTP/1.1 400 Bad\r\n\r\n", b"\x00"]
)
def test_another_protocol_on_the_port_is_fatal(greeting: bytes) -> None:
    async def body() -> None:
        with pytest.raises(FatalError, match="does not speak MQTT; check the port and the scheme"):
            async with dialled(f"mqtt://127.0.0.1:{server.port}?topic=t"):
                pass

    with SocketServer(speaks(greeting)) as server:
        on_uvloop(body)


@pytest.mark.parametrize(
    "broken", [b"\x20\x02\x00\x00\x30\x7f", b"\x20\x02\x00\x00\x90\x01\x00", b"\x20\x00"]
)
def test_a_broken_broker_is_an_error(broken: bytes) -> None:
    async def body() -> None:
        with pytest.raises(DialError):
            async with asyncio.timeout(5):
                await MqttDriver(
                    parse_address(f"mqtt://127.0.0.1:{server.port}?topic=t"), Sink()
                ).open(Deadline(1))

    with SocketServer(speaks(broken)) as server:
        on_uvloop(body)


def test_a_silent_server_is_left_at_the_deadline() -> None:
    async def body() -> None:
        driver = MqttDriver(parse_address(f"mqtt://127.0.0.1:{server.port}?topic=t"), Sink())
        with pytest.raises(DialTimeout, match="did not answer the MQTT login in the time allowed"):
            await driver.open(Deadline(SOON))
        await driver.close()

    with SocketServer(deaf) as server:
        on_uvloop(body)


def test_a_server_that_hangs_up_is_said_in_words() -> None:
    async def body() -> None:
        with pytest.raises(
            DialError, match="closed the connection instead of answering the MQTT login"
        ):
            async with dialled(f"mqtt://127.0.0.1:{server.port}?topic=t"):
                pass

    with SocketServer(lambda peer: peer.read() and None) as server:
        on_uvloop(body)


def test_plain_mqtt_to_a_tls_port_and_the_other_way_round(
    mosquitto: Mosquitto, certs: Certs
) -> None:
    async def body() -> None:
        with pytest.raises(DialError, match="check the port"):
            async with dialled(at(mosquitto, "topic=t", "tls")):
                pass
        ca, plain = str(certs.ca), f"127.0.0.1:{mosquitto.port}?topic=t"
        with pytest.raises(DialError, match=r"TLS .*; is this mqtts\? use mqtt:// or the TLS port"):
            async with dialled(f"mqtts://{plain}", cafile=ca):
                pass
        with pytest.raises(
            DialError, match=r"TLS .*; is this wss\+mqtt\? use ws\+mqtt:// or the TLS port"
        ):
            async with dialled(f"wss+mqtt://{plain}", cafile=ca):
                pass
        with pytest.raises(DialError):
            async with dialled(f"ws+mqtt://127.0.0.1:{mosquitto.port}?topic=t"):
                pass

    on_uvloop(body)


def test_the_first_server_that_is_there_is_taken(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        with unused_port() as nobody, unused_port() as nobody_else:
            address = parse_address(
                f"mqtt://127.0.0.1:{nobody},127.0.0.1:{mosquitto.port}?topic={mosquitto.unique()}"
            )
            for _ in range(2):
                async with dialled(address) as (driver, sink):
                    assert driver.peer.endswith(str(mosquitto.port))
                    await send(driver, "x")
                    await sink.wait_received(1)
            with pytest.raises(
                DialError, match=r"refused the connection.*; .*refused the connection"
            ):
                async with dialled(f"mqtt://127.0.0.1:{nobody},127.0.0.1:{nobody_else}?topic=t"):
                    pass

    on_uvloop(body)


def test_through_a_proxy(mosquitto: Mosquitto) -> None:
    async def body() -> None:
        async with dialled(
            f"mqtt://localhost:{mosquitto.port}?topic={mosquitto.unique()}",
            proxy=f"http://127.0.0.1:{proxy.port}",
            local_ip="127.0.0.1",
        ) as (driver, sink):
            await send(driver, "x")
            await sink.wait_received(1)
        assert proxy.asked == [f"localhost:{mosquitto.port}"]

    with HttpProxy() as proxy:
        on_uvloop(body)


def test_a_close_during_open_is_allowed() -> None:
    async def body() -> None:
        driver = MqttDriver(parse_address(f"mqtt://127.0.0.1:{server.port}?topic=t"), Sink())
        opening = asyncio.create_task(driver.open(Deadline(10)))
        await asyncio.to_thread(server.wait_peers, 1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await driver.close()
        await driver.close()

    with SocketServer(deaf) as server:
        on_uvloop(body)


# paho


def test_paho_still_has_what_is_not_public_and_used() -> None:
    """See `mqtt_client`: an update of paho that takes one of these away must be looked at."""
    for name in (
        "_create_socket",
        "_packet_handle",
        "_send_pubrec",
        "_send_pingreq",
        "_mid_generate",
    ):
        assert callable(getattr(paho.Client, name, None)), f"paho has no {name} any more"
        assert name.startswith("_send") or name in vars(Client), (
            f"{name} is not overridden any more"
        )
    client = paho.Client(CallbackAPIVersion.VERSION2)
    assert {"command", "packet", "remaining_length"} <= client._in_packet.keys()
    assert client._last_msg_out <= time.monotonic()
    assert not client._out_packet
    assert client._keepalive == 60
