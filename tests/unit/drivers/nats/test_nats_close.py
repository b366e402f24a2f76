"""An orderly end loses nothing: what was acknowledged is not delivered again, what was written arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from tests.servers.nats import Nats
from tests.support.loops import Run, on_both_loops
from tests.support.nats_side import NatsSide
from tests.support.waiting import Background
from tests.unit.drivers.nats.test_nats_driver import Sink, dial, eventually
from tests.unit.drivers.nats.test_nats_stream import Stream, opened
from trunkline.deadline import Deadline
from trunkline.testing.faultproxy import FaultProxy

pytestmark = on_both_loops


@pytest.fixture
def stream(jetstream: Nats) -> Iterator[Stream]:
    made = Stream(jetstream)
    with made.side:
        yield made
        made.side.delete_stream(made.name)


@pytest.mark.parametrize("latency_s", [0.0, 0.3])
def test_what_was_acknowledged_before_close_never_comes_again(
    run: Run, stream: Stream, latency_s: float
) -> None:
    async def body() -> None:
        stream.fill(100)
        with FaultProxy(stream.server.port) as proxy:
            address = stream.address("topic={name}.a&durable=d&ack_wait=60000", port=proxy.port)
            sink = Sink()
            driver = await opened(address, sink)
            await sink.wait_received(100)
            proxy.slow(latency_s=latency_s)
            driver.settle([each.token for each in sink.deliveries[:60]])
            await driver.close()
            proxy.wait_live(0)
        again = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), again)
        await again.wait_received(40)  # given back, and not after ack_wait
        assert [int(data) for data in again.received] == list(range(60, 100))
        await driver.close()

    run(body())


def test_acknowledgements_are_not_cut_off_by_the_end(run: Run, stream: Stream) -> None:
    """Nothing that takes its time at the end, as a server that answers late, costs an acknowledgement."""

    async def body() -> None:
        stream.fill(100)
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        await sink.wait_received(100)
        client, reader = driver._client, driver._reader
        assert client is not None
        assert reader is not None
        publish, gate = client.publish, asyncio.Event()

        async def late(*args: object, **named: object) -> None:
            await gate.wait()
            await publish(*args, **named)  # type: ignore[arg-type]

        client.publish = late  # type: ignore[method-assign]
        finish = reader._finish

        async def finishing(seconds: float) -> None:
            gate.set()  # only now, whatever the machine does meanwhile
            await finish(seconds)

        reader._finish = finishing  # type: ignore[method-assign]
        driver.settle([each.token for each in sink.deliveries[:60]])
        await driver.close()
        # The forty were given back after the sixty had been acknowledged: then none is pending any more.
        await eventually(lambda: stream.side.consumer(stream.name, "d").num_ack_pending == 40)

    run(body())


def test_what_was_under_way_at_the_end_is_given_back(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(50)
        address = stream.address("topic={name}.a&durable=d&ack_wait=60000", buffer=7)
        for _ in range(20):  # each asks for messages, and ends before they are here
            driver = await opened(address, Sink())
            await driver.close()
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        await sink.wait_received(50)
        assert sorted(int(data) for data in sink.received) == list(range(50))
        await driver.close()

    run(body())


@pytest.mark.parametrize("latency_s", [0.0, 0.3])
def test_what_was_written_before_close_arrives(
    run: Run, nats_server: Nats, latency_s: float
) -> None:
    """While the connection itself is flooded: a socket that is closed with something unread is reset."""

    async def body() -> None:
        flood, subject, over = nats_server.unique(), nats_server.unique(), threading.Event()

        def pour() -> None:
            with NatsSide(f"nats://{nats_server.address}") as side:
                while not over.is_set():
                    side.publish(flood, *[b"x" * 1000] * 100)

        pouring = Background(pour)
        try:
            with (
                NatsSide(f"nats://{nats_server.address}") as side,
                FaultProxy(nats_server.port) as proxy,
            ):
                side.watch(subject)
                url = f"nats://{proxy.address}?topic={flood}&write_topic={subject}"
                sent = 0
                for _ in range(5):
                    driver = await dial(nats_server, url, Sink())
                    proxy.slow(latency_s=latency_s)
                    for _ in range(100):
                        assert await driver.send(b"%d" % sent, Deadline(10))
                        sent += 1
                    await driver.close()
                    proxy.heal()
                await eventually(lambda: len(side.seen[subject]) >= sent)
                assert sorted(map(int, side.seen[subject])) == list(range(sent))
        finally:
            over.set()
            pouring.result()

    run(body())
