"""Forged and mutated envelopes at a broker and at the doors of its workers, and what must not happen:
`python -m tests.adversary.hostile [--count N] [--seed S]` sends many more than the suite does."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import zmq

import trunkline
from tests.adversary.mutations import envelope, on_a_door
from tests.support.sockets import SocketServer, echo
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["Victims", "attack"]

GROWTH_BYTES = 64 << 20
"""More than allocators keep, far less than what a bomb asks for."""


class Victims:
    """Connections of a program at a broker, of which nobody may feel anything."""

    def __init__(self, server: SocketServer) -> None:
        self.stream = trunkline.connect(server.url)
        self.database = trunkline.connect("sqlite3://:memory:")
        self.database.exec("CREATE TABLE t (n)")
        self.pids = self._pids()
        self.at_first = self._memory()

    @property
    def keys(self) -> list[bytes]:
        return [self.stream._member.key, self.database._member.key]

    def folder(self) -> Path:
        return Path(os.environ["TRUNKLINE_BROKER"].removeprefix("ipc://")).parent

    def _pids(self) -> list[int]:
        broker = int(values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"])
        return [broker, self.stream.stats().pid or 0, self.database.stats().pid or 0]

    def _memory(self) -> list[int]:
        return [psutil.Process(pid).memory_info().rss for pid in self.pids]

    def check(self) -> None:
        """AssertionError when one of them was disturbed."""
        assert self.stream.write("well") == 4
        assert self.stream.read(10_000) == "well"
        with self.database.transaction():
            assert self.database.exec("INSERT INTO t VALUES (1)").affected == 1
        assert self._pids() == self.pids, "a process was replaced"
        assert self.stream.stats().holders == self.database.stats().holders == 1

    def check_memory(self) -> None:
        grown = [now - before for now, before in zip(self._memory(), self.at_first, strict=True)]
        assert max(grown) < GROWTH_BYTES, f"broker and workers have grown by {grown} bytes"

    def close(self) -> None:
        self.stream.close()
        self.database.close()


def attack(
    victims: Victims, count: int, rng: random.Random, say: Callable[[str], None] = lambda _: None
) -> None:
    """Send `count` envelopes, half of them to the router, half to doors; AssertionError when it is felt."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router: Any = context.socket(zmq.DEALER)
    router.setsockopt(zmq.LINGER, 0)
    router.connect(os.environ["TRUNKLINE_BROKER"])
    doors = [str(victims.folder() / f"w-{key.hex()}") for key in victims.keys]
    try:
        for number in range(count):
            key = rng.choice(victims.keys)
            if number % 2:
                to = rng.choice((BROKER, BROKER, key, key, b"x" * 8, b"", rng.randbytes(5)))
                _send(router, [to, *envelope(rng, key)])
            else:
                _knock(rng.choice(doors), [on_a_door(rng, key) for _ in range(rng.randint(1, 4))])
            if number % 500 == 499:
                victims.check()
            if number % 20_000 == 19_999:
                victims.check_memory()
                say(f"{number + 1} envelopes")
        victims.check()
        victims.check_memory()
    finally:
        router.close()
        context.term()


def _send(router: Any, frames: list[bytes]) -> None:
    """Send it, as soon as the broker takes more, and throw away what it answers."""
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(zmq.Again):
            while True:
                router.recv_multipart(zmq.NOBLOCK)
        try:
            router.send_multipart(frames, zmq.NOBLOCK)
            return
        except zmq.Again:
            assert time.monotonic() < end, "the broker takes no messages"
            router.poll(20, zmq.POLLOUT)


def _knock(door: str, messages: list[bytes]) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        _connect(sock, door)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for message in messages:
                sock.sendall(message)


def _connect(sock: socket.socket, door: str) -> None:
    """As soon as the line before the door is not full."""
    end = time.monotonic() + 30
    while True:
        try:
            sock.connect(door)
            return
        except BlockingIOError:
            assert time.monotonic() < end, "the worker takes no guests"
            time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with SocketServer(echo) as server:
        victims = Victims(server)
        attack(
            victims,
            options.count,
            random.Random(options.seed),
            lambda line: print(line, flush=True),
        )
        victims.close()
    trunkline.shutdown()
    print(f"{options.count} envelopes: nobody felt them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
