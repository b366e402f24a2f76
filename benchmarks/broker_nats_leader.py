"""JetStream after a leader's death: seconds until messages are written and read again, by Dial and
by nats-py.

Three servers hold a stream with three copies. Both sides are connected to the server that leads the
stream and is killed (SIGKILL). Both sides write without a pause, and read with a durable consumer
of their own the messages that a third program stores. The figures are seconds from the kill to the
first confirmed write and the first read message.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trunkline
from benchmarks.measure import Line
from tests.servers.nats_cluster import NatsCluster, nats_cluster
from tests.servers.run import Run

__all__ = ["measure"]

_WHAT = ("Dial writes", "nats-py writes", "Dial reads", "nats-py reads")
_LIMIT_S = 60.0
_TRY_S = 1.0
_PAUSE_S = 0.02


@dataclass
class _Times:
    """Seconds from the kill to the first success of each activity.

    Several threads share the object.
    """

    killed_at: float = field(default=float("inf"))
    first: dict[str, float] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    """The activities that have succeeded before the kill."""
    ready: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def seen(self, what: str, begun: float) -> None:
        """Note a success of an activity that had begun at `begun`.

        Only activities begun after the kill are timed.
        """
        if self.killed_at == float("inf"):
            self.before.add(what)
            if len(self.before) == len(_WHAT):
                self.ready.set()
        elif begun > self.killed_at and what not in self.first:
            self.first[what] = time.monotonic() - self.killed_at
            if len(self.first) == len(_WHAT):
                self.over.set()


def _dial_writes(times: _Times, address: str) -> None:
    """Write through Dial until the end of the measurement."""
    with trunkline.connect(address) as connection:
        while not times.over.is_set():
            begun = time.monotonic()
            with contextlib.suppress(trunkline.TrunklineError):
                connection.write("dial", _TRY_S * 1000)
                times.seen("Dial writes", begun)
            time.sleep(_PAUSE_S)


def _dial_reads(times: _Times, address: str) -> None:
    """Read through Dial until the end of the measurement."""
    connection = trunkline.Dial(address)
    assert connection is not None
    with connection:
        while not times.over.is_set():
            message = connection.receive(200)
            if message:
                times.seen("Dial reads", float(message.data))


async def _plain_writes(times: _Times, servers: list[str], subject: str) -> None:
    """Write by nats-py until the end of the measurement."""
    import nats

    client = await nats.connect(servers, dont_randomize=True, max_reconnect_attempts=-1)
    stream = client.jetstream()
    while not times.over.is_set():
        begun = time.monotonic()
        with contextlib.suppress(Exception):
            await stream.publish(subject, b"plain", timeout=_TRY_S)
            times.seen("nats-py writes", begun)
        await asyncio.sleep(_PAUSE_S)
    await client.close()


async def _plain_reads(times: _Times, servers: list[str], subject: str, stream: str) -> None:
    """Read by nats-py until the end of the measurement."""
    import nats

    client = await nats.connect(servers, dont_randomize=True, max_reconnect_attempts=-1)
    pull = await client.jetstream().pull_subscribe(subject, "plain", stream=stream)
    while not times.over.is_set():
        with contextlib.suppress(Exception):
            for message in await pull.fetch(1, timeout=_TRY_S):
                times.seen("nats-py reads", float(message.data))
                await message.ack()
    await client.close()


async def _third_party(times: _Times, servers: list[str], subject: str) -> None:
    """Store messages by a server that lives on.

    A message holds the time at which its write began.
    """
    import nats

    client = await nats.connect(servers, dont_randomize=True, max_reconnect_attempts=-1)
    stream = client.jetstream()
    while not times.over.is_set():
        with contextlib.suppress(Exception):
            await stream.publish(subject, str(time.monotonic()).encode(), timeout=_TRY_S)
        await asyncio.sleep(_PAUSE_S)
    await client.close()


def _round(cluster: NatsCluster, number: int) -> dict[str, float]:
    """Kill a stream's leader and return the seconds of each activity."""
    stream, subject = f"S{number}", f"s{number}"
    asyncio.run(cluster.make_stream(stream, f"{subject}.>"))
    leader = asyncio.run(cluster.whole(stream))
    hosts = cluster.hosts(leader)
    servers = [f"nats://{host}" for host in hosts.split(",")]
    written, read, times = f"{subject}.w", f"{subject}.r", _Times()
    jobs: list[Callable[[], object]] = [
        lambda: _dial_writes(times, f"nats://{hosts}?write_topic={written}&stream={stream}"),
        lambda: _dial_reads(times, f"nats://{hosts}?topic={read}&stream={stream}&durable=dial"),
        lambda: asyncio.run(_plain_writes(times, servers, written)),
        lambda: asyncio.run(_plain_reads(times, servers, read, stream)),
        lambda: asyncio.run(_third_party(times, servers[1:], read)),
    ]
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    times.ready.wait(_LIMIT_S)
    cluster.servers[leader].kill()
    times.killed_at = time.monotonic()
    times.over.wait(_LIMIT_S)
    times.over.set()
    for thread in threads:
        thread.join()
    cluster.servers[leader].start()
    return {what: times.first.get(what, _LIMIT_S) for what in _WHAT}


def measure(run: Run, quick: bool) -> Iterator[Line]:
    """The lines of this measurement."""
    with nats_cluster(run) as cluster:
        rounds = [_round(cluster, number) for number in range(1 if quick else 5)]
    for what in ("writes", "reads"):
        ours, theirs = (
            sorted(found[f"{side} {what}"] for found in rounds) for side in ("Dial", "nats-py")
        )
        each = " ".join(f"{seconds:.1f}" for seconds in ours)
        them = " ".join(f"{seconds:.1f}" for seconds in theirs)
        goal = statistics.median(theirs) + 2
        yield Line(
            f"JetStream {what} again after a leader's death, Dial / nats-py, s",
            f"{statistics.median(ours):.1f} ({each}) / {statistics.median(theirs):.1f} ({them})",
            "<= nats-py + 2 s",
            statistics.median(ours) <= goal,
        )
