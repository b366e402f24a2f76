"""NATS messages that nats-py cannot parse: delivered without the part, counted, or the link ends in words.

The publishers and the proxy are ours; a real nats-server stands between or behind them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import nats.aio.client
import nats.errors
import nats.protocol.parser
import pytest
from nats.aio.msg import Msg

from tests.servers.nats import Nats
from tests.support.loops import Run, on_both_loops
from tests.support.nats_damage import HEADER_BLOCKS, RawNats, mutated, with_damaged_headers
from tests.support.sockets import Peer, SocketServer
from tests.support.watching import watched
from tests.unit.drivers.nats.test_nats_driver import Sink, dial
from tests.unit.drivers.nats.test_nats_stream import Stream, opened
from trunkline.actors.drivers.nats.client import GuardedClient
from trunkline.actors.drivers.nats.envelope import delivery_of
from trunkline.actors.drivers.nats.questions import ask
from trunkline.actors.drivers.nats.transport import LinkTransport
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.testing.faultproxy import FaultProxy

pytestmark = on_both_loops
Start = Callable[..., Nats]
GREETING = b'INFO {"server_id":"x","version":"2.9.0","max_payload":1000,"headers":true}\r\n'


@pytest.fixture
def stream(jetstream: Nats) -> Iterator[Stream]:
    made = Stream(jetstream)
    with made.side:
        yield made
        made.side.delete_stream(made.name)


def blocks(count: int) -> list[bytes]:
    chance = random.Random(7)
    whole = b"NATS/1.0\r\ndesk: a\r\nside: buy\r\n\r\n"
    status = b"NATS/1.0 100 Idle Heartbeat\r\ndesk: a\r\n\r\n"
    return [
        *HEADER_BLOCKS,
        *(mutated(chance.choice((whole, status)), chance) for _ in range(count)),
    ]


def test_damaged_headers_stop_nothing(run: Run, nats_server: Nats) -> None:
    async def body() -> None:
        subject, sink = nats_server.unique(), Sink()
        driver = await dial(nats_server, f"topic={subject}", sink)
        every = blocks(300)
        with RawNats(nats_server.port) as publisher:
            for number, block in enumerate(every):
                publisher.publish(subject, b"%d" % number, block)
            publisher.publish(subject, b"whole", b"NATS/1.0\r\ndesk: a\r\n\r\n")
            publisher.flush()
        await sink.until(lambda: sink.losses or len(sink.received) > len(every))
        assert sink.received == [*(b"%d" % number for number in range(len(every))), b"whole"]
        assert sink.deliveries[-1].headers == {"desk": "a"}
        assert any("damaged headers" in text for text in sink.warnings)
        assert sink.losses == []
        await driver.close()

    run(body())


def test_damaged_headers_in_a_stream_stop_nothing(run: Run, stream: Stream) -> None:
    async def body() -> None:
        every = blocks(100)
        with RawNats(stream.server.port) as publisher:
            for number, block in enumerate(every):
                publisher.publish(f"{stream.name}.a", b"%d" % number, block)
            publisher.flush()
        kept = stream.side.info(stream.name).state.messages
        assert kept > len(every) - 5  # a stream refuses what damages its own headers
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        await sink.until(lambda: sink.losses or len(sink.received) == kept)
        numbers = [int(data) for data in sink.received]
        assert numbers == sorted(set(numbers))
        driver.settle([each.token for each in sink.deliveries])
        assert sink.losses == []
        await driver.close()
        assert stream.pending() == 0

    run(body())


@pytest.mark.parametrize("word", [b"\xff\xfe", b"a\x0bb", b"a\x0cb", b"\x00", "\u00fc".encode()])
def test_a_subject_that_is_no_text_stops_nothing(run: Run, nats_server: Nats, word: bytes) -> None:
    async def body() -> None:
        subject, sink = nats_server.unique(), Sink()
        driver = await dial(nats_server, f"topic={subject}.*", sink)
        with RawNats(nats_server.port) as publisher:
            publisher.publish(subject.encode() + b"." + word, b"strange")
            publisher.publish(
                subject.encode() + b"." + word, b"with headers", b"NATS/1.0\r\na: b\r\n\r\n"
            )
            publisher.publish(f"{subject}.b", b"usual")
            publisher.flush()
        await sink.until(lambda: sink.losses or len(sink.received) == 3)
        assert sink.received == [b"strange", b"with headers", b"usual"]
        assert sink.deliveries[0].topic == f"{subject}.{word.decode(errors='replace')}"
        assert sink.losses == []
        await driver.close()

    run(body())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_damaged_on_its_way_all_is_read(run: Run, stream: Stream, seed: int) -> None:
    """The server's own words are headers, too: a request for messages that has expired, say."""

    async def body() -> None:
        chance, count = random.Random(seed), 60
        proxy = with_damaged_headers(stream.server.port, lambda block: mutated(block, chance))
        with SocketServer(proxy) as between, RawNats(stream.server.port) as publisher:
            sink = Sink()
            address = stream.address("topic={name}.a&durable=d", port=between.port, buffer=7)
            driver = await opened(address, sink)
            for number in range(count):
                publisher.publish(
                    f"{stream.name}.a", b"%d" % number, b"NATS/1.0\r\nn: %d\r\n\r\n" % number
                )
            publisher.flush()
            settled = 0
            while settled < count and not sink.losses:
                await sink.until(lambda had=settled: sink.losses or len(sink.received) > had)
                driver.settle([each.token for each in sink.deliveries[settled:]])
                settled = len(sink.deliveries)
            assert [int(data) for data in sink.received] == list(range(count))
            assert (sink.losses, sink.drops) == ([], 0)
            await driver.close()

    run(body())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"-ERR \r\n",
        b"INFO {\r\n",
        b"INFO []\r\n",
        b"PONG?\r\n",
        b"MSG a 1 99999999999999999999x\r\n",
        b"\xff\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_is_not_nats_ends_the_link_in_words(run: Run, rubbish: bytes) -> None:
    async def body() -> None:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def server(peer: Peer) -> None:
            peer.send(GREETING)
            for _ in range(2):  # nats-py's own PING, and ours after the subscription
                peer.read_until(b"PING\r\n")
                peer.send(b"PONG\r\n")
            loop.call_soon_threadsafe(asked.set)
            peer.stopping.wait(0.05)
            peer.send(rubbish)
            while peer.read():
                pass

        sink = Sink()
        with SocketServer(server) as listening:
            driver = await dial(None, f"nats://127.0.0.1:{listening.port}?topic=a", sink)  # type: ignore[arg-type]
            await asked.wait()
            reason = await sink.wait_lost()
            assert "sent what is not NATS" in str(reason), repr(reason)
            await driver.close()

    run(body())


def test_a_peer_that_takes_nothing_and_answers_no_ping_is_a_lost_link(
    run: Run, nats_server: Nats
) -> None:
    """nats-py, closing, waits without an end until the socket has taken what is left."""

    async def body() -> None:
        with FaultProxy(nats_server.port) as proxy:
            sink = Sink()
            url = f"nats://{proxy.address}?topic={nats_server.unique()}"
            driver = await dial(nats_server, url, sink, pingInterval=500)
            assert await driver.send("first", Deadline(5))
            proxy.stall("up")
            proxy.blackhole("down")
            async with watched(driver, sink):
                while await driver.send(b"x" * (1 << 19), Deadline(0.1)) and not sink.losses:
                    pass
                assert "nothing came from the peer" in str(await sink.wait_lost())
            await driver.close()

    run(body())


def test_what_nobody_can_have_delivered_is_counted(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        reader = driver._reader
        assert reader is not None
        bad = (
            "x.S.d.1.1.1.1.0",
            "S.d.1.one.1.1.0",
            "S.d.1.-1.1.1.0",
            f"S.d.1.{'9' * 30}.1.1.0",
            "S.d",
            "",
        )
        for reply in bad:
            # By hand: nats-server lets nobody else write with such a reply subject.
            await reader._receive(
                Msg(reader._client, f"{stream.name}.a", f"$JS.ACK.{reply}", b"damaged")
            )
        stream.fill(1, start=5)
        await sink.until(lambda: sink.losses or sink.received)
        assert (sink.received, sink.losses) == ([b"5"], [])
        assert sink.drops == len(bad)
        assert any("cannot be read" in text for text in sink.warnings)
        await driver.close()

    run(body())


def test_a_job_that_fails_is_no_silence(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        reader = driver._reader
        assert reader is not None

        async def fails() -> None:
            raise RuntimeError("what nobody thought of")

        reader._jobs.run(fails)
        assert "what nobody thought of" in str(await sink.wait_lost())
        await driver.close()

    run(body())


def test_nats_py_still_has_the_names_that_are_guarded(run: Run) -> None:
    for name in ("_process_headers", "_build_message"):
        assert callable(getattr(nats.aio.client.Client, name)), name
    client = nats.aio.client.Client()
    assert isinstance(client._ps, nats.protocol.parser.Parser)
    transport = LinkTransport(
        parse_address("nats://localhost?topic=a", {}), "localhost", 4222, Deadline(1)
    )
    assert isinstance(GuardedClient(print, transport)._ps, nats.protocol.parser.Parser)
    assert delivery_of("$JS.ACK.hub.account.S.d.2.3.4.5.6.random")[:3] == ("S", "d", 2)
    assert delivery_of("$JS.ACK.S.d.2.3.4.5.6")[2:] == (2, 3, 4, 5, 6)


def test_the_end_of_one_attempt_is_not_that_of_the_next(run: Run, nats_server: Nats) -> None:
    """What nats-py does late for the first server does not end the opening at the second one, a slow one."""

    async def body() -> None:
        def ends(peer: Peer) -> None:
            peer.send(GREETING)
            peer.read_until(b"PING\r\n")
            peer.send(b"PONG\r\n")
            peer.reset()

        with SocketServer(ends) as first, FaultProxy(nats_server.port) as second:
            second.slow(latency_s=0.3)
            hosts = f"127.0.0.1:{first.port},{second.address}"
            driver = await dial(
                nats_server, f"nats://{hosts}?topic={nats_server.unique()}", seconds=30
            )
            await driver.close()

    run(body())


def test_a_question_that_is_lost_is_asked_again_and_a_slow_answer_is_taken(run: Run) -> None:
    async def body() -> None:
        client, never = nats.aio.client.Client(), asyncio.Event()
        asked = 0

        async def lost_once(_: object) -> int:
            nonlocal asked
            asked += 1
            if asked == 1:
                await never.wait()
            return asked

        assert await ask(client, lost_once, Deadline(30)) == 2

        async def slow(_: object) -> str:
            nonlocal asked
            asked += 1
            if asked > 3:
                await never.wait()
            while asked < 5:  # noqa: ASYNC110  (asked again meanwhile)
                await asyncio.sleep(0.01)
            return "the first"

        assert await ask(client, slow, Deadline(30)) == "the first"

        async def no_answer(_: object) -> None:
            await never.wait()

        with pytest.raises(nats.errors.TimeoutError):
            await ask(client, no_answer, Deadline(0.1))

    run(body())
