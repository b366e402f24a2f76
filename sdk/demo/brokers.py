"""`trunkline demo --brokers`: real message brokers, with restarts, freezes and kills.

This process starts the installed brokers (`broker_servers`) and makes the trouble: a broker is
restarted, another is frozen, and workers are killed. The publisher and the strategy are programs of
their own. At the end every number that the publisher had confirmed must be accounted for, as its
broker's mode promises (`broker_report`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trunkline.cli import FAILED, OK, Failed
from trunkline.deadline import Deadline
from trunkline.demo.broker_feeds import BROKERS, Event, Feed, events
from trunkline.demo.broker_place import Place, making_place
from trunkline.demo.broker_report import HEADING, Report, make_report
from trunkline.demo.broker_servers import SERVERS, Kafka, Server
from trunkline.demo.process import StrategyProcess
from trunkline.demo.signals import later, stoppable, uninterrupted
from trunkline.system.interpreter import command, environment
from trunkline.wire import endpoint

__all__ = ["run"]

SHORTEST_S = 6.0
"""The shortest demo in seconds."""
READY_S = 120.0
"""Seconds that a server has to become ready."""
DIALLED_S = 60.0
"""Seconds that a program has to dial all feeds."""
WRITTEN_S = 40.0
"""Seconds that the publisher has to end."""
END_S = 60.0
"""Seconds that the strategy has to read the rest."""
FROZEN_S = 1.5
"""Seconds that a server stays frozen."""
BETWEEN_S = 1.0
"""The least seconds between two events."""
AFTER_S = 2.0
"""Seconds after the last event, so that the strategy reads something again."""
LOOK_S = 0.1
"""Seconds between two looks at the programs."""
LEAVE_S = 5.0
"""Seconds that the publisher has to leave before it is killed."""


def run(options: argparse.Namespace) -> int:
    """Run the demo and print its report; returns the exit status."""
    plain = options.plain or not sys.stdout.isatty()
    Kafka.given = options.kafka
    chosen = _choose_servers(options.brokers)
    with stoppable(), making_place() as place, _servers(place, chosen) as servers:
        feeds = [feed for server in servers for feed in server.feeds()]
        own = place.private("strategy")
        plan = own / "plan.json"
        plan.write_text(json.dumps([asdict(feed) for feed in feeds]))
        with _run_programs(own, plan, plain=plain) as (publisher, strategy):
            show = Show(servers, feeds, publisher, strategy, own)
            show.introduce()
            show.begin()
            show.play(max(SHORTEST_S, options.seconds))
            published = show.finish()
        report = make_report(feeds, published, _read_result(own), show.kills, show.restarted)
    _print_report(report, plain=plain)
    return OK if report.ok else FAILED


# Starting the servers.


def _choose_servers(asked: str) -> list[type[Server]]:
    """The servers to use: those asked for, or all installed servers.

    Raises Failed when no server is installed, or when a server that was asked for is missing.
    """
    names = BROKERS if asked == "all" else tuple(asked.split(","))
    missing = {name: why for name in names if (why := SERVERS[name].missing())}
    lines = "".join(f"\n  {why}" for why in missing.values())
    if asked != "all" and missing:
        raise Failed(f"not everything that --brokers {asked} needs is here:{lines}")
    if len(missing) == len(names):
        raise Failed(f"no message broker is installed here; install one or more of them:{lines}")
    for why in missing.values():
        print(f"not here   {why}")
    return [SERVERS[name] for name in names if name not in missing]


@contextlib.contextmanager
def _servers(place: Place, kinds: list[type[Server]]) -> Iterator[list[Server]]:
    """Start all servers at the same time and wait until every server is ready; kill them at the
    end."""
    with contextlib.ExitStack() as stack:
        servers = []
        print(f"starting   {', '.join(kind.title for kind in kinds)}", flush=True)
        began = time.monotonic()
        for kind in kinds:
            server = kind(place)
            stack.callback(uninterrupted(server.kill))
            server.start()
            servers.append(server)
        for server in servers:
            _await_ready(server)
        print(f"ready      after {time.monotonic() - began:.1f} s", flush=True)
        yield servers


def _await_ready(server: Server) -> None:
    """Wait until clients can log in; Failed after `READY_S` seconds."""
    deadline = Deadline(READY_S)
    while not server.ready():
        if deadline.expired():
            words = server.words()
            raise Failed(
                f"{server.title} at {server.at} was not ready in {READY_S:g} s"
                + (f"; its last words:\n{words}" if words else "")
            )
        time.sleep(LOOK_S)


# The publisher and the strategy.


class Publisher:
    """`broker_publisher` as a process, which uses the strategy's Trunkline broker."""

    def __init__(self, plan: Path, result: Path, broker: str) -> None:
        self.result = result
        self.process = subprocess.Popen(
            command("trunkline.demo.broker_publisher", str(plan), str(result)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment({**os.environ, endpoint.ENV: broker}),
            start_new_session=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout

    def running(self) -> bool:
        return self.process.poll() is None

    def tell(self, word: str) -> None:
        """Send a command to the publisher."""
        # The publisher may have ended; the callers that wait for the publisher notice that.
        with contextlib.suppress(OSError):
            self._in.write(f"{word}\n".encode())
            self._in.flush()

    def says(self, word: str) -> bool:
        """Whether the publisher's next line is `word`. Does not wait for a line."""
        ready, _, _ = select.select([self._out], [], [], 0)
        return bool(ready) and self._out.readline().decode().strip() == word

    def end(self) -> None:
        """Close the publisher's input, wait for its end, and kill it after `LEAVE_S` seconds."""
        with contextlib.suppress(OSError):
            self._in.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVE_S)
        self.process.kill()
        self.process.wait()
        self._out.close()


@contextlib.contextmanager
def _run_programs(
    folder: Path, plan: Path, *, plain: bool
) -> Iterator[tuple[Publisher, StrategyProcess]]:
    """Start both programs and end them in the reverse order.

    `StrategyProcess` starts the Trunkline broker that the publisher uses too, so the strategy ends
    last.
    """
    with contextlib.ExitStack() as stack:
        with later():
            strategy = StrategyProcess(
                folder, "broker_strategy.py", [str(plan), str(folder)], plain=plain
            )
            stack.callback(uninterrupted(strategy.end))
            publisher = Publisher(plan, folder / "published.json", strategy.broker)
            stack.callback(uninterrupted(publisher.end))
        yield publisher, strategy


class Show:
    """The course of the demo, from the first tick to the last."""

    def __init__(
        self,
        servers: list[Server],
        feeds: list[Feed],
        publisher: Publisher,
        strategy: StrategyProcess,
        folder: Path,
    ) -> None:
        self.kills = 0
        self.restarted: list[str] = []
        self._servers = {server.broker: server for server in servers}
        self._feeds = feeds
        self._publisher = publisher
        self._strategy = strategy
        self._folder = folder

    def introduce(self) -> None:
        """Print the servers, their feeds and the two programs."""
        for server in self._servers.values():
            modes = ", ".join(
                f"{f.name} ({f.guarantee})" for f in self._feeds if f.broker == server.broker
            )
            print(f"{server.broker:<10} {server.title} at {server.at}: {modes}")
        print(f"publisher  process {self._publisher.process.pid}")
        print(
            f"strategy   process {self._strategy.process.pid}; their broker {self._strategy.broker}",
            flush=True,
        )

    def begin(self) -> None:
        """Start in order: the publisher makes queues and streams, the strategy reads, the publisher
        writes."""
        self._await_event(
            lambda: self._publisher.says("ready"), DIALLED_S, "the publisher could not dial"
        )
        self._strategy.tell("dial")
        reading = self._folder / "reading"
        self._await_event(reading.exists, DIALLED_S, "the strategy did not dial its feeds")
        self._publisher.tell("go")

    def play(self, length_s: float) -> None:
        """Make the events happen, spread over `length_s` seconds."""
        started = time.monotonic()
        foreign = [server.broker for server in self._servers.values() if server.foreign]
        for event in events(list(self._servers), foreign):
            self._wait_until(max(started + event.part * length_s, time.monotonic() + BETWEEN_S))
            self._make_happen(event)
        self._wait_until(max(started + length_s, time.monotonic() + AFTER_S))

    def finish(self) -> dict[str, Any]:
        """Stop the publisher and let the strategy read the rest; returns the publisher's record of
        its writes."""
        self._publisher.tell("finish")
        self._await_event(
            lambda: self._publisher.says("done"), WRITTEN_S, "the publisher did not end"
        )
        self._strategy.tell(f"end:{self._publisher.result}")
        deadline = Deadline(END_S)
        while self._strategy.running() and not deadline.expired():
            time.sleep(LOOK_S)
        code = self._strategy.process.poll()
        if code == 128 + signal.SIGPIPE:
            # The reader of the strategy's output has gone.
            raise BrokenPipeError
        if code != 0:
            how = "did not end" if code is None else f"ended early with status {code}"
            raise Failed(f"the strategy {how}; `trunkline doctor` may tell why")
        published: dict[str, Any] = json.loads(self._publisher.result.read_text(encoding="utf-8"))
        return published

    # The events.

    def _make_happen(self, event: Event) -> None:
        """Make an event happen: restart or freeze a server, or kill workers."""
        server = self._servers[event.broker]
        if event.what == "restart":
            self._tell_strategy(f"{server.title} is restarted")
            server.stop()
            server.start()
            self._until_ready(server)
            self.restarted.append(event.broker)
        elif event.what == "freeze":
            self._tell_strategy(f"{server.title} is frozen (SIGSTOP) for {FROZEN_S:g} s")
            server.freeze()
            try:
                self._wait_until(time.monotonic() + FROZEN_S)
            finally:
                server.thaw()
        else:
            self._kill_workers(server)

    def _kill_workers(self, server: Server) -> None:
        """Kill the strategy's workers that read from this server."""
        topics = [feed.topic for feed in self._feeds if feed.broker == server.broker]
        rows = self._strategy.connections()
        pids = [
            int(row["pid"])
            for row in rows
            if row["scheme"] == server.broker and any(topic in row["peer"] for topic in topics)
        ]
        named = " ".join(map(str, pids))
        self._tell_strategy(f"kill -9 {named}: the workers that read {server.title} die")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def _tell_strategy(self, text: str) -> None:
        """Let the strategy print a note before the event.

        The strategy looks for notes many times a second.
        """
        self._strategy.tell(f"note:{text}")
        self._wait_until(time.monotonic() + LOOK_S)

    def _until_ready(self, server: Server) -> None:
        """Wait until the server is back, and check the programs meanwhile."""
        deadline = Deadline(READY_S)
        while not server.ready():
            if deadline.expired():
                raise Failed(f"{server.title} did not come back; its last words:\n{server.words()}")
            self._wait_until(time.monotonic() + LOOK_S)

    # Waiting.

    def _wait_until(self, until: float) -> None:
        """Wait until the time `until` on the monotonic clock, and check both programs meanwhile."""
        while (left := until - time.monotonic()) > 0:
            self._check_programs()
            time.sleep(min(LOOK_S, left))

    def _await_event(self, happened: Callable[[], bool], timeout_s: float, failed: str) -> None:
        """Wait for an event; Failed with the text `failed` after `timeout_s` seconds, or when a
        program ends."""
        deadline = Deadline(timeout_s)
        while not happened():
            self._check_programs()
            if deadline.expired():
                raise Failed(f"{failed} in {timeout_s:g} s; `trunkline doctor` may tell why")
            time.sleep(LOOK_S)

    def _check_programs(self) -> None:
        """Raise Failed unless both programs live; BrokenPipeError when the strategy's reader has
        gone."""
        if not self._strategy.running():
            code = self._strategy.process.poll()
            if code == 128 + signal.SIGPIPE:
                raise BrokenPipeError
            raise Failed(f"the strategy ended early with status {code}; see above")
        if not self._publisher.running():
            raise Failed(
                f"the publisher ended early with status {self._publisher.process.poll()}; see above"
            )


# The end.


def _read_result(folder: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Failed("the strategy ended without its result") from None
    return result


def _print_report(report: Report, *, plain: bool) -> None:
    from trunkline.demo.tables import Tables

    tables = Tables(plain=plain)
    tables.console.print()
    tables.table(HEADING, [each.row() for each in report.figures])
    tables.checks(report.checks)
    tables.verdict(report.checks)
