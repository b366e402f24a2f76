"""`scripts/bench`: the costs of Trunkline against other libraries, measured within a run on a local
    server.

Every figure is a median of several rounds in which both sides alternate, so that a noisy machine
hits both. Ratios hold between machines; absolute figures do not.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trunkline
from benchmarks.brokers import BROKERS, measure_brokers
from benchmarks.databases import DATABASES, measure_databases
from benchmarks.measure import SIZE, Line, median_of, p50_us, pss_mb
from benchmarks.peers import Manager, plain_client, tuned_client
from benchmarks.servers import serving


def _last(message: str | bytes, count: int) -> bool:
    mark = f'"seq":{count - 1},'
    return mark in message if isinstance(message, str) else mark.encode() in message


# Reading.


def read_with_client(url: str, count: int, make: Callable[[str], object]) -> float:
    """Messages a second through websocket-client in this process."""
    client = make(url)
    client.send("go")  # type: ignore[attr-defined]
    start = time.perf_counter()
    receive = client.recv  # type: ignore[attr-defined]
    for _ in range(count):
        receive()
    rate = count / (time.perf_counter() - start)
    client.close()  # type: ignore[attr-defined]
    return rate


def read_through_dial(url: str, count: int) -> tuple[float, float]:
    """Messages a second, and microseconds of this process's CPU per message.

    The buffer holds the whole feed: every message is read, and none is dropped.
    """
    connection = trunkline.connect(url, buffer=min(count + 10, 1_000_000))
    connection.write("go")
    start, cpu = time.perf_counter(), time.process_time()
    read = connection.read
    for _ in range(count):
        message = read()
    rate = count / (time.perf_counter() - start)
    spent = (time.process_time() - cpu) / count * 1e6
    stats = connection.stats()
    if not isinstance(message, str) or not _last(message, count) or stats.dropped:
        raise SystemExit(f"the feed did not arrive whole: {message!r:.60}, {stats}")
    connection.close()
    return rate, spent


def measure_read(port: int, quick: bool) -> Iterator[Line]:
    count, rounds = (20_000, 1) if quick else (200_000, 5)
    url = f"ws://127.0.0.1:{port}/feed/{count}/{SIZE}"
    slow = f"ws://127.0.0.1:{port}/feed/{count // 10}/{SIZE}"
    cpu: list[float] = []

    def dial() -> float:
        rate, spent = read_through_dial(url, count)
        cpu.append(spent)
        return rate

    default, tuned, ours = median_of(
        rounds,
        lambda: read_with_client(slow, count // 10, plain_client),
        lambda: read_with_client(url, count, tuned_client),
        dial,
    )
    yield Line(
        f"read {SIZE} B through Dial / websocket-client tuned, in-process",
        f"{ours / tuned:.2f}x ({ours / 1e3:.0f} k/s against {tuned / 1e3:.0f} k/s)",
        ">= 1.0x",
        ours >= tuned,
    )
    yield Line(
        "the same / websocket-client as it comes",
        f"{ours / default:.1f}x (it reads {default / 1e3:.1f} k/s)",
        "",
        None,
    )
    spent = statistics.median(cpu)
    yield Line("CPU of the strategy per message", f"{spent:.2f} us", "<= 2 us", spent <= 2)


def measure_empty(port: int, quick: bool) -> Iterator[Line]:
    """A read from an empty buffer."""
    with trunkline.connect(f"ws://127.0.0.1:{port}/idle") as connection:
        count = 5_000 if quick else 50_000
        took = statistics.median(p50_us(lambda: connection.read(-1), count) for _ in range(3))
    yield Line("read(-1) on an empty buffer", f"{took:.2f} us", "<= 3 us", took <= 3)


# Round trips.


def measure_round_trip(port: int, quick: bool) -> Iterator[Line]:
    """A round trip through a WebSocket server."""
    url = f"ws://127.0.0.1:{port}/echo"
    count, rounds = (300, 1) if quick else (2_000, 5)
    payload = "x" * 64
    direct = tuned_client(url)
    with trunkline.connect(url) as connection:

        def bare() -> None:
            direct.send(payload)
            direct.recv()

        def dial() -> None:
            connection.write(payload)
            connection.read()

        bare_us, dial_us = median_of(
            rounds, lambda: p50_us(bare, count), lambda: p50_us(dial, count)
        )
    direct.close()
    above = dial_us - bare_us
    yield Line(
        "ws round trip of 64 B through Dial, above direct",
        f"+{above:.0f} us ({dial_us:.0f} against {bare_us:.0f} us)",
        "<= 250 us",
        above <= 250,
    )


def measure_exec(port: int, quick: bool) -> Iterator[Line]:
    """A statement, against multiprocessing.managers."""
    count, rounds = (300, 1) if quick else (2_000, 5)
    with Manager() as manager, trunkline.connect("sqlite3://:memory:") as connection:
        database = manager.Sqlite()  # type: ignore[attr-defined]
        theirs, ours = median_of(
            rounds,
            lambda: p50_us(lambda: database.exec("SELECT 1"), count),
            lambda: p50_us(lambda: connection.exec("SELECT 1"), count),
        )
    yield Line(
        "exec('SELECT 1') through a proxy / multiprocessing.managers",
        f"{ours / theirs:.2f}x ({ours:.0f} against {theirs:.0f} us)",
        "<= 3x",
        ours <= 3 * theirs,
    )


# Processes.


def measure_dial(port: int, quick: bool) -> Iterator[Line]:
    """A dial while the broker runs already."""
    count = 10 if quick else 100
    anchor = trunkline.connect(f"ws://127.0.0.1:{port}/idle")
    times = []
    for _ in range(count):
        start = time.perf_counter()
        connection = trunkline.connect(f"ws://127.0.0.1:{port}/idle")
        times.append((time.perf_counter() - start) * 1e3)
        connection.close()
    anchor.close()
    took = statistics.median(times)
    yield Line("Dial to ready, ws, broker running (p50)", f"{took:.1f} ms", "<= 15 ms", took <= 15)


def measure_many(port: int, quick: bool) -> Iterator[Line]:
    """Memory at 100 idle connections, and whether 300 connections can be open at once."""
    if not Path("/proc/self/smaps_rollup").exists():
        return
    url = f"ws://127.0.0.1:{port}/echo"
    connections = [trunkline.connect(url) for _ in range(20 if quick else 100)]
    pids = [connection.stats().pid for connection in connections]
    memory = sum(pss_mb(pid) for pid in pids) / len(pids)
    yield Line(
        f"PSS per idle connection, {len(pids)} open", f"{memory:.2f} MB", "<= 5 MB", memory <= 5
    )
    more = [trunkline.connect(url) for _ in range((30 if quick else 300) - len(connections))]
    connections += more
    answered = 0
    for connection in connections:
        connection.write("x")
    for connection in connections:
        answered += connection.read(10_000) == "x"
    for connection in connections:
        connection.close()
    yield Line(
        f"{len(connections)} connections open at once",
        f"{answered} answered",
        "all",
        answered == len(connections),
    )


MEASURES = {
    "read": measure_read,
    "empty": measure_empty,
    "roundtrip": measure_round_trip,
    "exec": measure_exec,
    "dial": measure_dial,
    "many": measure_many,
}


def _machine() -> str:
    name = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = found[0].split(":", 1)[1].strip() if found else ""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores {name}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def measure(names: list[str], quick: bool) -> Iterator[Line]:
    """The lines of these measurements, in the order of the tables."""
    ours = [name for name in names if name in MEASURES]
    if ours:
        with serving() as port:
            for name in ours:
                yield from MEASURES[name](port, quick)
    brokers = [name for name in names if name in BROKERS]
    if brokers:
        yield from measure_brokers(brokers, quick)
    databases = [name for name in names if name in DATABASES]
    if databases:
        yield from measure_databases(databases, quick)


def main() -> int:
    every = [*MEASURES, *BROKERS, *DATABASES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of: {', '.join(every)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="a look in seconds; its figures are rough"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(every)
    if unknown:
        parser.error(
            f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(every)}"
        )
    logging.basicConfig(level=logging.ERROR)
    print(time.strftime("%Y-%m-%d"), _machine(), flush=True)
    print("| what | figure | goal | |\n|---|---|---|---|", flush=True)
    failed = 0
    for line in measure(options.names or every, options.quick):
        mark = "" if line.met is None else "met" if line.met else "MISSED"
        failed += line.met is False
        print(f"| {line.what} | {line.figure} | {line.goal} | {mark} |", flush=True)
    trunkline.shutdown()
    return 1 if failed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
