"""Many connections, of which some flap without pause: the effect on the others, and whether the
figures add up.

    .venv/bin/python -m benchmarks.flapping [--connections N] [--flapping N] [--seconds S] [--interval MS]

A server (a process of its own) accepts WebSocket connections. Each steady connection gets the time,
four times a second. The server closes flapping connections as soon as they are open. The program
prints, for a while without flapping and for a while with flapping: latency of the steady
connections, processor time of program, broker and workers, reconnects, and the load average of the
machine. At the end it prints whether every message that was sent was read or counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import trunkline

EVERY_S = 0.25
"""Seconds between two messages of a steady connection."""
LOOK_S = 0.002
"""Seconds between two looks at the connections."""


async def _serve() -> None:
    """Serve: `/steady` gets the time, `/flapping` is closed after SIGUSR1 has come.

    SIGUSR2 ends the sending.
    """
    loop, flaps, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, flaps.set)
    loop.add_signal_handler(signal.SIGUSR2, over.set)
    sent = 0

    async def talk(ws: ServerConnection) -> None:
        nonlocal sent
        assert ws.request is not None
        with contextlib.suppress(ConnectionClosed):
            if ws.request.path == "/flapping":
                await flaps.wait()
                if not over.is_set():
                    return
            while not over.is_set():
                sent += 1
                await ws.send(repr(time.monotonic()))
                await asyncio.sleep(EVERY_S)
            print(f"sent {sent}", flush=True)
            await ws.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.Event().wait()


@dataclass
class Phase:
    """The figures of a period."""

    latencies_ms: list[float] = field(default_factory=list)
    processor_s: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reconnects: int = 0

    def told(self, name: str) -> str:
        found = sorted(self.latencies_ms) or [float("nan")]
        used = ", ".join(
            f"{who} {100 * spent / self.seconds:.0f} %" for who, spent in self.processor_s.items()
        )
        return (
            f"{name}: {len(found)} messages, latency median {statistics.median(found):.1f} ms, "
            f"99 % {found[int(len(found) * 0.99)]:.1f} ms, most {found[-1]:.1f} ms; of one core: {used}; "
            f"{self.reconnects / self.seconds:.0f} reconnects/s; load {os.getloadavg()[0]:.1f}"
        )


class Strategy:
    """All connections of a program."""

    def __init__(self, port: int, steady: int, flapping: int, interval: int) -> None:
        options = {"reconnect": True, "interval": interval, "maxInterval": interval}
        self.steady = [self._dial(f"ws://127.0.0.1:{port}/steady", options) for _ in range(steady)]
        self.flapping = [
            self._dial(f"ws://127.0.0.1:{port}/flapping", options) for _ in range(flapping)
        ]
        self.read = 0

    @staticmethod
    def _dial(url: str, options: dict[str, object]) -> trunkline.RaisingConnection:
        return trunkline.connect(url, {**options, "timeout": 60})  # type: ignore[typeddict-item]

    def watch(self, seconds: float) -> Phase:
        """Read all steady connections for `seconds`."""
        phase = Phase()
        before, reconnects, began = self._processor(), self._reconnects(), time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            phase.latencies_ms += [(time.monotonic() - sent) * 1000 for sent in self._arrived()]
            time.sleep(LOOK_S)
        phase.seconds = now - began
        after = self._processor()
        phase.processor_s = {who: after[who] - before[who] for who in after}
        phase.reconnects = self._reconnects() - reconnects
        return phase

    def _arrived(self) -> Iterator[float]:
        for conn in self.steady:
            while (message := conn.read(-1)) is not None:
                self.read += 1
                yield float(message)

    def _reconnects(self) -> int:
        return sum(conn.stats().reconnects for conn in self.flapping)

    def _processor(self) -> dict[str, float]:
        """Seconds of processor time since the start: of this program, of the broker with its
        zygote, of the workers."""
        spent = {"program": 0.0, "broker": 0.0, "workers": 0.0}
        spent["program"] = _seconds(psutil.Process())
        for process in psutil.process_iter(["name", "cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if os.environ["TRUNKLINE_BROKER"] in line:
                who = "workers" if process.info["name"].startswith("trunk-") else "broker"
                spent[who] += _seconds(process)
        return spent

    def unaccounted(self) -> list[str]:
        """A text for every connection whose figures do not add up."""
        found = []
        for conn in (*self.steady, *self.flapping):
            stats = conn.stats()
            parts = stats.read + stats.buffered + stats.dropped + stats.skipped + stats.returned
            if stats.messages_in != parts:
                found.append(f"{stats.id}: {stats.messages_in} came, {parts} are accounted for")
        return found


def _seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--flapping", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument(
        "--interval", type=int, default=1000, help="ms between reconnects of a flapping one"
    )
    options = parser.parse_args()
    command = [
        sys.executable,
        "-c",
        "import asyncio, benchmarks.flapping as f; asyncio.run(f._serve())",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[1])
        steady = options.connections - options.flapping
        began = time.monotonic()
        strategy = Strategy(port, steady, options.flapping, options.interval)
        print(
            f"{options.connections} connections were dialled in {time.monotonic() - began:.1f} s",
            flush=True,
        )
        strategy.watch(2)
        print(strategy.watch(options.seconds).told("calm"), flush=True)
        server.send_signal(signal.SIGUSR1)
        print(strategy.watch(options.seconds).told("flapping"), flush=True)
        server.send_signal(signal.SIGUSR2)
        strategy.watch(2)
        sent = [int(server.stdout.readline().split()[1]) for _ in range(steady)][-1]
        strategy.watch(1)
        print(f"steady ones: {sent} sent, {strategy.read} read")
        print("\n".join(strategy.unaccounted()) or "all figures add up")
    finally:
        server.kill()
        server.wait()
        trunkline.shutdown()


if __name__ == "__main__":
    main()
