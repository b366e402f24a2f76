"""The NATS driver on JetStream: acknowledged on consumption, delivered again, resumed, bounded, refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers.nats import Nats
from tests.support.loops import Run, on_both_loops
from tests.support.nats_side import NatsSide
from tests.unit.drivers.nats.test_nats_driver import Sink, eventually, refusal
from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.nats.driver import NatsDriver
from trunkline.address import Address, parse_address
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError, Unconfirmed
from trunkline.testing.faultproxy import FaultProxy

pytestmark = on_both_loops
Start = Callable[..., Nats]


class Stream:
    """A stream of a test's own, and the other side that fills it."""

    def __init__(self, server: Nats, **config: object) -> None:
        self.server = server
        self.name = server.unique("S")
        self.side = NatsSide(f"nats://{server.address}")
        self.side.stream(self.name, f"{self.name}.>", **config)

    def address(self, target: str = "", port: int | None = None, **options: object) -> Address:
        """Reads and writes `<stream>.a`; `{name}` in the target is the stream's name."""
        query = (target or "topic={name}.a").format(name=self.name)
        if "stream=" not in query:
            query += f"&stream={self.name}"
        return parse_address(f"nats://127.0.0.1:{port or self.server.port}?{query}", options)

    def fill(self, count: int, word: str = "a", start: int = 0) -> None:
        self.side.store(f"{self.name}.{word}", *(str(n) for n in range(start, start + count)))

    def pending(self, durable: str = "d") -> int:
        return self.side.consumer(self.name, durable).num_ack_pending or 0


@pytest.fixture
def stream(jetstream: Nats) -> Iterator[Stream]:
    made = Stream(jetstream)
    with made.side:
        yield made
        made.side.delete_stream(made.name)


async def opened(address: Address, sink: Sink) -> NatsDriver:
    driver = NatsDriver(address, sink)
    await driver.open(Deadline(10))
    return driver


def numbers(sink: Sink) -> list[int]:
    return [int(m) for m in sink.received]


# reading


def test_a_message_is_acknowledged_when_it_is_settled(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(3)
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        await sink.wait_received(3)
        assert stream.pending() == 3
        first = sink.deliveries[0]
        assert (first.data, first.topic, first.offset) == (b"0", f"{stream.name}.a", 1)
        assert (first.redelivered, first.headers) == (False, None)
        assert isinstance(first.identity, tuple)
        assert first.identity[:2] == (stream.name, 1)
        assert first.properties == {"stream": stream.name, "consumer": "d", "delivered": 1}
        assert abs((first.timestamp or 0) - time.time()) < 60
        driver.settle([each.token for each in sink.deliveries[:2]])
        await eventually(lambda: stream.pending() == 1)
        await driver.close()
        assert sink.losses == []

    run(body())


def test_what_no_reader_had_comes_again_at_once_in_order(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(50)
        sink, address = Sink(), stream.address("topic={name}.a&durable=d")
        driver = await opened(address, sink)
        await sink.wait_received(50)
        driver.settle([each.token for each in sink.deliveries[:10]])
        await driver.close()  # gives back the other 40
        again = Sink()
        driver = await opened(address, again)
        await again.wait_received(40)
        assert numbers(again) == list(range(10, 50))
        assert all(each.redelivered for each in again.deliveries)
        assert [each.identity for each in again.deliveries] == [
            each.identity for each in sink.deliveries[10:]
        ]
        await driver.close()

    run(body())


def test_a_message_that_waits_for_its_reader_is_not_delivered_again(
    run: Run, stream: Stream
) -> None:
    async def body() -> None:
        stream.fill(2)
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d&ack_wait=300"), sink)
        await sink.wait_received(2)
        await asyncio.sleep(1.2)  # four times the time after which it would come again
        assert numbers(sink) == [0, 1]
        driver.settle([each.token for each in sink.deliveries])
        await eventually(lambda: stream.pending() == 0)
        await driver.close()

    run(body())


def test_what_a_vanished_reader_had_comes_again(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(3)
        with FaultProxy(stream.server.port) as proxy:
            address = stream.address("topic={name}.a&durable=d&ack_wait=500", port=proxy.port)
            sink = Sink()
            driver = await opened(address, sink)
            await sink.wait_received(3)
            proxy.blackhole()  # the server believes in the old link for minutes
            await driver.close()
            proxy.heal()
            again = Sink()
            driver = await opened(address, again)
            await again.wait_received(3)
            assert sorted(numbers(again)) == [0, 1, 2]  # what went to the old link first is later
            assert all(each.redelivered for each in again.deliveries)
            driver.settle([each.token for each in again.deliveries])
            await eventually(lambda: stream.pending() == 0)
            await driver.close()

    run(body())


def test_no_more_is_asked_for_than_the_window_holds(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(300)
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d", buffer=50), sink)
        await sink.wait_received(50)
        read = 0
        while read < 300:
            await sink.until(lambda: len(sink.received) > read)  # noqa: B023
            assert len(sink.received) - read <= 50
            driver.settle([sink.deliveries[read].token])
            read += 1
        assert numbers(sink) == list(range(300))
        await driver.close()

    run(body())


def test_a_pause_is_kept(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d", buffer=10), sink)
        stream.fill(10)
        await sink.wait_received(10)
        driver.pause()
        driver.settle([each.token for each in sink.deliveries])
        stream.fill(10, start=10)
        await eventually(lambda: stream.pending() == 0)
        assert stream.side.consumer(stream.name, "d").num_pending == 10
        driver.resume()
        await sink.wait_received(20)
        assert numbers(sink) == list(range(20))
        await driver.close()

    run(body())


def test_two_readers_share_a_durable_consumer(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sinks = [Sink(), Sink()]
        for target in ("durable=d", "queue=d"):
            address = stream.address("topic={name}.a&" + target, buffer=5)
            sinks[0 if target == "durable=d" else 1].driver = await opened(  # type: ignore[attr-defined]
                address, sinks[0 if target == "durable=d" else 1]
            )
        stream.fill(100)
        settled = 0
        async with asyncio.timeout(10):
            while settled < 100:
                for sink in sinks:
                    batch, sink.deliveries = sink.deliveries, []
                    sink.driver.settle([each.token for each in batch])  # type: ignore[attr-defined]
                    settled += len(batch)
                await asyncio.sleep(0.001)
        assert sorted(numbers(sinks[0]) + numbers(sinks[1])) == list(range(100))
        assert all(sink.received for sink in sinks)
        for sink in sinks:
            await sink.driver.close()  # type: ignore[attr-defined]

    run(body())


# what was acknowledged and comes again


def test_a_server_that_forgot_acknowledgements_sends_nothing_twice(
    run: Run, start_nats: Start
) -> None:
    """Killed, it has lost what its consumers did in the last moments; here, all of it."""
    server = start_nats(jetstream=True)

    async def body() -> None:
        stream = Stream(server)
        with stream.side:
            sink, address = Sink(), stream.address("topic={name}.a&durable=d")
            driver = await opened(address, sink)
            stream.fill(6)
            await sink.wait_received(6)
            driver.settle([each.token for each in sink.deliveries[:4]])
            await eventually(lambda: stream.pending() == 2)
            await asyncio.to_thread(server.kill)
            await sink.wait_lost()
            await driver.close()
            states = list(server.folder.glob("jetstream/**/obs/d/o.dat"))
            assert states
            for state in states:
                state.unlink()
            await asyncio.to_thread(server.start)
            again = Sink()
            driver = await opened(address, again)
            await again.wait_received(2)
            assert numbers(again) == [4, 5]
            # Though the server knows nothing of it, so that they are merged with those still unread.
            assert [each.redelivered for each in again.deliveries] == [True, True]
            assert [each.identity for each in again.deliveries] == [
                each.identity for each in sink.deliveries[4:]
            ]
            assert again.deliveries[0].properties is not None
            assert again.deliveries[0].properties["delivered"] == 1
            await eventually(lambda: stream.pending() == 2)  # the others are acknowledged once more
            driver.settle([each.token for each in again.deliveries])
            await eventually(lambda: stream.pending() == 0)
            stream.fill(1, start=6)
            await again.wait_received(3)
            assert again.deliveries[2].redelivered is False
            await driver.close()

    run(body())


def test_an_acknowledgement_that_was_lost_on_its_way_is_given_again(
    run: Run, stream: Stream
) -> None:
    async def body() -> None:
        stream.fill(3)
        with FaultProxy(stream.server.port) as proxy:
            address, sink = (
                stream.address("topic={name}.a&durable=d&ack_wait=500", port=proxy.port),
                Sink(),
            )
            driver = await opened(address, sink)
            await sink.wait_received(3)
            proxy.blackhole()
            driver.settle([each.token for each in sink.deliveries[:2]])
            await driver.close()
            proxy.heal()
            for _ in range(2):  # a link that had nothing to say forgets nothing
                driver = await opened(address, Sink())
                await driver.close()
            again = Sink()
            driver = await opened(address, again)
            await again.wait_received(1)
            driver.settle([each.token for each in again.deliveries])
            await eventually(lambda: stream.pending() == 0)
            assert numbers(again) == [2]
            await driver.close()

    run(body())


@pytest.mark.parametrize("verdict", ["ack", "reject"])
def test_a_verdict_that_is_late_makes_nothing_come_twice(
    run: Run, stream: Stream, verdict: str
) -> None:
    async def body() -> None:
        stream.fill(3)
        with FaultProxy(stream.server.port) as proxy:
            address, sink = (
                stream.address("topic={name}.a&durable=d&ack_wait=500", port=proxy.port),
                Sink(),
            )
            driver = await opened(address, sink)
            await sink.wait_received(3)
            proxy.blackhole("up")  # as if the server were frozen: it hears of nothing in time
            if verdict == "ack":
                driver.settle([each.token for each in sink.deliveries[:2]])
            else:
                for each in sink.deliveries[:2]:
                    driver.refuse(each.token, "reject", 0.0)
            await eventually(
                lambda: (stream.side.consumer(stream.name, "d").num_redelivered or 0) >= 2
            )
            proxy.heal()
            await eventually(lambda: stream.pending() == 1)
            assert numbers(sink) == [0, 1, 2]
            await driver.close()

    run(body())


@pytest.mark.parametrize("what", ["stream", "consumer"])
def test_what_was_made_anew_is_read_from_its_start(run: Run, stream: Stream, what: str) -> None:
    """Its sequences are those of messages that were read, or they are the same messages, asked for again."""

    async def body() -> None:
        sink, address = Sink(), stream.address("topic={name}.a&durable=d")
        driver = await opened(address, sink)
        stream.fill(3)
        await sink.wait_received(3)
        driver.settle([each.token for each in sink.deliveries])
        await eventually(lambda: stream.pending() == 0)
        await driver.close()
        if what == "stream":
            stream.side.delete_stream(stream.name)
            stream.side.stream(stream.name, f"{stream.name}.>")
            stream.fill(3)
        else:
            made = stream.side.consumer(stream.name, "d").created
            assert made is not None
            await eventually(lambda: datetime.now(UTC) - made > timedelta(seconds=1.1))
            stream.side.delete_consumer(stream.name, "d")
        other = await opened(
            stream.address("topic={name}.a&durable=d", buffer=1), Sink()
        )  # makes it
        await other.close()
        again = Sink()
        driver = await opened(address, again)
        await again.wait_received(3)
        assert sorted(numbers(again)) == [0, 1, 2]
        await driver.close()

    run(body())


# where a consumer starts, and goes on


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("topic={name}.a", []),
        ("topic={name}.a&deliver=all", [0, 1, 2]),
        ("topic={name}.a&durable=d", [0, 1, 2]),
        ("topic={name}.a&durable=d&deliver=new", []),
        ("topic={name}.a&deliver=last", [2]),
        ("topic={name}.*&deliver=last_per_subject", [2, 7]),
        ("deliver=last_per_subject", [2, 7]),
        ("topic={name}.a&deliver=2", [1, 2]),
        ("topic={name}.a&deliver=2020-01-01T00:00:00Z", [0, 1, 2]),
        ("topic={name}.a&deliver=2120-01-01T00:00:00Z", []),
    ],
)
def test_where_a_new_consumer_starts(
    run: Run, stream: Stream, target: str, expected: list[int]
) -> None:
    async def body() -> None:
        stream.fill(3)
        stream.fill(1, "b", 7)
        sink = Sink()
        driver = await opened(stream.address(target), sink)
        if not target.endswith("2120-01-01T00:00:00Z"):
            stream.fill(1, "a", 99)
            expected.append(99)
        await sink.wait_received(len(expected))
        assert numbers(sink) == expected
        await driver.close()
        expected[:] = [n for n in expected if n != 99]

    run(body())


def test_without_a_durable_the_next_link_goes_on_where_the_last_one_ended(
    run: Run, stream: Stream
) -> None:
    async def body() -> None:
        with FaultProxy(stream.server.port) as proxy:
            address = stream.address(port=proxy.port)
            first = Sink()
            driver = await opened(address, first)
            proxy.cut()
            await first.wait_lost()
            await driver.close()
            stream.fill(2)  # nobody is there
            second = Sink()
            driver = await opened(address, second)
            await second.wait_received(2)
            assert [d.token is not None for d in second.deliveries] == [True, True]
            proxy.reset()
            await second.wait_lost()
            await driver.close()
            stream.fill(2, start=2)
            third = Sink()
            driver = await opened(address, third)
            await third.wait_received(2)
            assert (numbers(second), numbers(third)) == ([0, 1], [2, 3])
            await driver.close()
        other = Sink()
        driver = await opened(stream.address(), other)  # another connection begins anew
        stream.fill(1, start=9)
        await other.wait_received(1)
        assert numbers(other) == [9]
        await driver.close()
        await eventually(lambda: not any(c.num_waiting for c in stream.side.consumers(stream.name)))

    run(body())


def test_another_stream_of_the_same_name_is_read_from_its_start(run: Run, stream: Stream) -> None:
    async def body() -> None:
        address, sink = stream.address(), Sink()
        driver = await opened(address, sink)
        stream.fill(5)
        await sink.wait_received(5)
        await driver.close()
        stream.side.delete_stream(stream.name)
        stream.side.stream(stream.name, f"{stream.name}.>")
        stream.fill(2, start=70)
        again = Sink()
        driver = await opened(address, again)
        await again.wait_received(2)
        assert numbers(again) == [70, 71]
        await driver.close()

    run(body())


def test_a_consumer_that_is_deleted(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        nameless = await opened(stream.address(), sink)
        stream.fill(1)
        await sink.wait_received(1)
        stream.side.delete_consumer(stream.name, stream.side.consumers(stream.name)[0].name)
        stream.fill(1, start=1)
        await sink.wait_received(2)  # another one was made, and went on
        assert (numbers(sink), sink.losses) == ([0, 1], [])
        await nameless.close()

        durable, address = Sink(), stream.address("topic={name}.a&durable=d")
        driver = await opened(address, durable)
        await durable.wait_received(2)
        stream.side.delete_consumer(stream.name, "d")
        assert "gone" in str(await durable.wait_lost())
        await driver.close()
        with pytest.raises(FatalError, match="was deleted"):
            await opened(address, Sink())  # what its readers had is not known any more

    run(body())


# writing


def test_a_write_is_acknowledged_by_the_stream(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address(), sink)
        counts = await asyncio.gather(*(driver.send(f"{n:03}", Deadline(10)) for n in range(200)))
        assert counts == [3] * 200
        assert stream.side.info(stream.name).state.messages == 200
        await sink.wait_received(200)
        assert numbers(sink) == list(range(200))  # in the order of the calls
        await driver.close()

    run(body())


def test_a_connection_that_only_writes_reads_nothing(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address("write_topic={name}.a"), sink)
        assert await driver.send("x", Deadline(5)) == 1
        assert stream.side.consumers(stream.name) == []
        await driver.close()

    run(body())


def test_what_a_stream_refuses(run: Run, stream: Stream) -> None:
    async def body() -> None:
        tight = stream.server.unique("tight")
        stream.side.stream(tight, f"{tight}.>", max_msg_size=10, max_msgs=2, discard="new")
        driver = await opened(stream.address(f"stream={tight}&write_topic={tight}.a"), Sink())
        with pytest.raises(RefusedError, match="maximum"):
            await driver.send("x" * 11, Deadline(5))
        for _ in range(2):
            assert await driver.send("x", Deadline(5)) == 1
        with pytest.raises(RefusedError, match="maximum messages") as caught:
            await driver.send("x", Deadline(5))
        assert caught.value.code
        await driver.close()
        driver = await opened(stream.address("write_topic=nobody.wants.this"), Sink())
        with pytest.raises(RefusedError, match="takes no messages on nobody"):
            await driver.send("x", Deadline(5))
        await driver.close()
        driver = await opened(stream.address(f"write_topic={tight}.a"), Sink())
        with pytest.raises(RefusedError, match="takes no messages"):  # it would land in another one
            await driver.send("x", Deadline(5))
        await driver.close()
        stream.side.delete_stream(tight)

    run(body())


def test_a_write_that_nobody_confirms(run: Run, stream: Stream) -> None:
    async def body() -> None:
        with FaultProxy(stream.server.port) as proxy:
            driver = await opened(stream.address("write_topic={name}.a", port=proxy.port), Sink())
            assert await driver.send("x", Deadline(5)) == 1
            proxy.stall("down")
            with pytest.raises(Unconfirmed, match="may have"):
                await driver.send("y", Deadline(0.2))
            proxy.heal()
            assert await driver.send("z", Deadline(5)) == 1
            writing = asyncio.ensure_future(driver.send("w", Deadline(20)))
            proxy.blackhole("down")
            writing = asyncio.ensure_future(driver.send("v", Deadline(20)))
            await asyncio.sleep(0)
            proxy.cut()
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(5):
                    await writing
            await driver.close()

    run(body())


# refusals


def test_what_cannot_be_read(run: Run, stream: Stream, nats_server: Nats) -> None:
    name = stream.name

    async def body() -> None:
        stream.side.add_consumer(
            name, durable_name="push", deliver_subject="x", filter_subject=f"{name}.a"
        )
        stream.side.add_consumer(name, durable_name="other", filter_subject=f"{name}.b")
        base = f"nats://{stream.server.address}?stream="
        for target, words in (
            (
                "nothere&topic=x.>",
                "there is no stream nothere; create it: nats stream add nothere --subjects 'x.>'",
            ),
            (f"{name}&topic=elsewhere", "cannot be read by topic=elsewhere"),
            (f"{name}&topic={name}.a&durable=push", "push consumer"),
            (
                f"{name}&topic={name}.a&durable=other",
                f"durable=other reads {name}.b and not topic={name}.a",
            ),
        ):
            error = await refusal(base + target)
            assert isinstance(error, FatalError), error
            assert words in str(error)
        error = await refusal(f"nats://{nats_server.address}?stream=S&topic=a")
        assert isinstance(error, FatalError)
        assert "no JetStream" in str(error)

    run(body())


def test_a_consumer_of_others_is_used_as_it_is(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(3)
        stream.side.add_consumer(
            stream.name,
            durable_name="d",
            filter_subject=f"{stream.name}.a",
            ack_policy="explicit",
            ack_wait=7,
        )
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d&ack_wait=1000"), sink)
        await sink.wait_received(3)
        assert "ack_wait=7000" in sink.warnings[0]
        driver.settle([each.token for each in sink.deliveries])
        await eventually(lambda: stream.pending() == 0)
        await driver.close()

    run(body())


def test_the_words_of_a_delivery_are_those_that_nats_py_reads(run: Run, stream: Stream) -> None:
    async def body() -> None:
        stream.fill(1)
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        await sink.wait_received(1)
        assert driver._reader is not None
        ours, theirs = sink.deliveries[0], driver._reader._held.all()[0].msg.metadata
        assert ours.offset == theirs.sequence.stream
        assert ours.properties == {
            "stream": theirs.stream,
            "consumer": theirs.consumer,
            "delivered": 1,
        }
        assert abs((ours.timestamp or 0) - theirs.timestamp.timestamp()) < 1e-3
        await driver.close()

    run(body())


def test_what_others_send_to_the_inbox_is_no_message(run: Run, stream: Stream) -> None:
    async def body() -> None:
        sink = Sink()
        driver = await opened(stream.address("topic={name}.a&durable=d"), sink)
        assert driver._reader is not None
        stream.side.publish(f"{driver._reader._pulls.inbox}.1", "intruder", reply="not.an.ack")
        stream.fill(1, start=5)
        await sink.wait_received(1)
        assert (numbers(sink), sink.losses) == ([5], [])
        await driver.close()

    run(body())


# never open and silent


@pytest.mark.parametrize("durable", [False, True])
def test_a_consumer_that_goes_while_no_request_waits_is_missed(
    run: Run, stream: Stream, durable: bool
) -> None:
    async def body() -> None:
        stream.fill(20)
        how = "durable=d" if durable else "deliver=all"
        sink = Sink()
        driver = await opened(stream.address(f"topic={{name}}.a&{how}", buffer=5), sink)
        await sink.wait_received(5)
        await eventually(lambda: driver.lag() == 20)
        # The buffer is full, so that no request waits at the server, which could be refused.
        (consumer,) = stream.side.consumers(stream.name)
        stream.side.delete_consumer(stream.name, consumer.name)
        driver.settle([each.token for each in sink.deliveries])
        if durable:
            assert "durable consumer d is gone" in str(await sink.wait_lost())
        else:
            while len(sink.received) < 20:
                count = len(sink.received)
                await sink.wait_received(count + 1)
                driver.settle([each.token for each in sink.deliveries[count:]])
            assert numbers(sink) == list(range(20))
            assert sink.losses == []
        await driver.close()

    run(body())


def test_a_stream_made_anew_under_a_full_buffer_is_not_taken_for_the_former(
    run: Run, stream: Stream
) -> None:
    """Its numbers are those of messages that wait here; no request waits that would be refused."""

    async def body() -> None:
        stream.fill(3)
        sink, address = Sink(), stream.address("topic={name}.a&durable=d", buffer=3)
        driver = await opened(address, sink)
        await sink.wait_received(3)
        stream.side.delete_stream(stream.name)
        stream.side.stream(stream.name, f"{stream.name}.>")
        stream.side.add_consumer(
            stream.name, durable_name="d", filter_subject=f"{stream.name}.a", ack_policy="explicit"
        )
        stream.fill(3, start=10)
        driver.settle([sink.deliveries[2].token])  # room for one: number 1, which is here already
        assert "made anew" in str(await sink.wait_lost())
        await driver.close()
        again = Sink()
        driver = await opened(address, again)
        await again.wait_received(3)
        assert sorted(numbers(again)) == [10, 11, 12]
        await driver.close()

    run(body())


def test_limits_of_a_consumer_on_requests_are_kept(run: Run, stream: Stream) -> None:
    async def body() -> None:
        config = {
            "durable_name": "d", "ack_policy": "explicit", "max_batch": 3, "max_expires": int(5e8)
        }  # fmt: skip
        stream.side.create_consumer(stream.name, config)
        sink = Sink()
        driver = await opened(stream.address("stream={name}&durable=d"), sink)
        await asyncio.sleep(1.2)  # longer than a request may wait
        stream.fill(10)
        await sink.wait_received(10)
        assert numbers(sink) == list(range(10))
        assert sink.warnings == []
        await driver.close()

    run(body())


@pytest.mark.parametrize("target", ["stream={name}&deliver=all", "stream={name}&durable=d"])
def test_what_the_stream_threw_away_unread_is_counted(
    run: Run, jetstream: Nats, target: str
) -> None:
    async def body() -> None:
        made = Stream(jetstream, max_msgs=10, discard="old")
        with made.side:
            sink = Sink()
            driver = await opened(made.address(target, buffer=3), sink)
            made.fill(50)
            await sink.wait_received(3)
            while numbers(sink)[-1] != 49:
                count = len(sink.received)
                driver.settle([each.token for each in sink.deliveries[max(0, count - 3) : count]])
                await sink.wait_received(count + 1)
            assert len(sink.received) + sink.drops == 50
            assert sink.drops >= 30
            await driver.close()
            made.side.delete_stream(made.name)

    run(body())
