"""The demo's strategy: a user's program, run by `trunkline run` from a copy of this file.

Arguments: the demo's process id, the feed's address, the database's address, the file for the
result. Standard input: `note:text` for every event of the demo; `busy:ms` makes the strategy too
busy to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from trunkline.system.interpreter import command, environment

# The runner provides these functions.
if TYPE_CHECKING:

    def Dial(*arguments: Any, **options: Any) -> Any: ...
    def GetCommand() -> str | None: ...
    def Log(*values: Any) -> None: ...
    def LogStatus(*values: Any) -> None: ...
    def Sleep(ms: float) -> None: ...


DRAW_S = 0.2
READ_MS = 100
END_S = 10.0
BUSY = "#ffaa00"
BAD = "#ff5555"
GOOD = "#55ff55"


class Market:
    """The data that the strategy has received."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}
        self.ticks: dict[str, tuple[float, float]] = {}
        self.first: dict[str, float] = {}
        self.stored = 0
        """Ticks handed to the writer."""
        self.outages = 0
        self.down = False
        self.ended = False
        self.pongs = 0


feed: Any = None
database: Any = None
writer: Any = None
market = Market()


def start_writer(handle: int) -> Any:
    """Start a process that stores ticks through the strategy's database connection, by its
    handle."""
    process = subprocess.Popen(
        command("trunkline.demo.writer"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    assert process.stdin
    process.stdin.write(f"{handle}\n")
    process.stdin.flush()
    return process


def on_message(text: str) -> None:
    """Take a message: answer a ping, store a tick, or note the end."""
    message = json.loads(text)
    market.seen.setdefault(message["link"], []).append(message["n"])
    if "ping" in message:
        market.pongs += bool(feed.write(json.dumps({"pong": message["ping"]})))
    elif "s" in message:
        symbol, price = message["s"], message["p"]
        market.first.setdefault(symbol, price)
        market.ticks[symbol] = (price, message["q"])
        market.stored += 1
        writer.stdin.write(json.dumps([message["seq"], message["link"], symbol, price]) + "\n")
    elif "end" in message:
        market.ended = True


def on_outage() -> None:
    """Count an outage: reads return "" until the link is up again, but count once."""
    if not market.down:
        market.down = True
        market.outages += 1


def on_command(command: str) -> None:
    """Obey a line from the demo."""
    name, _, value = command.partition(":")
    if name == "note":
        Log(value, BAD)
    elif name == "busy":
        Log(
            f"the strategy computes for {value} ms and does not read; the buffer holds the newest messages",
            BUSY,
        )
        time.sleep(float(value) / 1000)


def draw() -> None:
    """Draw the table of tickers and the figures."""
    rows = [
        [
            symbol,
            f"{price:.6g}",
            f"{100 * (price / market.first[symbol] - 1):+.3f} %",
            f"{size:.3f}",
        ]
        for symbol, (price, size) in sorted(market.ticks.items())
    ]
    table = {
        "type": "table",
        "title": "Tickers",
        "cols": ["symbol", "last", "change", "size"],
        "rows": rows,
    }
    received = sum(map(len, market.seen.values()))
    link = "down, reconnecting" if market.down else f"up, number {max(market.seen, default=0)}"
    figures = f"{received} messages, {market.stored} ticks to the database, {market.outages} outages; link {link}"
    LogStatus(figures + "\n`" + json.dumps(table) + "`")


def follow(demo: int) -> None:
    """Read until the exchange announces the end, or the demo has ended."""
    drawn = 0.0
    while not market.ended and os.getppid() == demo:
        message = feed.read(READ_MS)
        if message:
            if market.down:
                market.down = False
                Log("the link is there again", GOOD)
            on_message(message)
        elif message == "":
            on_outage()
        while (command := GetCommand()) is not None:
            on_command(command)
        if time.monotonic() - drawn > DRAW_S:
            drawn = time.monotonic()
            writer.stdin.flush()
            draw()


def settled() -> Any:
    """The feed's figures, once every read message is acknowledged; after 2 s the figures as they
    are."""
    until = time.monotonic() + 2
    while True:
        stats = feed.stats()
        if not stats.buffered or time.monotonic() > until:
            return stats
        Sleep(20)


def main() -> None:
    """Dial the feed and the database, read until the end, and write the result."""
    global feed, database, writer
    demo, address, store, result = sys.argv[1:5]
    database = Dial(store)
    if not database:
        raise SystemExit("the database could not be dialled")
    database.exec("CREATE TABLE ticks (seq INTEGER, link INTEGER, symbol TEXT, price REAL)")
    writer = start_writer(database.fd())
    feed = Dial(address)
    if not feed:
        raise SystemExit("the feed could not be dialled")
    Log("dialled", feed.stats().peer, "- worker process", feed.stats().pid)
    follow(int(demo))
    draw()
    writer.stdin.close()
    answer = json.loads(writer.stdout.read() or "{}")
    stats = settled()
    figures = {
        name: getattr(stats, name)
        for name in (
            "messages_in",
            "read",
            "dropped",
            "reconnects",
            "incarnation",
            "outages",
            "errors",
        )
    }
    with open(result, "w", encoding="utf-8") as file:
        counts = {"ticks": market.stored, "pongs": market.pongs, "heard": market.outages}
        json.dump({"seen": market.seen, "writer": answer, **counts, **figures}, file)


def onexit() -> None:
    if writer is not None:
        with contextlib.suppress(BrokenPipeError):
            writer.stdin.close()
        writer.wait(END_S)
    for connection in (feed, database):
        if connection:
            connection.close()
