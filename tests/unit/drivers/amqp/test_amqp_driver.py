"""The amqp driver against RabbitMQ: declaring, envelopes, acknowledgements, confirms, ends, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import pika
import pytest

from tests.servers.rabbitmq import RabbitMq
from tests.support.amqp_tables import item, nested, random_items
from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy
from tests.support.loops import Run, on_both_loops
from tests.support.rabbit import Rabbit, answering, rabbit_url
from tests.support.recorder import Recorder, opened
from tests.support.sockets import SocketServer
from trunkline.actors.driver import Delivery, FatalError
from trunkline.actors.drivers.amqp.driver import AmqpDriver
from trunkline.actors.drivers.amqp.plan import make_plan
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout, OperationTimeout, RefusedError, Unconfirmed
from trunkline.testing.faultproxy import FaultProxy

Job = Callable[[], Any]


class Taken(Recorder):
    """A sink for messages with envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries: list[Delivery] = []

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.deliveries.extend(batch)
        self.messages([each.data for each in batch])

    @property
    def tokens(self) -> list[int]:
        return [each.token for each in self.deliveries]


async def dialed(url: str, sink: Taken | None = None, **options: object) -> AmqpDriver:
    driver = await opened(AmqpDriver, url, sink or Taken(), **options)
    assert isinstance(driver, AmqpDriver)
    return driver


async def refused(url: str, seconds: float = 10.0, **options: object) -> Exception:
    """Why it could not be opened."""
    driver = AmqpDriver(parse_address(url, options), Taken())
    try:
        await driver.open(Deadline(seconds))
    except Exception as error:
        return error
    finally:
        await driver.close()
        await driver.close()
    raise AssertionError("it was opened")


@pytest.fixture
def rabbit(rabbitmq: RabbitMq) -> Iterator[Rabbit]:
    with Rabbit(rabbitmq) as client:
        yield client


@pytest.fixture
def queue(rabbit: Rabbit, rabbitmq: RabbitMq) -> Iterator[str]:
    """A name; the queue is deleted at the end where it came to be."""
    name = rabbitmq.unique("q")
    yield name
    rabbit.delete(name)


# reading and writing


@on_both_loops
def test_a_queue_is_declared_read_and_written(run: Run, rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        assert await driver.send("grüße", Deadline(5)) == 7
        assert await driver.send(b"\x00\xff", Deadline(5)) == 2
        assert await driver.send("", Deadline(5)) == 0
        await sink.wait_received(3)
        assert sink.received == ["grüße".encode(), b"\x00\xff", b""]
        assert sink.tokens == [1, 2, 3]
        driver.settle(sink.tokens)
        await driver.close()
        await driver.close()
        assert sink.losses == []
        with pytest.raises(OSError, match="closed by us"):
            await driver.send("late", Deadline(5))

    run(body())


def test_the_envelope_is_what_the_writer_gave(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    headers = {
        "text": "hé",
        "count": -5,
        "yes": True,
        "none": None,
        "at": at,
        "list": [1, "x"],
        "in": {"a": b"\xff"},
    }
    properties = {
        "message_id": "m1",
        "content_type": "text/plain",
        "correlation_id": "c1",
        "type": "tick",
        "app_id": "a",
        "expiration": "60000",
        "priority": 3,
        "delivery_mode": 1,
    }

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        rabbit.send(
            queue, "x", headers=headers, reply_to="back", timestamp=1_700_000_000, **properties
        )
        rabbit.send(queue, "y")
        await sink.wait_received(2)
        first, second = sink.deliveries
        assert (first.topic, first.reply_to, first.timestamp) == (queue, "back", 1_700_000_000.0)
        assert first.headers == headers
        assert first.properties == properties
        assert (first.offset, second.offset, first.redelivered) == (1, 2, False)
        assert (second.headers, second.timestamp, second.properties) == (None, None, None)
        await driver.close()

    asyncio.run(body())


def test_messages_with_odd_headers_are_delivered_like_others(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    """What RabbitMQ passes on, and pika cannot read: it used to end the link at each delivery."""
    random = Random(9)
    tables = [random_items(random) for _ in range(300)]
    tables += [item(b"deep", nested(20_000)), item(b"deep", nested(15_000, b"F"))]

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        for number, table in enumerate(tables):
            rabbit.send_raw(queue, str(number), table)
        await sink.wait_received(len(tables))
        assert sink.received == [str(number).encode() for number in range(len(tables))]
        assert sink.losses == []
        assert [each for each in sink.deliveries if each.headers], "some have headers"
        left_out = "headers of a message could not be read and were left out"
        assert sink.warnings == [f"{left_out}: 'deep'", f"{left_out}: ''"]
        driver.settle(sink.tokens)
        await driver.close()

    asyncio.run(body())
    assert rabbit.ready(queue) == 0


def test_what_is_written_has_headers_and_lasts(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        for number, extra in enumerate(("", "&persistent=false")):
            url = rabbit_url(rabbitmq, f"write_topic={rabbit.queue(queue)}{extra}")
            driver = await dialed(url, headers={"desk": "a", "n": number + 0.5})
            assert await driver.send("x", Deadline(5)) == 1
            await driver.close()

    asyncio.run(body())
    first, second = rabbit.take(queue)[0], rabbit.take(queue)[0]
    assert (first.headers, first.delivery_mode) == ({"desk": "a", "n": "0.5"}, 2)
    assert (second.headers, second.delivery_mode) == ({"desk": "a", "n": "1.5"}, None)


@pytest.mark.parametrize(
    "properties", [{}, {"durable": True, "arguments": {"x-max-length": 5}}, {"auto_delete": True}]
)
def test_a_queue_that_is_there_is_used_as_it_is(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str, properties: dict[str, Any]
) -> None:
    rabbit.queue(queue, **properties)

    async def body() -> None:
        for flags in ("", "&durable=false", "&auto_delete=true", "&exclusive=true"):
            sink = Taken()
            driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}{flags}"), sink)
            assert await driver.send("x", Deadline(5)) == 1
            await sink.wait_received(1)
            driver.settle(sink.tokens)
            await driver.close()
            if properties.get("auto_delete"):
                return  # it has gone with its reader

    asyncio.run(body())


def test_what_is_declared_has_the_properties_asked_for(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        for flags, properties in (
            ("", {"durable": True}),
            ("&durable=false", {}),
            ("&auto_delete=true", {"durable": True, "auto_delete": True}),
        ):
            driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}{flags}"))
            rabbit.queue(queue, **properties)  # refused if it were declared otherwise
            await driver.close()
            rabbit.delete(queue)

    asyncio.run(body())


def test_arguments_reach_the_broker_in_their_types(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    asked = (
        "x-queue-type=quorum&x-message-ttl=60000&x-dead-letter-exchange=amq.fanout"
        "&x-dead-letter-routing-key=7&x-single-active-consumer=true&x-priority=3"
    )
    declared = {
        "x-queue-type": "quorum",
        "x-message-ttl": 60_000,
        "x-dead-letter-exchange": "amq.fanout",
        "x-dead-letter-routing-key": "7",
        "x-single-active-consumer": True,
    }

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}&{asked}"), sink)
        rabbit.queue(
            queue, durable=True, arguments=declared
        )  # refused if it were declared otherwise
        assert await driver.send("x", Deadline(10)) == 1
        await sink.wait_received(1)
        await driver.close()
        assert sink.warnings == []
        sink = Taken()
        other = await dialed(rabbit_url(rabbitmq, f"queue={queue}&x-message-ttl=1000"), sink)
        await other.close()
        assert "inequivalent arg" in sink.warnings[0]
        assert "used as it is" in sink.warnings[0]
        missing = rabbitmq.unique("q")
        error = await refused(rabbit_url(rabbitmq, f"queue={missing}&x-queue-type=quorums"))
        assert isinstance(error, FatalError)
        assert "invalid arg 'x-queue-type'" in str(error)

    asyncio.run(body())


def test_a_stream_is_read_from_its_offset_and_goes_on_where_readers_are(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue, durable=True, arguments={"x-queue-type": "stream"})
    rabbit.send(queue, *(str(number) for number in range(6)))

    async def body() -> None:
        address = parse_address(rabbit_url(rabbitmq, f"queue={queue}&x-stream-offset=1"))
        sink = Taken()
        driver = AmqpDriver(address, sink)
        await driver.open(Deadline(10))
        await sink.wait_received(5)
        driver.settle(sink.tokens[:2])
        await driver.close()
        again = Taken()
        driver = AmqpDriver(address, again)
        driver.had_link = True
        await driver.open(Deadline(10))
        await again.wait_received(3)
        assert again.received == [b"3", b"4", b"5"]
        assert all(each.redelivered for each in again.deliveries)
        assert [each.identity for each in again.deliveries] == [
            each.identity for each in sink.deliveries[2:]
        ]
        await driver.close()

    asyncio.run(body())


def test_passive_declares_nothing(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    async def body() -> None:
        for query in (f"queue={queue}", f"exchange={queue}", f"exchange={queue}&queue={queue}"):
            error = await refused(rabbit_url(rabbitmq, f"{query}&passive=true"))
            assert isinstance(error, FatalError)
            assert f"'{queue}', and passive=true declares none" in str(error)
        rabbit.queue(queue)
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}&passive=true"), sink)
        assert await driver.send("x", Deadline(5)) == 1
        await sink.wait_received(1)
        await driver.close()
        error = await refused(rabbit_url(rabbitmq, f"queue={queue}&passive=true&x-message-ttl=5"))
        assert "x-message-ttl= has no use" in str(error)

    asyncio.run(body())
    with Rabbit(rabbitmq) as other, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        other.channel.exchange_declare(queue, passive=True)


def test_an_exclusive_queue_is_nobody_elses(rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        url = rabbit_url(rabbitmq, f"queue={queue}&exclusive=true")
        driver = await dialed(url)
        for other in (url, rabbit_url(rabbitmq, f"queue={queue}")):
            error = await refused(other)
            assert isinstance(error, DialError)
            assert not isinstance(error, FatalError)  # it may be our own former link
            assert "for itself" in str(error)
        await driver.close()
        await (await dialed(url)).close()

    asyncio.run(body())


def test_of_a_queue_that_is_there_an_exclusive_reader_is_the_only_one(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue)

    async def body() -> None:
        url = rabbit_url(rabbitmq, f"queue={queue}")
        driver = await dialed(url + "&exclusive=true")
        error = await refused(url)
        assert isinstance(error, DialError)
        assert not isinstance(error, FatalError)
        assert "for itself" in str(error)
        await driver.close()

    asyncio.run(body())


def test_what_is_there_needs_no_right_to_declare(private_rabbitmq: RabbitMq) -> None:
    server = private_rabbitmq
    server.ctl("add_user", "plain", "p")
    server.ctl("set_permissions", "plain", "^$", ".*", ".*")

    async def body() -> None:
        sink = Taken()
        driver = await dialed(
            rabbit_url(server, "queue=there&exchange=amq.topic", login="plain:p"), sink
        )
        assert await driver.send("x", Deadline(5)) == 1
        await sink.wait_received(1)
        driver.settle(sink.tokens)
        await driver.close()
        error = await refused(rabbit_url(server, "queue=missing", login="plain:p"))
        assert isinstance(error, FatalError)
        assert (
            "ACCESS_REFUSED - access to queue 'missing' in vhost '/' refused for this user"
            in str(error)
        )

    try:
        with Rabbit(server) as rabbit:
            rabbit.queue("there")
            asyncio.run(body())
            rabbit.delete("there")
    finally:
        server.ctl("delete_user", "plain")


def test_exchanges_bindings_and_a_queue_of_ones_own(rabbitmq: RabbitMq, rabbit: Rabbit) -> None:
    name = rabbitmq.unique("ex")

    async def body() -> None:
        sink, every = Taken(), Taken()
        url = rabbit_url(rabbitmq, f"exchange={name}&type=topic&routing_key=a.%23&routing_key=b.c")
        driver = await dialed(url, sink)
        anything = await dialed(rabbit_url(rabbitmq, f"exchange={name}"), every)
        rabbit.send("a.x.y", "1", exchange=name)
        rabbit.send("b.d", "2", exchange=name)
        rabbit.send("b.c", "3", exchange=name)
        assert await driver.send("4", Deadline(5)) == 1  # to b.c, the first that is no pattern
        await every.wait_received(4)
        await sink.wait_received(3)
        assert sink.received == [b"1", b"3", b"4"]
        assert [each.topic for each in sink.deliveries] == ["a.x.y", "b.c", "b.c"]
        assert sink.deliveries[0].properties == {"exchange": name}
        await driver.close()
        await anything.close()

    try:
        asyncio.run(body())
    finally:
        rabbit.channel.exchange_delete(name)


def test_patterns_alone_cannot_be_written_to(rabbitmq: RabbitMq) -> None:
    async def body() -> None:
        url = rabbit_url(rabbitmq, "exchange=amq.topic&routing_key=a.%23")
        driver = await dialed(url)
        with pytest.raises(RefusedError, match="write_topic"):
            await driver.send("x", Deadline(5))
        await driver.close()
        sink = Taken()
        driver = await dialed(url + "&write_topic=a.b", sink)
        assert await driver.send("x", Deadline(5)) == 1
        await sink.wait_received(1)
        await driver.close()

    asyncio.run(body())


def test_the_virtual_host_is_the_path(rabbitmq: RabbitMq) -> None:
    async def body() -> None:
        for vhost in ("", "%2F", "other"):
            driver = await dialed(rabbit_url(rabbitmq, "exchange=amq.fanout", vhost=vhost))
            assert await driver.send("x", Deadline(5)) == 1
            await driver.close()

    asyncio.run(body())


# acknowledging


def test_what_is_not_settled_comes_again_and_is_known_again(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        sink, again = Taken(), Taken()
        url = rabbit_url(rabbitmq, f"queue={queue}")
        driver = await dialed(url, sink)
        rabbit.send(queue, *"abcdef", b"g" * 5000)
        await sink.wait_received(7)
        driver.settle([2])
        driver.settle([1, 3, 5])
        await driver.close()
        driver.settle([4])  # too late, and no matter
        driver = await dialed(url, again)
        await again.wait_received(3)
        assert again.received == [b"d", b"f", b"g" * 5000]
        assert all(each.redelivered for each in again.deliveries)
        known = {each.identity: each.data for each in sink.deliveries}
        assert [known[each.identity] for each in again.deliveries] == again.received
        driver.settle(again.tokens)
        await driver.close()

    asyncio.run(body())
    assert rabbit.ready(queue) == 0


def test_no_more_than_prefetch_is_given_out(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    rabbit.queue(queue)
    rabbit.send(queue, *(str(number) for number in range(40)))

    async def body() -> None:
        for flags, options, most in (
            ("&prefetch=7", {}, 7),
            ("", {"buffer": 9}, 9),
            ("&prefetch=50", {"buffer": 9}, 9),
        ):
            sink = Taken()
            driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}{flags}"), sink, **options)
            await sink.wait_received(most)
            assert rabbit.ready(queue) == 40 - most
            driver.settle(sink.tokens[:0])
            await driver.close()

    asyncio.run(body())


def test_paused_it_keeps_what_comes_and_still_writes(rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        driver.pause()
        assert [await driver.send(text, Deadline(5)) for text in "abc"] == [1, 1, 1]
        assert sink.received == []
        driver.resume()
        await sink.wait_received(3)
        driver.settle(sink.tokens)
        await driver.close()

    asyncio.run(body())


def test_a_message_over_max_size_goes_where_dead_letters_go(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    dead = rabbit.queue(queue + ".dead")
    rabbit.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink, max_size=1000)
        rabbit.send(queue, "a", b"x" * 1001, b"y" * 1000)
        await sink.wait_received(2)
        assert [len(data) for data in sink.received] == [1, 1000]
        assert sink.drops == 1
        assert "1001 bytes" in sink.warnings[0]
        driver.settle(sink.tokens)
        await driver.close()

    try:
        asyncio.run(body())
        assert rabbit.take(dead)[1] == b"x" * 1001
        assert rabbit.ready(queue) == 0
    finally:
        rabbit.delete(dead)


# confirms


@on_both_loops
def test_many_writes_at_once_are_confirmed_each_and_keep_their_order(
    run: Run, rabbitmq: RabbitMq, queue: str
) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        texts = [f"{number:0{1 + number % 300}d}" for number in range(2000)]
        counts = await asyncio.gather(*(driver.send(text, Deadline(20)) for text in texts))
        assert counts == [len(text) for text in texts]
        await sink.wait_received(2000)
        assert sink.received == [text.encode() for text in texts]
        driver.settle(sink.tokens)
        await driver.close()

    run(body())


def test_an_unroutable_message_is_refused_and_the_link_goes_on(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}"))
        with pytest.raises(
            RefusedError, match=f"no queue takes messages for routing key '{queue}'"
        ):
            await driver.send("x", Deadline(5))
        results = await asyncio.gather(
            *(driver.send("same", Deadline(5)) for _ in range(20)), return_exceptions=True
        )
        assert [type(result) for result in results] == [RefusedError] * 20
        rabbit.queue(queue)
        assert await driver.send("y", Deadline(5)) == 1
        await driver.close()
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}.not&mandatory=false"))
        assert await driver.send("lost", Deadline(5)) == 4
        await driver.close()

    asyncio.run(body())


def test_a_full_queue_refuses(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    rabbit.queue(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})

    async def body() -> None:
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}"))
        assert await driver.send("a", Deadline(5)) == 1
        with pytest.raises(RefusedError, match="full"):
            await driver.send("b", Deadline(5))
        await driver.close()

    asyncio.run(body())


def test_without_the_right_to_write_each_write_is_refused(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    rabbit.queue(queue)
    rabbit.send(queue, "there")

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}", login="reader:p"), sink)
        for _ in range(3):
            with pytest.raises(RefusedError, match="ACCESS_REFUSED"):
                await driver.send("x", Deadline(5))
        rabbit.send(queue, "more")
        await sink.wait_received(2)  # reading is not disturbed
        assert sink.losses == []
        await driver.close()

    asyncio.run(body())


def test_a_message_over_the_brokers_limit_is_refused(private_rabbitmq: RabbitMq) -> None:
    server, name = private_rabbitmq, private_rabbitmq.unique("limited")
    server.ctl("eval", "application:set_env(rabbit, max_message_size, 100000).")

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(server, f"queue={name}"), sink)
        sizes = (10, 100_001, 20, 100_000)
        results = await asyncio.gather(
            *(driver.send(b"x" * size, Deadline(5)) for size in sizes), return_exceptions=True
        )
        assert isinstance(results[1], RefusedError)
        assert "100001 bytes: the broker takes at most 100000" in str(results[1])
        assert isinstance(results[2], RefusedError)
        assert "not taken" in str(results[2])
        assert isinstance(results[0], Unconfirmed) or results[0] == 10
        assert await driver.send(b"y" * 100_000, Deadline(5)) == 100_000
        with pytest.raises(RefusedError, match="100002 bytes"):
            await driver.send(b"x" * 100_002, Deadline(5))
        await sink.until(lambda: b"y" * 100_000 in sink.received)
        assert sink.losses == []
        driver.settle(sink.tokens)
        await driver.close()

    try:
        asyncio.run(body())
    finally:
        server.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")


def test_a_broker_short_of_memory_takes_nothing_and_says_why(private_rabbitmq: RabbitMq) -> None:
    server, name = private_rabbitmq, private_rabbitmq.unique("memory")

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(server, f"queue={name}"), sink)
        assert await driver.send("before", Deadline(5)) == 6
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        # The broker says that it is blocked when the next message comes.
        with pytest.raises(
            Unconfirmed, match="low on memory; the message may still be taken later"
        ):
            await driver.send("first", Deadline(1))
        with pytest.raises(
            OperationTimeout, match="takes no messages at present: low on memory"
        ) as caught:
            await driver.send("x", Deadline(0.2))
        assert not isinstance(caught.value, Unconfirmed)
        later = asyncio.create_task(driver.send("later", Deadline(20)))
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")
        assert await later == 5
        await sink.until(lambda: b"later" in sink.received)
        assert sink.received == [b"before", b"first", b"later"]
        await driver.close()

    try:
        asyncio.run(body())
    finally:
        server.ctl("set_vm_memory_high_watermark", "0.4")


# the end of a link


def test_a_deleted_queue_ends_the_link(rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}"), sink)
        rabbit.delete(queue)
        assert "queue was deleted" in str(await sink.wait_lost())
        with pytest.raises(OSError, match="deleted"):
            await driver.send("x", Deadline(5))
        await driver.close()

    asyncio.run(body())


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_cut_link_is_reported_once_and_fails_what_waits(
    rabbitmq: RabbitMq, queue: str, how: str
) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}", port=proxy.port), sink)
        proxy.blackhole("up")
        waiting = asyncio.create_task(driver.send("x", Deadline(20)))
        question = asyncio.create_task(driver.request("x", Deadline(20)))
        await asyncio.sleep(0)
        await asyncio.to_thread(getattr(proxy, how))
        assert isinstance(await sink.wait_lost(), ConnectionError)
        with pytest.raises(ConnectionError, match="may have arrived"):
            await waiting
        with pytest.raises(ConnectionError):
            await question
        await driver.close()

    with FaultProxy(rabbitmq.port) as proxy:
        asyncio.run(body())


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_silent_network_is_noticed_within_twice_the_heartbeat(
    rabbitmq: RabbitMq, queue: str, way: Any
) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(
            rabbit_url(rabbitmq, f"queue={queue}&heartbeat=1", port=proxy.port), sink
        )
        loop = asyncio.get_running_loop()
        proxy.blackhole(way)
        since = loop.time()
        await sink.until(lambda: sink.losses, 8)
        assert loop.time() - since < (2.3 if way == "down" else 6)
        await driver.close()

    with FaultProxy(rabbitmq.port) as proxy:
        asyncio.run(body())


def test_a_quiet_link_stays(rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"queue={queue}&heartbeat=1"), sink)
        driver.pause()
        with contextlib.suppress(TimeoutError):
            await sink.until(lambda: sink.losses, 4)
        assert sink.losses == []
        await driver.ping()
        assert await driver.send("x", Deadline(5)) == 1
        await driver.close()

    asyncio.run(body())


def test_a_frozen_broker_confirms_nothing_and_is_noticed(private_rabbitmq: RabbitMq) -> None:
    server, name = private_rabbitmq, private_rabbitmq.unique("frozen")

    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(server, f"queue={name}&heartbeat=1"), sink)
        server.freeze()
        with pytest.raises(Unconfirmed, match="may or may not"):
            await driver.send("x", Deadline(0.2))
        loop = asyncio.get_running_loop()
        since = loop.time()
        await sink.until(lambda: sink.losses, 5)
        assert loop.time() - since < 2.5
        assert "silent" in str(sink.losses[0])
        await driver.close()
        assert loop.time() - since < 4
        error = await refused(rabbit_url(server, f"queue={name}"), 0.5)
        assert isinstance(error, DialTimeout)

    try:
        asyncio.run(body())
    finally:
        server.thaw()


@on_both_loops
def test_what_has_not_left_by_its_deadline_never_does(
    run: Run, rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        sink = Taken()
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}", port=proxy.port), sink)
        proxy.stall("up")
        big, taken = b"x" * (1 << 20), 1
        deadline = Deadline(30)
        while taken:
            assert not deadline.expired(), "it takes everything"
            try:
                taken = await driver.send(big, Deadline(0.1))
            except Unconfirmed:
                continue
        assert "no more data" in str(await sink.wait_lost())
        with pytest.raises(OSError, match="no more data"):
            await driver.send("later", Deadline(5))
        await driver.close()

    rabbit.queue(queue)
    with FaultProxy(rabbitmq.port) as proxy:
        run(body())


# questions


@on_both_loops
def test_a_request_is_answered(run: Run, rabbitmq: RabbitMq, rabbit: Rabbit, queue: str) -> None:
    async def body() -> None:
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}"))
        questions = [driver.request(f"q{number}", Deadline(10)) for number in range(20)]
        answers = await asyncio.gather(*questions)
        assert [answer.data for answer in answers] == [
            f"Q{number}".encode() for number in range(20)
        ]
        assert answers[0].token is None
        await driver.close()

    rabbit.queue(queue)
    with answering(rabbitmq, queue, bytes.upper):
        run(body())


def test_a_request_that_nobody_answers_or_takes(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    async def body() -> None:
        driver = await dialed(rabbit_url(rabbitmq, f"write_topic={queue}"))
        with pytest.raises(RefusedError, match="no queue"):
            await driver.request("x", Deadline(5))
        rabbit.queue(queue)
        with pytest.raises(TimeoutError, match="no answer"):
            await driver.request("x", Deadline(0.1))
        assert await driver.send("x", Deadline(5)) == 1
        await driver.close()

    asyncio.run(body())


# what cannot be opened


def test_wrong_logins_hosts_and_rights_are_final(rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        for url, words in (
            (rabbit_url(rabbitmq, f"queue={queue}", login="u:secret"), "check user and password"),
            (
                rabbit_url(rabbitmq, f"queue={queue}", login="nobody-here:p"),
                "check user and password",
            ),
            (rabbit_url(rabbitmq, f"queue={queue}", vhost="nowhere"), "vhost nowhere not found"),
            (
                rabbit_url(rabbitmq, f"queue={queue}", login="stranger:p"),
                "access to vhost '/' refused",
            ),
            (rabbit_url(rabbitmq, "queue=amq.reserved"), "reserved prefix"),
            (rabbit_url(rabbitmq, "exchange=amq.reserved"), "reserved prefix"),
            (rabbit_url(rabbitmq, f"queue={queue}"), "headers cannot be sent"),
        ):
            error = await refused(url, headers={"h" * 256: "x"} if "headers" in words else {})
            assert isinstance(error, FatalError), error
            assert words in str(error)
            assert not any(secret in str(error) for secret in ("secret", "nobody-here", "stranger"))

    asyncio.run(body())


def test_contradictions_are_told_before_anything_is_dialed() -> None:
    for query, words in (
        ("queue=q&routing_key=k", "give exchange="),
        ("queue=q&type=topic", "type of an exchange"),
        ("write_topic=q&prefetch=5", "nothing is read"),
        (f"queue={'q' * 256}", "256 bytes"),
        (f"exchange=e&routing_key={'k' * 256}", "256 bytes"),
    ):
        with pytest.raises(FatalError, match=words):
            make_plan(parse_address(f"amqp://127.0.0.1/?{query}"))


def test_the_seeds_address() -> None:
    plan = make_plan(parse_address("amqp://q:admin@127.0.0.1:5672/?queue=test_Queue"))
    assert (plan.queue, plan.exchange, plan.write_key, plan.vhost) == (
        "test_Queue",
        "",
        "test_Queue",
        "/",
    )
    assert (plan.durable, plan.prefetch, plan.heartbeat_s) == (True, 2000, 20)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", FatalError, "HTTP server"),
        (b"SSH-2.0-OpenSSH\r\n", FatalError, "SSH server"),
        (b"AMQP\x00\x01\x00\x00", FatalError, "another version"),
        (b"-ERR unknown command\r\n", FatalError, "does not speak AMQP"),
        (b"\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00", DialError, "is it an AMQP 0-9-1 broker"),
        (b"\x01\x00\x00\x7f\xff\xff\xff\x00", DialError, "a frame of 2147483647 bytes"),
        (b"", DialError, "before any AMQP"),
    ],
)
def test_another_protocol_on_the_port(said: bytes, kind: type[Exception], words: str) -> None:
    def handler(peer: Any) -> None:
        peer.read()
        if said:
            peer.send(said)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.read()

    async def body() -> None:
        error = await refused(f"amqp://127.0.0.1:{server.port}/?queue=q")
        assert isinstance(error, kind)
        assert words in str(error)

    with SocketServer(handler) as server:
        asyncio.run(body())


def test_who_accepts_and_is_silent_is_given_up_in_time(rabbitmq: RabbitMq) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        error = await refused(rabbit_url(rabbitmq, "queue=q", port=proxy.port), 0.3)
        assert isinstance(error, DialTimeout)
        assert "no AMQP answer" in str(error)
        assert loop.time() - since < 1.5
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with FaultProxy(rabbitmq.port) as proxy:
        proxy.deaf()
        asyncio.run(body())
    assert threading.active_count() < 10


def test_the_next_of_several_servers_is_tried(
    rabbitmq: RabbitMq, queue: str, free_port: int
) -> None:
    async def body() -> None:
        servers = f"127.0.0.1:{free_port},127.0.0.1:{proxy.port},127.0.0.1:{rabbitmq.port}"
        driver = await dialed(f"amqp://u:p@{servers}/?queue={queue}", seconds=3)
        assert await driver.send("x", Deadline(5)) == 1
        await driver.close()

    with FaultProxy(rabbitmq.port) as proxy:
        proxy.deaf()
        asyncio.run(body())


# TLS and proxies


@on_both_loops
def test_tls_with_an_authority_and_a_certificate_of_ones_own(
    run: Run, rabbitmq: RabbitMq, certs: Certs, queue: str
) -> None:
    port, query = rabbitmq.ports["tls"], f"queue={queue}"

    async def body() -> None:
        url = f"amqps://u:p@127.0.0.1:{port}/?{query}"
        for options in (
            {"cafile": str(certs.ca)},
            {
                "cafile": str(certs.ca),
                "certfile": str(certs.client.cert),
                "keyfile": str(certs.client.key),
            },
            {"insecureSkipVerify": True},
        ):
            driver = await dialed(url, **options)
            assert await driver.send("x" * 300_000, Deadline(5)) == 300_000
            await driver.close()
        error = await refused(url)
        assert isinstance(error, FatalError)
        assert "not trusted" in str(error)
        error = await refused(rabbit_url(rabbitmq, query, port=port), 2)
        assert "TLS" in str(error) or "before any AMQP" in str(error)
        error = await refused(
            f"amqps://u:p@127.0.0.1:{rabbitmq.port}/?{query}", 2, cafile=str(certs.ca)
        )
        assert "TLS" in str(error)

    run(body())


def test_through_a_proxy_and_from_an_address(rabbitmq: RabbitMq, queue: str) -> None:
    async def body() -> None:
        url = rabbit_url(rabbitmq, f"queue={queue}")
        driver = await dialed(url, proxy=f"http://127.0.0.1:{proxy.port}", local_ip="127.0.0.1")
        assert await driver.send("x", Deadline(5)) == 1
        await driver.close()
        assert isinstance(await refused(url, local_ip="192.0.2.1"), FatalError)

    with HttpProxy() as proxy:
        asyncio.run(body())


def test_a_subscription_that_a_node_cancels_ends_the_link(
    rabbitmq: RabbitMq, rabbit: Rabbit, queue: str
) -> None:
    """A node of a cluster that goes says so; ours has one, so that its words are given to the driver here."""

    async def body() -> None:
        address = parse_address(rabbit_url(rabbitmq, f"queue={queue}"))
        sink = Taken()
        driver = AmqpDriver(address, sink)
        await driver.open(Deadline(10))
        assert driver._stream is not None
        assert driver._reader is not None
        cancel = pika.spec.Basic.Cancel(driver._reader.channel.consumer_tags[0])
        driver._stream.data_received(
            pika.frame.Method(driver._reader.channel.channel_number, cancel).marshal()
        )
        assert "the broker cancelled the subscription" in str(await sink.wait_lost())
        await driver.close()
        again = Taken()
        driver = AmqpDriver(address, again)
        driver.had_link = True
        await driver.open(Deadline(10))
        rabbit.send(queue, "x")
        await again.wait_received(1)
        driver.settle(again.tokens)
        await driver.close()

    asyncio.run(body())
