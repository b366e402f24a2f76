"""Both WebSocket engines on both loops against real servers: messages, closing, loss, full links, pings."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import zlib
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tests.support.certs import Certs
from tests.support.recorder import some_turns
from tests.support.servers import (
    INVALID_UTF8_FRAME,
    OVERSIZE_FRAME,
    WsServer,
    close_with,
    drop_after,
    echo_messages,
    feed,
    hold,
    raw,
)
from tests.support.sockets import Peer, SocketServer
from tests.support.websocket_peer import silent_after, upgrade
from tests.support.wsdrivers import Engine, on_every_engine
from trunkline.actors.driver import Overflow, PeerClosed
from trunkline.actors.drivers.ws.driver import WsDriver, choose_engine
from trunkline.actors.net import tls
from trunkline.deadline import Deadline
from trunkline.testing.faultproxy import FaultProxy

pytestmark = on_every_engine


def test_messages_keep_their_kind_and_order(ws: Engine) -> None:
    sent: list[str | bytes] = ["grüße", b"\x00\xff", "", b"", "x" * 70_000, b"y" * 200_000]

    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        for message in sent:
            size = len(message.encode() if isinstance(message, str) else message)
            assert await driver.send(message, Deadline(5)) == size
        assert await sink.wait_received(len(sent)) == sent
        await driver.close()
        await driver.close()
        assert sink.losses == []
        with pytest.raises(OSError, match="gone"):
            await driver.send("late", Deadline(5))

    with WsServer(echo_messages) as server:
        ws.run(body())
        assert server.received == sent


def test_a_feed_comes_whole_and_in_batches(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        await sink.wait_received(5000)
        assert sink.received == [str(number) for number in range(5000)]
        await driver.close()

    with WsServer(feed(5000)) as server:
        ws.run(body())


def test_many_messages_in_one_read_come_as_one_batch(ws: Engine) -> None:
    def burst(peer: Peer) -> None:
        upgrade(peer)
        peer.send(b"\x81\x01a" * 100)
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        await sink.wait_received(100)
        assert sink.received == ["a"] * 100
        assert len(sink.batches) <= 3
        await driver.close()

    with SocketServer(burst) as server:
        ws.run(body())


def test_fragments_are_put_together(ws: Engine) -> None:
    def fragments(connection: ServerConnection) -> None:
        connection.send(["grü", "ße", ""])
        connection.send([b"a", b"b"])
        hold(connection)

    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        assert await sink.wait_received(2) == ["grüße", b"ab"]
        await driver.close()

    with WsServer(fragments) as server:
        ws.run(body())


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "restart")])
def test_a_good_close_says_code_and_reason_too(ws: Engine, code: int, reason: str) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        lost = await sink.wait_lost()
        assert isinstance(lost, PeerClosed)
        assert (lost.code, lost.reason) == (code, reason)
        assert sink.received == ["last", b"words"]
        with pytest.raises(OSError, match=f"closed by the peer: {code}"):
            await driver.send("x", Deadline(5))
        await driver.close()

    with WsServer(close_with(code, reason, after=["last", b"words"])) as server:
        ws.run(body())


def test_a_close_with_an_error_code_says_code_and_reason(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        assert str(await sink.wait_lost()) == "closed by the peer: 4001 bye"
        await driver.close()

    with WsServer(close_with(4001, "bye")) as server:
        ws.run(body())


def test_what_comes_behind_the_answer_in_tls_records_of_its_own_is_whole(
    ws: Engine, certs: Certs
) -> None:
    """asyncio's TLS puts such records one behind the other into the buffer that it is given."""

    def burst(peer: Peer) -> None:
        upgrade(peer)
        for text in (b"one", b"two", b"three"):
            peer.send(b"\x81" + bytes([len(text)]) + text)
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"wss://127.0.0.1:{server.port}", cafile=str(certs.ca))
        assert await sink.wait_received(3) == ["one", "two", "three"]
        await driver.close()

    with SocketServer(burst, tls=certs.server_context()) as server:
        ws.run(body())


CLOSES = {
    "no utf-8": (4001, b"bad k\xe9y!", 1007, "4001 bad k\ufffdy!"),
    "cut inside a character": (4001, b"no\xe2\x82", 1007, "4001 no\ufffd"),
    "code that is reserved": (1005, b"bye", 1002, "1005 bye"),
    "code out of range": (5000, b"bye", 1002, "5000 bye"),
    "code 0": (0, b"bye", 1002, "0 bye"),
}


@pytest.mark.parametrize("which", CLOSES)
def test_what_a_close_frame_says_is_told_also_where_it_may_not_be_said_so(
    ws: Engine, which: str
) -> None:
    """picows tells only one of the two, code or reason, of what it refuses itself."""
    number, words, answer, said = CLOSES[which]
    payload = number.to_bytes(2, "big") + words
    answers: list[bytes] = []

    def leave(peer: Peer) -> None:
        upgrade(peer)
        peer.send(b"\x81\x02ok\x88" + bytes([len(payload)]) + payload)
        answers.append(peer.read())

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        lost = await sink.wait_lost()
        assert isinstance(lost, PeerClosed)
        code, _, reason = said.partition(" ")
        expected = {said, code, reason} if ws.name == "picows" else {said}
        assert str(lost).removeprefix("closed by the peer: ") in expected
        assert sink.received == ["ok"]
        await driver.close()

    with SocketServer(leave) as server:
        ws.run(body())
    head, mask, code = answers[0][:1], answers[0][2:6], answers[0][6:8]
    assert head == b"\x88"
    assert bytes(a ^ b for a, b in zip(code, mask, strict=False)) == answer.to_bytes(2, "big")


@pytest.mark.parametrize(
    "frames",
    [
        b"\x82\x7e\x03\xe9" + bytes(1001),
        b"\x02\x7d" + bytes(125) + b"\x80\x7e\x03\x84" + bytes(900),
    ],
)
def test_a_message_that_is_too_big_is_no_broken_protocol(ws: Engine, frames: bytes) -> None:
    def send(peer: Peer) -> None:
        upgrade(peer)
        peer.send(frames)
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}", max_size=1000)
        words = (
            "the peer sent a message of more than 1000 bytes (option max_size) (closed with 1009)"
        )
        assert str(await sink.wait_lost()) == words
        await driver.close()

    with SocketServer(send) as server:
        ws.run(body())


@pytest.mark.parametrize(
    "junk", [b"\x17\x03\x03\x00\x20" + bytes(32), b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
def test_tls_that_breaks_is_named(ws: Engine, certs: Certs, junk: bytes) -> None:
    """A record that cannot be decrypted, and plain text where TLS should go on."""
    leave = threading.Event()

    def damage(peer: Peer) -> None:
        upgrade(peer)
        peer.send(b"\x81\x02ok")
        assert leave.wait(10)
        os.write(peer.sock.fileno(), junk)
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"wss://127.0.0.1:{server.port}", cafile=str(certs.ca))
        await sink.wait_received(1)
        leave.set()
        assert str(tls.lost(await sink.wait_lost())).startswith("TLS failed: ")
        await driver.close()

    with SocketServer(damage, tls=certs.server_context()) as server:
        ws.run(body())


GOODBYE = b"\x88\x0a\x0f\xa1bad key!"


@pytest.mark.parametrize("after", [GOODBYE, b"\x83\x00", b"\x81\x02\xff\xff", b"", None])
def test_what_follows_a_close_frame_does_not_hide_its_words(
    ws: Engine, after: bytes | None
) -> None:
    """Another close frame, a broken frame, a reset."""

    def handler(peer: Peer) -> None:
        upgrade(peer)
        peer.send(GOODBYE)
        if after is None:
            peer.read(1)
            peer.reset()
        else:
            peer.read()
            peer.send(after)

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        lost = await sink.wait_lost()
        assert isinstance(lost, PeerClosed)
        assert (lost.code, lost.reason) == (4001, "bad key!")
        await driver.close()

    with SocketServer(handler) as server:
        ws.run(body())


def test_our_close_is_a_handshake(ws: Engine) -> None:
    codes: list[int | None] = []

    def note(connection: ServerConnection) -> None:
        hold(connection)
        codes.append(connection.close_code)

    async def body() -> None:
        _, driver = await ws.dial(server.url)
        await driver.close()

    with WsServer(note) as server:
        ws.run(body())
        server.wait_live(0)
    assert codes == [1000]


def test_our_close_ends_even_if_the_peer_ignores_it(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        async with asyncio.timeout(8):
            await driver.close()
        assert sink.losses == []

    with SocketServer(silent_after(b"")) as server:
        ws.run(body())


def test_a_link_lost_without_a_close_is_an_error(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        assert isinstance(await sink.wait_lost(), ConnectionError)
        assert sink.received == ["one", "two"]
        await driver.close()

    with WsServer(drop_after("one", "two")) as server:
        ws.run(body())


def test_a_reset_and_a_slicing_network(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{proxy.port}")
        await sink.wait_received(200)
        assert sink.received == [f"{number:0200d}" for number in range(200)]
        await asyncio.to_thread(proxy.reset)
        assert isinstance(await sink.wait_lost(), ConnectionError)
        await driver.close()

    with WsServer(feed(200, "{:0200d}")) as server, FaultProxy(server.port) as proxy:
        proxy.slice(7, "down")
        ws.run(body())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (INVALID_UTF8_FRAME, 1007),
        (OVERSIZE_FRAME, 1009),
        (b"\xc1\x01a", 1002),
        (b"\x83\x00", 1002),
        (b"\x81\x81abcde", 1002),
        (b"\x09\x00", 1002),
    ],
    ids=["not utf-8", "a terabyte", "reserved bit", "unknown opcode", "masked", "fragmented ping"],
)
def test_a_peer_that_breaks_the_rules_is_told_and_lost(ws: Engine, data: bytes, code: int) -> None:
    told: list[int | None] = []

    def misbehave(connection: ServerConnection) -> None:
        connection.send("fine so far")
        raw(data)(connection)
        told.append(connection.close_code)

    async def body() -> None:
        sink, driver = await ws.dial(server.url, decode="text")
        reason = await sink.wait_lost()
        assert isinstance(reason, ConnectionError)
        assert f"closed with {code}" in str(reason)
        assert sink.received == ["fine so far"]
        await driver.close()

    with WsServer(misbehave) as server:
        ws.run(body())
        server.wait_live(0)
    assert told == [code]


def test_text_that_is_not_utf8_comes_as_bytes(ws: Engine) -> None:
    def latin(peer: Peer) -> None:
        upgrade(peer)
        peer.send(b"\x81\x04caf\xe9" + b"\x01\x01\xff\x80\x01\xfe" + b"\x81\x02ok")
        peer.read()

    async def body() -> None:
        for decode in ("auto", "bytes"):
            sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}", decode=decode)
            assert await sink.wait_received(3) == [b"caf\xe9", b"\xff\xfe", "ok"]
            assert sink.losses == []
            await driver.close()

    with SocketServer(latin) as server:
        ws.run(body())


def test_of_many_pings_that_cannot_be_answered_the_newest_is(ws: Engine) -> None:
    """The peer reads nothing while it pings; our answers must not pile up, nor those to its first pings."""
    count, answers = 60_000, []

    def flood(peer: Peer) -> None:
        upgrade(peer)
        pings = [b"\x89\x78" + b"%0120d" % number for number in range(count)]
        for start in range(0, count, 500):
            peer.send(b"".join(pings[start : start + 500]))
        peer.send(b"\x81\x04done")
        flooded.wait(30)
        while not answers or int(answers[-1]) < count - 1:
            head = peer.read_exactly(6)
            assert head[:2] == b"\x8a\xf8"
            answers.append(bytes(c ^ head[2 + n % 4] for n, c in enumerate(peer.read_exactly(120))))
        peer.send(b"\x81\x02ok")
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        await sink.wait_received(1)
        flooded.set()
        assert await sink.wait_received(2) == ["done", "ok"]
        await driver.close()

    flooded = threading.Event()
    with SocketServer(flood) as server:
        ws.run(body())
    assert len(answers) < count


def test_max_size_holds_for_the_sum_of_fragments(ws: Engine) -> None:
    def big(connection: ServerConnection) -> None:
        connection.send(b"x" * 1000)
        connection.send([b"x" * 600, b"x" * 600])
        hold(connection)

    async def body() -> None:
        sink, driver = await ws.dial(server.url, max_size=1000)
        assert "1009" in str(await sink.wait_lost())
        assert sink.received == [b"x" * 1000]
        await driver.close()

    with WsServer(big) as server:
        ws.run(body())


def test_a_ping_of_the_peer_is_answered(ws: Engine) -> None:
    def pinger(connection: ServerConnection) -> None:
        assert connection.ping(b"42").wait(10)
        connection.send("answered")
        hold(connection)

    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        assert await sink.wait_received(1) == ["answered"]
        await driver.close()

    with WsServer(pinger) as server:
        ws.run(body())


def test_our_pings_are_answered_and_the_link_goes_on(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        for number in range(5):
            await driver.ping()
            await driver.send(str(number), Deadline(5))
            await sink.wait_received(number + 1)
        assert sink.losses == []
        await driver.close()

    with WsServer(echo_messages) as server:
        ws.run(body())


def test_a_peer_that_sends_but_never_answers_pings_is_alive(ws: Engine) -> None:
    def deaf_to_pings(peer: Peer) -> None:
        upgrade(peer)
        while peer.read():
            peer.send(b"\x81\x01a")

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
        for number in range(5):
            await driver.ping()
            await sink.wait_received(number + 1)
        assert sink.losses == []
        await driver.close()

    with SocketServer(deaf_to_pings) as server:
        ws.run(body())


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_a_full_link_takes_nothing_by_the_deadline(ws: Engine, certs: Certs, secure: bool) -> None:
    """Or, by the engine that writes by itself, half a message: then the link is broken off."""
    context = certs.server_context() if secure else None
    options: dict[str, object] = {"insecureSkipVerify": True} if secure else {}

    async def body() -> None:
        address = f"{'wss' if secure else 'ws'}://127.0.0.1:{server.port}"
        sink, driver = await ws.dial(address, **options)
        try:
            # On a busy machine a deadline may be over before the link is full: the short one tells.
            while await driver.send(b"x" * 20_000, Deadline(0.1)) or await driver.send(
                "x", Deadline(0.05)
            ):
                pass
        except ConnectionError:
            assert ws.name == "websocket-client"
            assert "only half a message" in str(await sink.wait_lost())
        else:
            assert await driver.send("x", Deadline(0)) == 0
            assert sink.losses == []
        await driver.close()

    with SocketServer(silent_after(b""), tls=context) as server:
        ws.run(body())


def test_an_answer_that_waits_for_its_turn_may_find_the_link_gone(ws: Engine) -> None:
    """The pong waits for the write before it; nobody looks at what becomes of it."""
    faults: list[dict[str, Any]] = []

    def ping_and_leave(peer: Peer) -> None:
        upgrade(peer)
        peer.send(b"\x81\x02ok\x89\x00")

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        for _ in range(100):
            sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")
            writes = [asyncio.create_task(driver.send("x", Deadline(5))) for _ in range(5)]
            await sink.wait_lost()
            await asyncio.gather(*writes, return_exceptions=True)
            await driver.close()
        gc.collect()  # it is then that a task whose exception nobody has seen tells of it
        await some_turns()

    with SocketServer(ping_and_leave) as server:
        ws.run(body())
    assert faults == []


def test_a_waiting_write_ends_when_the_link_does(ws: Engine) -> None:
    async def body() -> None:
        _, driver = await ws.dial(f"ws://127.0.0.1:{server.port}")

        async def fill() -> None:
            while await driver.send(b"x" * 1_000_000, Deadline(30)):
                pass

        filling = asyncio.create_task(fill())
        await some_turns()
        server.wait_peers(1)[0].close()
        with pytest.raises(OSError, match="gone"):
            await filling
        await driver.close()

    with SocketServer(silent_after(b"")) as server:
        ws.run(body())


def test_concurrent_writes_do_not_mix(ws: Engine) -> None:
    messages = [str(number) * 50_000 for number in range(8)]

    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        await asyncio.gather(*(driver.send(message, Deadline(10)) for message in messages))
        await sink.wait_received(len(messages))
        assert sorted(map(str, sink.received)) == sorted(messages)
        await driver.close()

    with WsServer(echo_messages) as server:
        ws.run(body())


BATCH = 512
"""Messages that a driver hands over at once, at most."""


def test_a_paused_driver_stops_reading(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(server.url)
        driver.pause()
        before = len(sink.received)
        for _ in range(5):
            await some_turns()
            # a thread that reads hands over what it has before it pauses
            assert len(sink.received) <= before + BATCH
        driver.resume()
        await sink.wait_received(3000)
        await driver.close()

    with WsServer(feed(3000, "{:01000d}")) as server:
        ws.run(body())


def test_permessage_deflate_where_the_engine_has_it(ws: Engine) -> None:
    offers: list[str | None] = []

    def note(connection: ServerConnection) -> None:
        assert connection.request
        offers.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        echo_messages(connection)

    async def body() -> None:
        sink, driver = await ws.dial(server.url, enableCompression=True)
        for message in ("abc" * 1000, b"\xff" * 1000, "abc" * 1000):
            await driver.send(message, Deadline(5))
        assert await sink.wait_received(3) == ["abc" * 1000, b"\xff" * 1000, "abc" * 1000]
        warned = any("enableCompression needs picows" in text for text in sink.warnings)
        assert warned is (ws.name == "websocket-client")
        await driver.close()

    with WsServer(note, compression="deflate") as server:
        ws.run(body())
    assert bool(offers[0]) is (ws.name == "picows")


def test_a_compressed_bomb_is_refused(ws: Engine) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)

    def explode(peer: Peer) -> None:
        upgrade(peer, "Sec-WebSocket-Extensions: permessage-deflate" if ws.name == "picows" else "")
        peer.send(b"\xc2\x7e" + len(bomb[:-4]).to_bytes(2, "big") + bomb[:-4])
        peer.read()

    async def body() -> None:
        sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}", enableCompression=True)
        assert ("1009" if ws.name == "picows" else "1002") in str(await sink.wait_lost())
        assert sink.received == []
        await driver.close()

    with SocketServer(explode) as server:
        ws.run(body())


def test_what_the_driver_declares(ws: Engine) -> None:
    assert WsDriver.overflow is Overflow.DROP_OLDEST
    assert not WsDriver.lost_is_none
    assert not WsDriver.byte_stream
    assert choose_engine(ws.name) == ws.name
    assert choose_engine() == "picows"
