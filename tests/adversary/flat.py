"""Long runs after which nothing may have grown:
`python -m tests.adversary.flat [--dials 10000] [--messages 1000000] [--statements 100000]`.

After a tenth of each, and at the end: descriptors, threads and memory of program, broker and worker.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import trunkline
from tests.support.servers import WsServer
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import Kind

GROWTH_BYTES = 16 << 20
FEW = 4
"""Descriptors and threads that may come and go."""
LINE = "0123456789" * 10


@dataclass(frozen=True)
class Figures:
    descriptors: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Figures:
        process = psutil.Process(pid)
        return cls(process.num_fds(), process.num_threads(), process.memory_info().rss)

    def grown(self, first: Figures) -> bool:
        few = self.descriptors - first.descriptors > FEW or self.threads - first.threads > FEW
        return few or self.memory - first.memory > GROWTH_BYTES

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.memory >> 20} MB"


def _broker() -> int:
    return int(values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"])


def watched(
    what: str, count: int, do: Callable[[int], None], workers: Callable[[], list[int]]
) -> bool:
    """Do it in ten parts; whether program, broker and workers are as they were after the first part."""
    first: dict[int, Figures] = {}
    for part in range(10):
        do(max(1, count // 10))
        if part in (0, 9):
            gc.collect()
            pids = [os.getpid(), _broker(), *workers()]
            now = {pid: Figures.of(pid) for pid in pids}
            first = first or now
    held = all(
        now[pid] == first[pid] or not now[pid].grown(first[pid]) for pid in now if pid in first
    )
    names = ("program", "broker", "worker")
    for name, pid in zip(names, now, strict=False):
        print(f"{count} {what}: {name}: {first.get(pid)}, at the end {now[pid]}", flush=True)
    return held


def _feed(ws: ServerConnection) -> None:
    """Messages without end, as fast as they are taken."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            ws.send(LINE)


ECHO = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextlib.contextmanager
def _echo_server() -> Iterator[str]:
    """The address of a server in a process of its own: what it keeps of each peer is not the program's."""
    with subprocess.Popen(
        [sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def dials(count: int) -> bool:
    with _echo_server() as url, trunkline.connect(url):

        def do(part: int) -> None:
            for _ in range(part):
                with trunkline.connect(url, 30) as conn:
                    assert conn.write("x", 20_000) == 1
                    assert conn.read(20_000) == "x"

        return watched("dials and closes", count, do, list)


def messages(count: int) -> bool:
    with WsServer(_feed, compression=None) as server, trunkline.connect(server.url) as conn:

        def do(part: int) -> None:
            for _ in range(part):
                assert conn.read(20_000)

        return watched("messages", count, do, lambda: [conn.stats().pid or 0])


def statements(count: int) -> bool:
    with trunkline.connect("sqlite3://:memory:") as conn:
        conn.exec("CREATE TABLE t (n)")

        def do(part: int) -> None:
            for number in range(part // 2):
                conn.exec("INSERT INTO t VALUES (?)", number)
                conn.exec("SELECT n FROM t WHERE rowid = 1")
            conn.exec("DELETE FROM t")

        return watched("statements", count, do, lambda: [conn.stats().pid or 0])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dials", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--statements", type=int, default=100_000)
    options = parser.parse_args()
    held = [messages(options.messages), statements(options.statements), dials(options.dials)]
    trunkline.shutdown()
    print("flat" if all(held) else "something has grown")
    print(f"{threading.active_count()} threads are left")
    return not all(held)


if __name__ == "__main__":
    sys.exit(main())
