"""amqp: pika bare, and through Dial."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import trunkline
from benchmarks import feeds
from benchmarks.broker_lines import from_threads, reading_lines, started, until, writing_lines
from benchmarks.measure import Line, p50_us
from benchmarks.reading import Reading, Tally, through_dial
from tests.servers.rabbitmq import RabbitMq
from tests.servers.run import Run

__all__ = ["measure"]

HOST = "127.0.0.1"
_WAIT_S = 30.0


def _parameters(port: int) -> Any:
    """pika's parameters for the private RabbitMQ."""
    import pika

    return pika.URLParameters(f"amqp://u:p@{HOST}:{port}/%2F?heartbeat=0")


def _bare_read(port: int, queue: str, count: int, prefetch: int) -> Reading:
    """Read by `basic_consume` of a BlockingConnection; the callback acknowledges every message."""
    import pika

    tally = Tally(count, lambda: channel.stop_consuming())
    connection = pika.BlockingConnection(_parameters(port))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch)

    def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        tally.add(body)

    channel.basic_consume(queue, on_message)
    channel.start_consuming()
    connection.close()
    return tally.reading()


def _bare_select_read(port: int, queue: str, count: int, prefetch: int) -> Reading:
    """Read by a SelectConnection, pika's asynchronous connection."""
    import pika

    def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        tally.add(body)

    def on_channel(channel: Any) -> None:
        channel.basic_qos(
            prefetch_count=prefetch, callback=lambda _: channel.basic_consume(queue, on_message)
        )

    tally = Tally(count, lambda: connection.close())
    connection = pika.SelectConnection(
        _parameters(port),
        on_open_callback=lambda it: it.channel(on_open_callback=on_channel),
        on_close_callback=lambda it, _: it.ioloop.stop(),
    )
    connection.ioloop.start()
    return tally.reading()


@contextlib.contextmanager
def _bare_writer(port: int, queue: str, data: bytes) -> Iterator[Callable[[], object]]:
    """Write by `basic_publish` under `confirm_delivery`, mandatory, from a single thread."""
    import pika

    connection = pika.BlockingConnection(_parameters(port))
    channel = connection.channel()
    channel.confirm_delivery()
    yield lambda: channel.basic_publish("", queue, data, mandatory=True)
    connection.close()


def measure(run: Run, quick: bool) -> Iterator[Line]:
    """The lines of amqp."""
    with started(run, RabbitMq) as server, _channel(server) as channel:
        yield from _read(server, channel, quick)
        queue = server.unique("w")
        channel.queue_declare(queue)
        # Not persistent: the disk would dominate the measured time.
        url = f"amqp://u:p@{server.address}/?write_topic={queue}&persistent=false"
        with (
            trunkline.connect(url) as connection,
            _bare_writer(server.port, queue, feeds.payload(0)) as direct,
        ):
            yield from writing_lines(
                "amqp: confirmed write",
                quick,
                connection,
                lambda count: p50_us(direct, count),
                lambda count: from_threads(direct, count, 1),
                "from one",
            )


def _read(server: RabbitMq, channel: Any, quick: bool) -> Iterator[Line]:
    count, rounds = (20_000, 1) if quick else (40_000, 5)
    # The default through Dial.
    prefetch = 2_000

    def filled() -> str:
        queue = server.unique("q")
        channel.queue_declare(queue)
        channel.exchange_declare(queue, "fanout", auto_delete=True)
        channel.queue_bind(queue, queue)
        feeds.fill_amqp(server.port, queue, count)
        until(
            lambda: channel.queue_declare(queue, passive=True).method.message_count == count,
            "the queue",
        )
        return queue

    def bare(read: Callable[[int, str, int, int], Reading]) -> Reading:
        queue = filled()
        reading = read(server.port, queue, count, prefetch)
        channel.queue_delete(queue)
        return reading

    def dial(envelopes: bool) -> Reading:
        queue = filled()
        reading = through_dial(
            f"amqp://u:p@{server.address}/?queue={queue}", count, envelopes=envelopes
        )
        channel.queue_delete(queue)
        return reading

    peers = {
        "pika, BlockingConnection": lambda: bare(_bare_read),
        "pika, SelectConnection": lambda: bare(_bare_select_read),
    }
    yield from reading_lines("amqp: read", rounds, peers, dial)


@contextlib.contextmanager
def _channel(server: RabbitMq) -> Iterator[Any]:
    import pika

    connection = pika.BlockingConnection(_parameters(server.port))
    yield connection.channel()
    connection.close()
