"""Feeds for message brokers: numbered messages, encoded beforehand, so that the writer is never
measured.

Brokers that keep messages get the feed before the reader comes (`fill_*`). Other brokers get a live
feed from another process, `python -m benchmarks.feeds {mqtt|nats} PORT TOPIC COUNT` (`live`). This
process prints "ready" after the encoding, and begins with the first line of its input.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import SIZE

__all__ = ["check", "fill_amqp", "fill_jetstream", "fill_kafka", "fill_mqtt", "live", "payload"]

HOST = "127.0.0.1"
_ROOT = Path(__file__).resolve().parent.parent
_DIGITS = 9
_PIECE = 500
"""The number of messages in a piece."""
_WAIT_S = 60.0
"""Seconds that a server has to take or to answer."""


def payload(number: int) -> bytes:
    """A message of SIZE bytes that begins with its number."""
    return b"%0*d" % (_DIGITS, number) + b"x" * (SIZE - _DIGITS)


def check(messages: list[str] | list[bytes] | list[str | bytes], count: int) -> None:
    """AssertionError unless all messages came, exactly once and in order."""
    numbers = [int(message[:_DIGITS]) for message in messages]
    if numbers != list(range(count)):
        missing = sorted(set(range(count)) - set(numbers))
        raise AssertionError(
            f"the feed did not arrive whole: {len(numbers)} messages of {count}, "
            f"{len(numbers) - len(set(numbers))} of them doubled, {len(missing)} missing {missing[:3]}, "
            f"{sum(b < a for a, b in pairwise(numbers))} out of order"
        )


def _pieces(count: int, encode: Callable[[int], bytes]) -> list[bytes]:
    return [
        b"".join(map(encode, range(start, min(start + _PIECE, count))))
        for start in range(0, count, _PIECE)
    ]


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port), _WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (piece := sock.recv(size - len(data)))
        if not piece:
            raise EOFError("the server closed the feed's connection")
    return data


# mqtt.


def _mqtt(port: int, topic: str, count: int, qos: int) -> tuple[socket.socket, list[bytes]]:
    name = topic.encode()

    def publish(number: int) -> bytes:
        middle = struct.pack(">H", number % 65_535 + 1) if qos else b""
        body = struct.pack(">H", len(name)) + name + middle + payload(number)
        size = len(body)
        assert 128 <= size < 128 * 128
        return bytes((0x30 | qos << 1, size % 128 | 128, size // 128)) + body

    sock = _connect(port)
    # The server makes up a client id.
    sock.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
    _exactly(sock, 4)
    return sock, _pieces(count, publish)


def fill_mqtt(port: int, topic: str, count: int) -> None:
    """Publish with qos 1; returns when all messages are confirmed."""
    sock, pieces = _mqtt(port, topic, count, 1)
    with sock:
        for index, piece in enumerate(pieces):
            sock.sendall(piece)
            _exactly(sock, 4 * min(_PIECE, count - index * _PIECE))


# nats.


def _nats(port: int, subject: str, count: int) -> tuple[socket.socket, list[bytes]]:
    head = b"PUB %s %d\r\n" % (subject.encode(), SIZE)
    sock = _connect(port)
    # The server's INFO.
    sock.recv(65_536)
    sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
    _exactly(sock, len(b"PONG\r\n"))
    return sock, _pieces(count, lambda number: head + payload(number) + b"\r\n")


def fill_jetstream(port: int, subject: str, count: int) -> None:
    """Publish to a subject of a stream. The caller waits until the stream has all messages."""
    sock, pieces = _nats(port, subject, count)
    with sock:
        for piece in pieces:
            sock.sendall(piece)
        sock.sendall(b"PING\r\n")
        while b"PONG\r\n" not in sock.recv(65_536):
            pass


# amqp.


def fill_amqp(port: int, exchange: str, count: int) -> None:
    """Publish to a fanout exchange. The caller waits until the queues have all messages."""
    from pika import BasicProperties, frame, spec

    def method(channel: int, what: object) -> bytes:
        return bytes(frame.Method(channel, what).marshal())

    def publish(number: int) -> bytes:
        return head + bytes(frame.Body(1, payload(number)).marshal())

    def answered(sock: socket.socket) -> None:
        _, _, size = struct.unpack(">BHI", _exactly(sock, 7))
        _exactly(sock, size + 1)

    head = method(1, spec.Basic.Publish(exchange=exchange)) + bytes(
        frame.Header(1, SIZE, BasicProperties()).marshal()
    )
    pieces = _pieces(count, publish)
    greeting = (
        (0, spec.Connection.StartOk({}, "PLAIN", "\0u\0p", "en_US")),
        (0, spec.Connection.TuneOk(1, 131_072, 0)),
        (0, spec.Connection.Open("/")),
        (1, spec.Channel.Open()),
    )
    with _connect(port) as sock:
        sock.sendall(b"AMQP\x00\x00\x09\x01")
        for channel, what in greeting:
            # TuneOk has no answer.
            if not isinstance(what, spec.Connection.Open):
                answered(sock)
            sock.sendall(method(channel, what))
        answered(sock)
        for piece in pieces:
            sock.sendall(piece)
        sock.sendall(method(1, spec.Channel.Close(200, "", 0, 0)))
        answered(sock)


# kafka.


def fill_kafka(servers: str, topic: str, count: int) -> None:
    """Produce into partition 0; returns when all messages are confirmed."""
    from confluent_kafka import Producer

    failed: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "queue.buffering.max.messages": count + 1,
            "linger.ms": 20,
            # Otherwise a retry, as on a new topic, would change the order.
            "enable.idempotence": True,
        }
    )
    for number in range(count):
        producer.produce(
            topic,
            payload(number),
            partition=0,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        if not number % 1000:
            producer.poll(0)
    if producer.flush(_WAIT_S) or failed:
        raise AssertionError(f"the topic could not be filled: {failed[:1]}")


# Live feeds.


@contextlib.contextmanager
def live(protocol: str, port: int, topic: str, count: int) -> Iterator[Callable[[], None]]:
    """A feed in a process of its own; yields the function that starts the feed."""
    command = [sys.executable, "-m", "benchmarks.feeds", protocol, str(port), topic, str(count)]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def go() -> None:
        stdin.write(b"go\n")
        stdin.flush()

    try:
        if stdout.readline() != b"ready\n":
            raise AssertionError(f"the feed for {protocol} failed")
        yield go
    finally:
        for pipe in (stdin, stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _main() -> None:
    protocol, port, topic, count = sys.argv[1:]
    if protocol == "mqtt":
        sock, pieces = _mqtt(int(port), topic, int(count), 0)
    else:
        sock, pieces = _nats(int(port), topic, int(count))
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    # A slow reader holds the feed back. The parent process ends the feed.
    sock.settimeout(None)
    for piece in pieces:
        sock.sendall(piece)
    if protocol == "mqtt":
        sock.sendall(b"\xe0\x00")
    # Keep the link until the reader has all messages.
    sys.stdin.read()


if __name__ == "__main__":
    _main()
