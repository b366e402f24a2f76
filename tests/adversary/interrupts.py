"""Real SIGINTs from another process at random moments of a strategy's calls:
`python -m tests.adversary.interrupts [--count 1000] [--seed S] [KIND...]`.

Kinds: read, newest (`read(-2)`), write, exec, transaction, close (and Dial). Some of the signals come in
pairs, so that the second one meets the cleanup after the first. The strategy catches KeyboardInterrupt and
goes on. In the end each message was read once, in order, or was counted; each write that was told to be taken
came, none came twice; each statement that was told to be done is there, once; each transaction is there as a
whole or not at all; no connection, process or file is left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.adversary.interrupted import KINDS
from tests.support.leaks import MARKER
from tests.support.programs import Program, Remains
from tests.support.servers import WsServer, echo_messages, hold
from tests.support.sockets import SocketServer, deaf
from tests.support.waiting import until

__all__ = ["KINDS", "Interrupted", "faults"]

LONGEST_S = 0.02
PAIR_S = 0.001
PATIENCE_S = 100.0
END_S = 30.0
_CODE = "from tests.adversary import interrupted\ninterrupted.main(*args)\n"


class Interrupted:
    """What one run gave."""

    def __init__(self, faults: list[str], raised: int = 0, during_cleanup: int = 0) -> None:
        self.faults, self.raised, self.during_cleanup = faults, raised, during_cleanup


class _Peer:
    """The other side of one kind."""

    def __init__(self, kind: str, rng: random.Random, folder: Path) -> None:
        self._kind, self._rng = kind, random.Random(rng.random())
        self._stop = threading.Event()
        self.address = f"sqlite3://{folder}/{kind}.db"
        self._texts: SocketServer | None = None

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        if self._kind in ("read", "newest"):
            with WsServer(self._numbers) as server:
                self.address = server.url
                yield
        elif self._kind == "write":
            with SocketServer(deaf) as self._texts:
                self.address = self._texts.url
                yield
        elif self._kind == "close":
            with WsServer(echo_messages) as server:
                self.address = server.url
                yield
        else:
            yield

    def _numbers(self, ws: ServerConnection) -> None:
        """Numbers in bursts, with pauses in which a reader has to wait."""
        number = 0
        try:
            while not self._stop.is_set():
                for _ in range(self._rng.randrange(1, 20)):
                    ws.send(str(number))
                    number += 1
                self._stop.wait(self._rng.random() * 0.01)
            ws.send("end")
            hold(ws)
        except ConnectionClosed:
            pass

    def stop(self) -> None:
        self._stop.set()

    def faults(self, program: Program) -> list[str]:
        """What is wrong with the program's result."""
        result = program.wait_line("result ", PATIENCE_S).split()
        if self._kind in ("read", "newest"):
            wanted = ["True", "0", "0", result[3] if self._kind == "newest" else "0"]
            left = program.wait_line("unaccounted ", PATIENCE_S)
            right = result == wanted and left == "0"
            return (
                []
                if right
                else [f"in order, wrongly read, lost, skipped: {result}; unaccounted: {left}"]
            )
        if self._kind == "write":
            return self._faults_of_writing(program)
        wanted = ["1", "1", "x"] if self._kind == "close" else ["0", "True", "True", "0"]
        return [] if result == wanted else [f"{result}, not {wanted}"]

    def _faults_of_writing(self, program: Program) -> list[str]:
        assert self._texts is not None
        text = self._texts.peers[0].read_until(b"end").decode()
        arrived = [int(each) for each in re.findall(r"<(\d+)>", text)]
        taken = {int(each) for each in program.wait_line("taken").split()}
        found = []
        if (
            "".join(f"<{number}>" for number in arrived) + "end" != text
            or sorted(set(arrived)) != arrived
        ):
            found.append("what arrived is torn, doubled or out of order")
        if missing := taken - set(arrived):
            found.append(f"told to be taken, and never came: {sorted(missing)[:5]}")
        return found


def faults(kind: str, count: int, rng: random.Random, folder: Path) -> Interrupted:
    """Interrupt a strategy of this kind so often; what did not hold."""
    os.environ.pop("TRUNKLINE_BROKER", None)
    peer, remains = _Peer(kind, rng, folder), Remains()
    with (
        peer.serving(),
        Program(
            _CODE, kind, peer.address, count, rng.random(), env={"HOME": str(folder)}
        ) as program,
    ):
        try:
            program.wait_line("ready", PATIENCE_S)
            _interrupt(program, rng)
            peer.stop()
            found = peer.faults(program)
            raised, during_cleanup = map(int, program.wait_line("interrupts ", PATIENCE_S).split())
            program.tell()
            found += _faults_at_the_end(program)
            if _tracebacks(program.lines):
                found += program.lines
            if not found:
                remains.assert_none(15)
        except AssertionError as error:
            return Interrupted([str(error)[-3000:]])
    return Interrupted(found, raised, during_cleanup)


def _tracebacks(lines: list[str]) -> bool:
    """Whether an exception came out. Not those that Python ignores: a handler that raises in a callback of
    its weak references, for instance."""
    pairs = itertools.pairwise(["", *lines])
    return any(
        "Traceback" in line and "Exception ignored in" not in before for before, line in pairs
    )


def _faults_at_the_end(program: Program) -> list[str]:
    try:
        code = program.end(END_S)
    except subprocess.TimeoutExpired:
        program.process.send_signal(signal.SIGUSR1)  # where it is stuck
        with contextlib.suppress(AssertionError):
            until(
                lambda: any("most recent call first" in line for line in program.lines),
                "its stacks",
            )
        return ["it does not end", *program.lines[-60:]]
    return [f"exit code {code}"] if code else []


def _interrupt(program: Program, rng: random.Random) -> None:
    """Send SIGINT until the program says that it has had enough."""
    end = time.monotonic() + PATIENCE_S
    while (
        "enough" not in program.lines and program.process.poll() is None and time.monotonic() < end
    ):
        with contextlib.suppress(AssertionError):  # it has not
            program.wait_line("enough", LONGEST_S * 10 ** -rng.uniform(0, 3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGINT)
            if rng.random() < 0.4:
                threading.Event().wait(PAIR_S * rng.random())
                os.kill(program.pid, signal.SIGINT)
    program.wait_line("enough", 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], metavar="KIND")
    parser.add_argument("--count", type=int, default=1000, help="interrupts in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    kinds = options.kinds or list(KINDS)
    print(f"seed {options.seed}", flush=True)
    rng, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory(prefix="tl-i-") as folder:
        runtime, home = Path(folder, "r"), Path(folder, "h")
        runtime.mkdir(0o700)
        home.mkdir()
        os.environ.update({"TRUNKLINE_RUNTIME": str(runtime), MARKER: f"interrupts.{os.getpid()}"})
        for kind in kinds:
            done = faults(kind, -(-options.count // len(kinds)), rng, home)
            bad += bool(done.faults)
            told = "; ".join(done.faults) or "all held"
            print(
                f"{kind}: {done.raised} interrupts, {done.during_cleanup} in a cleanup: {told}",
                flush=True,
            )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
