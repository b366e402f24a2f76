"""The strategy under trial: `python -m tests.adversary.child CONFIG`, CONFIG being JSON.

One thread reads, one writes (or executes numbered statements), and the main thread carries out what it
is asked on standard input, a word a line. Where a connection has ended, another one is dialled: the
next *generation*. Notes, in FOLDER/NAME.jsonl:

    ["m", generation, who, message, when]         ["l", generation, who]    an outage was read
    ["w", number, began, ended, taken]  written    ["slow", what, seconds, limit, began, ended]
    ["dial", generation, pid]                      ["end", generation, state, figures]
    ["started", seconds]      from the start of the process until it had imported all
    ["late", seconds, when]   this process itself did not run for so long
    ["finishing"]   ["done", figures]         all that came was read; ["bye"]: about to end; ["wrong", text]
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trunkline
from tests.adversary.notes import Notes

READ_MS = 200
WRITE_MS = 1000
DIAL_S = 5
FD_S = 5
QUIET = 3
_PADDING = re.compile(r"x+")
PACE = threading.Event()


class Program:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.note = Notes(Path(config["folder"]) / f"{config['name']}.jsonl")
        self.who = config["name"]
        self.conn: Any = None
        self.generation = 0
        self.ending = threading.Event()
        self.finishing = threading.Event()
        self.read_all = threading.Event()
        self._dialling = threading.Lock()
        self._number = 0
        self._busy = False

    # calls

    def call(self, what: str, limit_s: float, act: Callable[..., Any], *arguments: Any) -> Any:
        began = time.monotonic()
        try:
            return act(*arguments)
        finally:
            took = time.monotonic() - began
            if took > limit_s + 0.3:
                self.note("slow", what, round(took, 3), limit_s, began, began + took)

    def dial(self, seen: int) -> None:
        """The next generation, unless somebody has dialled it since `seen`."""
        with self._dialling:
            if self.generation != seen or self.ending.is_set():
                return
            old = self.conn
            if old is not None:
                self.note("end", self.generation, *self.figures(old))
                self.call("close", 2, old.close)
                self.conn = None
            self.generation += 1
            target = self.config.get("handle") or self.config["address"]
            while not self.ending.is_set():
                conn = self.call("dial", DIAL_S, self._open, target)
                if conn is not None:
                    self.dialled(conn)
                    self.note("dial", self.generation, os.getpid())
                    self.conn = conn
                    return
                if self.config.get("handle"):
                    self.note("refused", trunkline.last_error())
                    self.ending.set()
                PACE.wait(0.05)

    def dialled(self, conn: Any) -> None:
        """Called with each new connection."""

    def _open(self, target: Any) -> Any:
        if self.config["form"] == "dial":
            return trunkline.Dial(target, DIAL_S)
        try:
            return trunkline.connect(target, DIAL_S)
        except trunkline.TrunklineError as error:
            self.note("undialled", str(error))
            return None

    def figures(self, conn: Any) -> tuple[str, dict[str, Any]]:
        stats = self.call("stats", 5, conn.stats)
        return stats.state, asdict(stats)

    # reading

    def read(self, conn: Any, generation: int, who: str) -> bool:
        """One read; whether a message came."""
        began = time.monotonic()
        try:
            message = self.call("read", READ_MS / 1000, conn.read, READ_MS)
            lost = message == "" or (
                message is None and time.monotonic() - began < READ_MS / 1000 - 0.02
            )
        except trunkline.ClosedError:
            message, lost = None, True
        except trunkline.TrunklineError:
            message, lost = None, True
        if message:
            text = message if isinstance(message, str) else message.decode("latin-1")
            self.note("m", generation, who, _PADDING.sub("", text), time.monotonic())
            return True
        if lost:
            self.lost(conn, generation, who)
        return False

    def lost(self, conn: Any, generation: int, who: str) -> None:
        """The link is away; where it is for good, dial."""
        self.note("l", generation, who)
        if self.figures(conn)[0] in ("lost", "failed", "closed"):
            self.dial(generation)
        PACE.wait(0.01)

    def keep_reading(self) -> None:
        quiet = 0
        enough = QUIET + self.config.get("comes_again_s", 0) * 1000 / READ_MS
        while not self.ending.is_set():
            conn, generation = self.conn, self.generation
            if conn is None:
                self.dial(generation)
                continue
            came = self.read(conn, generation, self.who)
            quiet = 0 if came or not self.finishing.is_set() else quiet + 1
            if quiet >= enough and not self.read_all.is_set():
                self.read_all.set()

    # writing

    def keep_writing(self) -> None:
        while not self.ending.is_set() and not self.finishing.is_set():
            conn = self.conn
            if conn is not None:
                self.write(conn)
            PACE.wait(0.01)

    def write(self, conn: Any) -> None:
        self._number += 1
        line = f"w {self._number}" + ("\n" if self.config["lines"] else "")
        began = time.monotonic()
        taken, why = 0, ""
        try:
            taken = self.call("write", WRITE_MS / 1000, conn.write, line, WRITE_MS)
        except trunkline.TrunklineError as error:
            why = type(error).__name__
        self.note("w", self._number, began, time.monotonic(), taken, why)

    # what it is asked

    def serve(self) -> None:
        """Carry out what is asked, until the end; Ctrl-C interrupts whatever it meets."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        lines = Lines()
        while not self.ending.is_set():
            word = lines.next()
            if word is None:
                break
            try:
                self._busy = True
                getattr(self, f"do_{word}")()
                self._busy = False
            except KeyboardInterrupt:
                self._busy = False
                self.note("interrupted", word)
        self.ending.set()

    def _on_interrupt(self, *_: object) -> None:
        """Ctrl-C; between two things that it is asked, where it would only meet this test, it is let pass."""
        if self._busy:
            raise KeyboardInterrupt

    def do_read(self) -> None:
        """For a while the main thread reads, too: here Ctrl-C meets a read."""
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            if self.conn is not None:
                self.read(self.conn, self.generation, f"{self.who}-main")

    def do_close(self) -> None:
        self.dial(self.generation)

    def do_handle(self) -> None:
        conn = self.conn
        handle = None
        try:
            handle = conn and self.call("fd", FD_S, conn.fd)
        except trunkline.TrunklineError as error:
            self.note("no handle", str(error))
        self.note("handle", handle, self.generation)

    def do_fork(self) -> None:
        conn, generation = self.conn, self.generation
        self._busy = False  # Ctrl-C amid Python's own work of a fork is Python's business
        if conn is None or os.fork():
            return
        code = 1
        try:
            self._busy = True
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                self.forked(conn, generation)
            trunkline.shutdown()  # os._exit tells nobody what was read last, and others would read it again
            code = 0
        except KeyboardInterrupt:
            code = 0
        finally:
            self.note("child", code)
            os._exit(code)

    def forked(self, conn: Any, generation: int) -> None:
        """What a forked child does again and again."""
        try:
            message = conn.read(100)
        except trunkline.TrunklineError:
            return
        if message:
            text = message if isinstance(message, str) else message.decode("latin-1")
            self.note(
                "m", generation, f"fork-{os.getpid()}", _PADDING.sub("", text), time.monotonic()
            )

    def do_finish(self) -> None:
        """Nothing more comes: read what there is, and say what the figures are then."""
        self.finishing.set()
        self.note("finishing")
        self.read_all.wait(30)
        conn, until = self.conn, time.monotonic() + 5
        while conn is not None:
            state, figures = self.figures(conn)
            if not figures["buffered"] or time.monotonic() > until:
                break
            PACE.wait(0.1)
        if conn is not None:
            self.note("done", self.generation, state, figures)

    def do_end(self) -> None:
        self.ending.set()

    def watch_itself(self) -> None:
        """How late this process runs: what it measures of others is not better than that."""
        while not self.ending.is_set():
            before = time.monotonic()
            time.sleep(0.02)
            late = time.monotonic() - before - 0.02
            if late > 0.05:
                self.note("late", round(late, 3), before)

    def run(self) -> None:
        _ = trunkline.Dial  # what the package loads at its first use is part of the start
        self.note("started", round(_age_s(), 3))
        jobs = [self.keep_reading, self.watch_itself]
        if self.config["writes"]:
            jobs.append(self.keep_writing)
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        self.serve()
        for thread in threads:
            thread.join(DIAL_S + 10)
            if thread.is_alive():
                self.note("wrong", f"{thread.name} hangs")
        if self.conn is not None:
            self.note("end", self.generation, *self.figures(self.conn))
            self.call("close", 2, self.conn.close)
        self.note("bye")

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            import traceback

            self.note("wrong", f"{job.__name__}: {error!r}\n{traceback.format_exc()}")


def _age_s() -> float:
    """How long this process has run. Not by the wall clock, which a step may have moved."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class Lines:
    """Standard input by lines; one that an interrupt cuts short is not lost."""

    def __init__(self) -> None:
        self._rest = b""

    def next(self) -> str | None:
        while b"\n" not in self._rest:
            more = os.read(0, 4096)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()
