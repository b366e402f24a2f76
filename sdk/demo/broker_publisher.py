"""The publisher of the brokers' demo: a program that writes numbered ticks, with a thread for each
feed.

Arguments: the plan (a file with the feeds) and the file for the result. Standard input: `go` and
`finish`; its end means that the demo has ended. Where a broker keeps messages, the publisher
repeats a tick until it is confirmed, as "at least once" demands of a writer. Elsewhere the
publisher skips the tick.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
import time
from typing import Any

from trunkline import Connection, Dial, TrunklineError, connect, last_error, shutdown

RATE = 40
"""Ticks per second of every feed."""
WRITE_MS = 5000
"""Milliseconds that a write may take."""
FINISH_S = 20.0
"""Seconds that the writers have to end by themselves after `finish`."""
AGAIN_S = 0.05
"""Seconds before a tick is written again."""
START = 64_000.0


class Writer(threading.Thread):
    """Writes a feed until `finish`."""

    def __init__(
        self, feed: dict[str, Any], connection: Connection, finish: threading.Event
    ) -> None:
        super().__init__(name=feed["name"], daemon=True)
        self.feed = feed
        self.last = 0
        """The highest number that was tried."""
        self.failed: list[int] = []
        """The numbers that were not confirmed."""
        self.again = 0
        """The number of repeated writes."""
        self._connection = connection
        self._finish = finish
        self._give_up = float("inf")
        self._price = START

    def run(self) -> None:
        """Write RATE ticks a second until `finish`. Runs on the writer's own thread."""
        while not self._finish.wait(1 / RATE):
            self.last += 1
            self._price *= 1 + random.gauss(0, 0.0004)
            if not self._write_tick(
                json.dumps({"n": self.last, "p": round(self._price, 2), "t": time.time_ns()})
            ):
                self.failed.append(self.last)

    def give_up(self) -> None:
        """Stop repeating an unconfirmed tick: the thread then ends."""
        self._give_up = time.monotonic()

    def _write_tick(self, tick: str) -> bool:
        """Write a tick; returns whether the broker has confirmed it."""
        while not self._connection.write(tick, WRITE_MS):
            if not self.feed["acknowledged"] or time.monotonic() > self._give_up:
                return False
            self.again += 1
            time.sleep(AGAIN_S)
        return True


def make_stream(address: str, subject: str) -> None:
    """Make a JetStream stream of this subject, by a request to JetStream's interface; raises
    TrunklineError."""
    server = address.partition("?")[0]
    with connect(f"{server}?write_topic=$JS.API.STREAM.CREATE.TICKS") as connection:
        answer = json.loads(
            connection.request(json.dumps({"name": "TICKS", "subjects": [subject]}), WRITE_MS)
            or "{}"
        )
    if "error" in answer:
        raise TrunklineError(f"the stream could not be made: {answer['error'].get('description')}")


def open_feeds(feeds: list[dict[str, Any]], finish: threading.Event) -> list[Writer]:
    """Dial every feed; raises TrunklineError. JetStream's stream is made first."""
    writers = []
    for feed in feeds:
        if feed["name"] == "jetstream":
            make_stream(feed["write"], feed["topic"])
        connection = Dial(feed["write"])
        if connection is None:
            raise TrunklineError(f"{feed['name']}: {last_error()}")
        writers.append(Writer(feed, connection, finish))
    return writers


def result_of(writers: list[Writer]) -> dict[str, Any]:
    """For every feed: the highest number, the unconfirmed numbers, and the count of repeated
    writes."""
    return {w.feed["name"]: {"last": w.last, "failed": w.failed, "again": w.again} for w in writers}


def main() -> int:
    """Obey standard input; returns the exit code."""
    plan_file, result_file = sys.argv[1:3]
    with open(plan_file, encoding="utf-8") as file:
        feeds = json.load(file)
    # The strategy reports on the links; the publisher's own warnings would repeat them.
    logging.disable(logging.WARNING)
    finish = threading.Event()
    try:
        writers = open_feeds(feeds, finish)
    except TrunklineError as error:
        print(f"the publisher cannot write: {error}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "go\n":
            for writer in writers:
                writer.start()
        elif line == "finish\n":
            finish.set()
            ending = time.monotonic() + FINISH_S
            for writer in writers:
                writer.join(max(0.0, ending - time.monotonic()))
                writer.give_up()
                writer.join(2 * WRITE_MS / 1000)
            with open(result_file, "w", encoding="utf-8") as file:
                json.dump(result_of(writers), file)
            print("done", flush=True)
            break
    shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
