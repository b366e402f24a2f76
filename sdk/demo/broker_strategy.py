"""The strategy of the brokers' demo: a user's program, run by `trunkline run` from a copy of this
file.

Arguments: the demo's process id; the plan (a file with the feeds); the folder for the result and
for the file `reading`, which exists once all feeds are dialled. Standard input: `dial` when the
feeds can be dialled; `note:text` for every event of the demo; `end:file` when the publisher has
ended, with the file of the publisher's result.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The runner provides these functions.
if TYPE_CHECKING:

    def Dial(*arguments: Any, **options: Any) -> Any: ...
    def GetCommand() -> str | None: ...
    def Log(*values: Any) -> None: ...
    def LogStatus(*values: Any) -> None: ...
    def Sleep(ms: float) -> None: ...


DRAW_S = 0.2
LOOK_MS = 20
"""Milliseconds between two looks at standard input."""
READ_MS = 200
KEPT_S = 45.0
"""Seconds to wait for messages whose delivery a broker has promised."""
QUIET_S = 2.0
"""Seconds of silence after which no more messages come, for brokers without such a promise."""
BAD = "#ff5555"
GOOD = "#55ff55"


class Reader(threading.Thread):
    """Reads a feed. The connection reconnects by itself; a `""` shows the outage."""

    def __init__(self, feed: dict[str, Any], connection: Any) -> None:
        super().__init__(name=feed["name"], daemon=True)
        self.feed = feed
        self.connection = connection
        self.runs: list[list[Any]] = []
        """The numbers read, in order, as runs: first number, last number, whether an outage came
        before the run."""
        self.read = 0
        self.seen: set[int] = set()
        self.outages = 0
        self.down = False
        self.price = 0.0
        self.delays_ms: deque[float] = deque(maxlen=20_000)
        """Milliseconds from the publisher's clock to our worker's clock: the way through the
        broker."""
        self.recent: deque[float] = deque()
        """The times at which messages were read, for the rate."""
        self.news = time.monotonic()
        self.over = threading.Event()

    def run(self) -> None:
        """Read until the end of the demo. Runs on the reader's own thread."""
        while not self.over.is_set():
            message = self.connection.receive(READ_MS)
            if message == "":
                self.on_outage()
            elif message is not None:
                self.on_message(message)

    def on_outage(self) -> None:
        """Count an outage once, until the next message."""
        if not self.down:
            self.down = True
            self.outages += 1
            Log(self.name, "- the link is down", BAD)

    def on_message(self, message: Any) -> None:
        """Note a message: extend the last run, or begin a run after a gap or an outage."""
        tick = json.loads(message.data)
        number = tick["n"]
        if self.runs and not self.down and number == self.runs[-1][1] + 1:
            self.runs[-1][1] = number
        else:
            self.runs.append([number, number, self.down])
        if self.down:
            self.down = False
            Log(self.name, "- the link is there again", GOOD)
        self.read += 1
        self.seen.add(number)
        self.price = tick["p"]
        self.delays_ms.append((message.received_ns - tick["t"]) / 1e6)
        self.news = time.monotonic()
        self.recent.append(self.news)

    def rate(self) -> int:
        """The number of messages in the last second."""
        while self.recent and self.recent[0] < time.monotonic() - 1:
            self.recent.popleft()
        return len(self.recent)

    def has_all(self, written: dict[str, Any]) -> bool:
        """Whether no more messages will come. `written` is the publisher's result for this feed."""
        if self.feed["acknowledged"]:
            return (
                len(self.seen) >= written["last"] - len(written["failed"])
                and self.lacks(written) == 0
            )
        return written["last"] in self.seen or time.monotonic() - self.news > QUIET_S

    def lacks(self, written: dict[str, Any]) -> int:
        """The number of confirmed messages that were not read."""
        return len(set(range(1, written["last"] + 1)) - set(written["failed"]) - self.seen)

    def delay(self, count: int) -> str:
        """The median delay of the latest `count` messages."""
        latest = list(self.delays_ms)[-count:]
        return f"{statistics.median(latest):.1f} ms" if latest else "-"

    def result(self) -> dict[str, Any]:
        """The feed's figures for the report."""
        stats = settled(self.connection, self.read)
        figures = {
            name: getattr(stats, name)
            for name in ("messages_in", "read", "dropped", "returned", "reconnects", "incarnation")
        }
        heard = {"outages": self.outages, "down": self.down, "delay": self.delay(20_000)}
        return {"runs": self.runs, **heard, **figures}


readers: list[Reader] = []


def settled(connection: Any, count: int) -> Any:
    """The connection's figures, once every read message is acknowledged; after 2 s the figures as
    they are."""
    until = time.monotonic() + 2
    while True:
        stats = connection.stats()
        if (stats.read == count and not stats.buffered) or time.monotonic() > until:
            return stats
        Sleep(20)


def draw() -> None:
    """Draw the table of feeds."""
    rows = [
        [
            reader.name,
            str(reader.read),
            str(reader.rate()),
            str(reader.read - len(reader.seen)),
            str(reader.outages),
            "down" if reader.down else "up",
            f"{reader.price:.2f}",
            reader.delay(40),
        ]
        for reader in readers
    ]
    columns = ["feed", "received", "per s", "twice", "outages", "link", "last price", "latency"]
    LogStatus(
        "`" + json.dumps({"type": "table", "title": "Feeds", "cols": columns, "rows": rows}) + "`"
    )


def follow(demo: int) -> None:
    """Read until every written message has been read, or can no longer come."""
    written: dict[str, Any] | None = None
    drawn, patience = 0.0, float("inf")
    while os.getppid() == demo and time.monotonic() < patience:
        while (command := GetCommand()) is not None:
            name, _, value = command.partition(":")
            if name == "note":
                Log(value, BAD)
            elif name == "end":
                written = json.loads(Path(value).read_text(encoding="utf-8"))
                patience = time.monotonic() + KEPT_S
        if written is not None and all(reader.has_all(written[reader.name]) for reader in readers):
            return
        if time.monotonic() - drawn > DRAW_S:
            drawn = time.monotonic()
            draw()
        Sleep(LOOK_MS)


def main() -> None:
    """Dial the feeds, read until the end, and write the result."""
    demo, plan, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    while GetCommand() != "dial":
        if os.getppid() != demo:
            return
        Sleep(LOOK_MS)
    for feed in json.loads(plan.read_text(encoding="utf-8")):
        connection = Dial(feed["read"])
        if not connection:
            raise SystemExit(f"{feed['name']} could not be dialled")
        readers.append(Reader(feed, connection))
        Log("dialled", feed["name"], "- worker process", connection.stats().pid)
    for reader in readers:
        reader.start()
    (folder / "reading").touch()
    follow(demo)
    stop()
    draw()
    result = {reader.name: reader.result() for reader in readers}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def stop() -> None:
    """Stop all readers and wait for their threads."""
    for reader in readers:
        reader.over.set()
    for reader in readers:
        if reader.ident is not None:
            reader.join(5)


def onexit() -> None:
    stop()
    for reader in readers:
        reader.connection.close()
