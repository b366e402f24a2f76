"""Numbered messages through each message broker over a clean link: all of them arrive, each once.

`TRUNKLINE_WHOLE=100000` takes as many instead of 20,000 (a quarter of an hour instead of two minutes).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import nats
import pytest

from tests.servers.base import Server
from tests.support.programs import Program
from trunkline import Dial, last_error

COUNT = int(os.environ.get("TRUNKLINE_WHOLE", "20000"))
THREADS = 8
MODES = {
    "mqtt qos 0": ("mosquitto", "mqtt://{at}?topic={name}", "mqtt://{at}?write_topic={name}"),
    "mqtt qos 1": (
        "mosquitto",
        "mqtt://{at}?topic={name}&qos=1",
        "mqtt://{at}?write_topic={name}&qos=1",
    ),
    "mqtt qos 2": (
        "mosquitto",
        "mqtt://{at}?topic={name}&qos=2",
        "mqtt://{at}?write_topic={name}&qos=2",
    ),
    "nats": ("nats_server", "nats://{at}?topic={name}", "nats://{at}?write_topic={name}"),
    "jetstream": (
        "jetstream",
        "nats://{at}?topic={name}&stream={name}&durable=d",
        "nats://{at}?write_topic={name}&stream={name}",
    ),
    "amqp": ("rabbitmq", "amqp://u:p@{at}/?queue={name}", "amqp://u:p@{at}/?write_topic={name}"),
    "kafka": ("kafka", "kafka://{at}/{name}", "kafka://{at}/?write_topic={name}"),
    "kafka group": (
        "kafka",
        "kafka://{at}/{name}?group={name}&offset=earliest",
        "kafka://{at}/?write_topic={name}",
    ),
}

WRITER = """
import sys, threading
count, threads = int(sys.argv[2]), int(sys.argv[3])
with Dial(sys.argv[1]) as conn:
    refused = []
    def write(first):
        for number in range(first, count, threads):
            if not conn.write(str(number)):
                refused.append(number)
    workers = [threading.Thread(target=write, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    say("written", len(refused), *refused[:5])
"""


async def _make_stream(server: Server, name: str) -> None:
    client = await nats.connect(f"nats://{server.address}")
    await client.jetstream().add_stream(name=name, subjects=[name])
    await client.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_all_of_them_and_each_once(mode: str, request: pytest.FixtureRequest) -> None:
    fixture, read, write = MODES[mode]
    server: Server = request.getfixturevalue(fixture)
    name = server.unique("whole")
    if mode == "jetstream":
        asyncio.run(_make_stream(server, name))
    place: Callable[[str], str] = lambda address: address.format(at=server.address, name=name)  # noqa: E731
    # A buffer for all of them: where the oldest is dropped, a reader that is held up would drop some.
    conn = Dial(place(read), buffer=COUNT)
    assert conn is not None, last_error()
    with conn, Program(WRITER, place(write), COUNT, THREADS) as program:
        seen = bytearray(COUNT)
        for _ in range(COUNT):
            message = conn.read(30_000)
            assert message, (mode, message, sum(seen), conn.stats(), program.lines)
            seen[int(message)] += 1
        assert program.wait_line("written") == "0"
        assert conn.read(200) is None
        assert set(seen) == {1}
        stats = conn.stats()
        assert (stats.dropped, stats.outages, stats.redelivered) == (0, 0, 0)
        assert stats.read == stats.messages_in == COUNT
