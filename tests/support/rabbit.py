"""The other side of an amqp connection, for tests: pika's blocking client, one call after the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.servers.rabbitmq import RabbitMq
from tests.support.waiting import until

__all__ = ["Rabbit", "RawProperties", "answering", "rabbit_url", "raw_headers"]


def rabbit_url(
    server: RabbitMq, query: str, *, login: str = "u:p", port: int = 0, vhost: str = ""
) -> str:
    """The address of a connection to the server, or to a proxy's port before it."""
    return f"amqp://{login}@127.0.0.1:{port or server.port}/{vhost}?{query}"


class Rabbit:
    """A connection of its own to the server. A context manager, because it has to be closed."""

    def __init__(self, server: RabbitMq) -> None:
        credentials = pika.PlainCredentials("u", "p")
        parameters = pika.ConnectionParameters(
            "127.0.0.1", server.port, "/", credentials, heartbeat=0
        )
        self._connection = pika.BlockingConnection(parameters)
        self.channel: BlockingChannel = self._connection.channel()
        self.channel.confirm_delivery()

    def __enter__(self) -> Rabbit:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError):
            self._connection.close()

    def queue(self, name: str, **properties: Any) -> str:
        """Declare it."""
        self.channel.queue_declare(name, **properties)
        return name

    def delete(self, *queues: str) -> None:
        for queue in queues:
            self.channel.queue_delete(queue)

    def send(self, key: str, *bodies: str | bytes, exchange: str = "", **properties: Any) -> None:
        """Publish, each confirmed."""
        for body in bodies:
            data = body.encode() if isinstance(body, str) else body
            self.channel.basic_publish(
                exchange, key, data, pika.BasicProperties(**properties), mandatory=True
            )

    def send_raw(self, key: str, body: str, items: bytes) -> None:
        """Publish with a header table of these bytes, confirmed."""
        self.channel.basic_publish("", key, body.encode(), raw_headers(items), mandatory=True)

    def take(self, queue: str) -> tuple[Any, bytes]:
        """The oldest message: its properties and its body."""
        found: list[tuple[Any, bytes]] = []

        def look() -> bool:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is not None:
                found.append((properties, body or b""))
            return bool(found)

        until(look, f"a message in {queue}")
        return found[0]

    def ready(self, queue: str) -> int:
        """How many messages wait there that no reader has been given."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def readers(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.consumer_count)


@contextlib.contextmanager
def answering(server: RabbitMq, queue: str, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Somebody who answers what is asked in the queue."""
    over = threading.Event()

    def serve() -> None:
        with Rabbit(server) as rabbit:
            for method, properties, body in rabbit.channel.consume(queue, inactivity_timeout=0.02):
                if over.is_set():
                    return
                if method is not None:
                    rabbit.channel.basic_ack(method.delivery_tag)
                    told = pika.BasicProperties(correlation_id=properties.correlation_id)
                    rabbit.channel.basic_publish("", properties.reply_to, answer(body), told)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


class RawProperties(pika.BasicProperties):  # type: ignore[misc]
    """Properties as bytes, also such as pika would not write."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        return [self._encoded]


HEADERS_ALONE = b"\x20\x00"
"""The flags of properties that are a header table and nothing else."""


def raw_headers(items: bytes) -> RawProperties:
    """A header table of these bytes: for each header a byte of length, the name, a letter, the value."""
    return RawProperties(HEADERS_ALONE + len(items).to_bytes(4, "big") + items)
