"""nats: nats-py bare, and through Dial; core and JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import trunkline
from benchmarks import feeds
from benchmarks.broker_lines import THREADS, reading_lines, started, until, writing_lines
from benchmarks.measure import Line
from benchmarks.reading import Reading, Tally, through_dial
from tests.servers.nats import JetStream
from tests.servers.run import Run

__all__ = ["measure"]

HOST = "127.0.0.1"
_WAIT_S = 30.0
_BATCH = 500


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, on uvloop if installed, as in the worker."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _bare_read(port: int, subject: str, count: int, go: Callable[[], None]) -> Reading:
    """Read by a callback of `subscribe`."""
    import nats

    async def main() -> Reading:
        ended = asyncio.Event()
        tally = Tally(count, ended.set)

        async def on_message(message: Any) -> None:
            tally.add(message.data)

        client = await nats.connect(f"nats://{HOST}:{port}")
        await client.subscribe(
            subject, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await client.flush()
        tally.start()
        go()
        async with asyncio.timeout(_WAIT_S * 2):
            await ended.wait()
        await client.close()
        return tally.reading()

    return _run(main())  # type: ignore[no-any-return]


def _push(port: int, subject: str, stream: str, durable: str, count: int) -> Reading:
    """Read by a callback of `js.subscribe`, which acknowledges."""
    import nats
    from nats.js.api import ConsumerConfig, DeliverPolicy

    async def main() -> Reading:
        ended = asyncio.Event()
        tally = Tally(count, ended.set)

        async def on_message(message: Any) -> None:
            tally.add(message.data)
            await message.ack()

        client = await nats.connect(f"nats://{HOST}:{port}")
        await client.jetstream().subscribe(
            subject,
            durable=durable,
            stream=stream,
            cb=on_message,
            manual_ack=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, max_ack_pending=20_000),
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
        )
        async with asyncio.timeout(_WAIT_S * 2):
            await ended.wait()
        await client.close()
        return tally.reading()

    return _run(main())  # type: ignore[no-any-return]


def _pull(port: int, subject: str, stream: str, durable: str, count: int) -> Reading:
    """Read by `pull_subscribe` and `fetch` in batches; every message is acknowledged."""
    import nats
    from nats.js.api import ConsumerConfig, DeliverPolicy

    async def main() -> Reading:
        tally = Tally(count, lambda: None)
        client = await nats.connect(f"nats://{HOST}:{port}")
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, max_ack_pending=20_000)
        pull = await client.jetstream().pull_subscribe(
            subject, durable, stream=stream, config=config
        )
        while len(tally.got) < count:
            for message in await pull.fetch(min(_BATCH, count - len(tally.got)), timeout=_WAIT_S):
                tally.add(message.data)
                await message.ack()
        await client.close()
        return tally.reading()

    return _run(main())  # type: ignore[no-any-return]


def _bare_p50_us(port: int, subject: str, count: int) -> float:
    """The median time of a `js.publish`, one after the other, in microseconds."""
    import nats

    async def main() -> float:
        client = await nats.connect(f"nats://{HOST}:{port}")
        publish = client.jetstream().publish
        times = []
        for _ in range(count):
            start = time.perf_counter()
            await publish(subject, feeds.payload(0))
            times.append(time.perf_counter() - start)
        await client.close()
        return sorted(times)[len(times) // 2] * 1e6

    return _run(main())  # type: ignore[no-any-return]


def _bare_rate(port: int, subject: str, count: int) -> float:
    """Messages a second of THREADS tasks. Every task waits for its own confirmations."""
    import nats

    async def main() -> float:
        client = await nats.connect(f"nats://{HOST}:{port}")
        publish = client.jetstream().publish

        async def some() -> None:
            for _ in range(count // THREADS):
                await publish(subject, feeds.payload(0))

        start = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(THREADS)))
        rate = count // THREADS * THREADS / (time.perf_counter() - start)
        await client.close()
        return rate

    return _run(main())  # type: ignore[no-any-return]


def measure(run: Run, quick: bool) -> Iterator[Line]:
    """The lines of nats."""
    with started(run, JetStream) as server:
        yield from _read(server, quick)
        yield from _jetstream_read(server, quick)
        yield from _jetstream_write(server, quick)


def _read(server: JetStream, quick: bool) -> Iterator[Line]:
    """Reading messages of core NATS, from a live feed."""
    count, rounds = (50_000, 1) if quick else (150_000, 5)

    def direct() -> Reading:
        subject = server.unique("t")
        with feeds.live("nats", server.port, subject, count) as go:
            return _bare_read(server.port, subject, count, go)

    def dial(envelopes: bool) -> Reading:
        subject = server.unique("t")
        with feeds.live("nats", server.port, subject, count) as go:
            url = f"nats://{server.address}?topic={subject}"
            return through_dial(url, count, go, envelopes=envelopes, buffer=count + 10)

    yield from reading_lines("nats: read", rounds, {"nats-py": direct}, dial)


def _jetstream_read(server: JetStream, quick: bool) -> Iterator[Line]:
    """Reading the messages of a JetStream stream."""
    count, rounds = (20_000, 1) if quick else (50_000, 5)
    with _stream(server, count) as (stream, subject):

        def dial(envelopes: bool) -> Reading:
            durable = server.unique("d")
            url = f"nats://{server.address}?topic={subject}&stream={stream}&durable={durable}&deliver=all"
            return through_dial(url, count, envelopes=envelopes)

        def bare(read: Callable[[int, str, str, str, int], Reading]) -> Reading:
            return read(server.port, subject, stream, server.unique("d"), count)

        peers = {
            "nats-py, push with a callback": lambda: bare(_push),
            "nats-py, pull in batches": lambda: bare(_pull),
        }
        yield from reading_lines("JetStream: read", rounds, peers, dial)


@contextlib.contextmanager
def _stream(server: JetStream, count: int) -> Iterator[tuple[str, str]]:
    """A stream with `count` messages, and its subject.

    The stream lives in memory, because the disk is not the subject of the measurement.
    """
    import nats

    name, subject = server.unique("S"), server.unique("s")

    async def ask(what: str) -> int:
        client = await nats.connect(f"nats://{server.address}")
        js = client.jetstream()
        try:
            if what == "make":
                await js.add_stream(name=name, subjects=[subject], storage="memory")
            elif what == "remove":
                await js.delete_stream(name)
            return (await js.stream_info(name)).state.messages if what != "remove" else 0
        finally:
            await client.close()

    _run(ask("make"))
    if count:
        feeds.fill_jetstream(server.port, subject, count)
        until(lambda: _run(ask("look")) == count, "the stream")
    yield name, subject
    _run(ask("remove"))


def _jetstream_write(server: JetStream, quick: bool) -> Iterator[Line]:
    with (
        _stream(server, 0) as (stream, subject),
        trunkline.connect(
            f"nats://{server.address}?write_topic={subject}&stream={stream}"
        ) as connection,
    ):
        yield from writing_lines(
            "JetStream: confirmed write",
            quick,
            connection,
            lambda count: _bare_p50_us(server.port, subject, count),
            lambda count: _bare_rate(server.port, subject, count),
            f"from {THREADS} tasks",
        )
