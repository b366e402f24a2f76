"""`trunkline demo`: a feed, a strategy and a database at work, on this machine alone.

This process is the exchange (`trunkline.demo.feed`) and makes the trouble: it loses links and kills
the worker. The strategy (`trunkline.demo.strategy`) and its writer (`trunkline.demo.writer`) are
processes of their own, with a broker of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.cli import FAILED, OK, Failed
from trunkline.cli.texts import command_parser, seconds
from trunkline.deadline import Deadline
from trunkline.demo.certificate import Certificate, make_certificate
from trunkline.demo.process import StrategyProcess
from trunkline.demo.report import Report, Stored, make_report
from trunkline.demo.signals import later, stoppable, uninterrupted

if TYPE_CHECKING:
    from trunkline.demo.feed import Feed

SECONDS = 15.0
"""The default length of the demo in seconds."""
SHORTEST_S = 5.0
"""The shortest demo in seconds."""
START_S = 30.0
"""Seconds that the strategy has to subscribe."""
END_S = 20.0
"""Seconds that the strategy has to end after the feed."""
BUFFER = 100
"""The buffer of the feed's connection, in messages: so small that it overflows while the strategy
is busy."""
BUSY_MS = 1300
"""Milliseconds that the strategy is too busy to read."""
LOOK_S = 0.1
"""Seconds between two looks at the strategy."""
_EVENTS = ((0.2, "drop"), (0.4, "kill"), (0.6, "busy"), (0.87, "drop"))
"""The events of the demo, with their times as parts of the whole time."""


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "demo",
        "A local exchange sends tickers over wss, gzipped, with heartbeats and lost links. A strategy dials\n"
        "it, draws them and stores each in sqlite through a connection it shares with another process. Its\n"
        "worker is killed in the middle. At the end every message must be accounted for.\n\n"
        "With --brokers: the message brokers that are installed here (mosquitto, nats-server, RabbitMQ and\n"
        "Kafka), each started privately. One is restarted, one frozen, workers are killed; of what is\n"
        "acknowledged nothing may be lost.",
        "trunkline demo\ntrunkline demo --seconds 60\ntrunkline demo --plain > demo.txt\n"
        "trunkline demo --brokers\ntrunkline demo --brokers mqtt,nats",
        "exit codes: 0 all figures add up, 1 they do not, 130 ended by Ctrl-C\n",
    )
    add = made.add_argument
    add(
        "--seconds",
        type=seconds,
        default=SECONDS,
        metavar="N",
        help=f"how long (default {SECONDS:g})",
    )
    add("--seed", type=int, default=1, metavar="N", help="of the random walk (default 1)")
    add("--plain", action="store_true", help="plain lines, even on a terminal")
    add(
        "--brokers",
        type=_read_brokers,
        nargs="?",
        const="all",
        metavar="LIST",
        help="with message brokers: all that are installed, or these of mqtt,nats,amqp,kafka",
    )
    add(
        "--kafka",
        type=_read_server,
        metavar="HOST:PORT",
        help="with --brokers: a Kafka that runs already; a topic trunkline-demo-... stays there",
    )
    return made


def _read_brokers(text: str) -> str:
    """Check the names of brokers in `--brokers`."""
    from trunkline.demo.broker_feeds import BROKERS

    names = text.split(",")
    if text != "all" and (set(names) - set(BROKERS) or len(set(names)) < len(names)):
        raise argparse.ArgumentTypeError(f"some of {','.join(BROKERS)}, with commas between them")
    return text


def _read_server(text: str) -> str:
    """Check the HOST:PORT of `--kafka`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError("HOST:PORT, such as 127.0.0.1:9092")
    return text


def run(options: argparse.Namespace) -> int:
    """Run the demo and print its report; returns the exit code."""
    if options.brokers:
        from trunkline.demo import brokers as demo_brokers

        return demo_brokers.run(options)
    if options.kafka:
        raise Failed("--kafka belongs to --brokers: give both")
    try:
        from trunkline.demo.feed import Feed
    except ModuleNotFoundError as error:
        raise Failed(
            f"the demo needs the package {error.name}: pip install 'trunkline[demo]'"
        ) from None
    plain = options.plain or not sys.stdout.isatty()
    with stoppable(), tempfile.TemporaryDirectory(prefix="trunkline-demo-") as name:
        folder = Path(name)
        certificate = make_certificate(folder)
        feed = Feed(certificate, options.seed)
        with _serve_feed(feed), _run_strategy(folder, feed, certificate, plain=plain) as strategy:
            _print_processes(feed, certificate, strategy)
            kills = _play_events(feed, strategy, max(SHORTEST_S, options.seconds))
            _wait_until(strategy, time.monotonic() + END_S)
            code = strategy.process.poll()
        if code == 128 + signal.SIGPIPE:
            # The reader of the strategy's output has gone.
            raise BrokenPipeError
        if code != 0:
            how = (
                "did not see the end of the feed"
                if code is None
                else f"ended early with status {code}"
            )
            raise Failed(f"the strategy {how}; `trunkline doctor` may tell why")
        report = make_report(feed.ledger, _read_result(folder), _read_stored_ticks(folder), kills)
    _print_report(report, feed, plain=plain)
    return OK if report.ok else FAILED


# The parts.


@contextlib.contextmanager
def _serve_feed(feed: Feed) -> Iterator[None]:
    """Run the exchange inside the block."""
    feed.server.start()
    try:
        yield
    finally:
        feed.server.close()


@contextlib.contextmanager
def _run_strategy(
    folder: Path, feed: Feed, certificate: Certificate | None, *, plain: bool
) -> Iterator[StrategyProcess]:
    """Run the strategy inside the block, and end the strategy with its broker and workers."""
    arguments = [
        _feed_address(feed, certificate),
        _store_address(folder),
        str(folder / "result.json"),
    ]
    with contextlib.ExitStack() as stack:
        # A signal must not come between the strategy's start and the callback that ends the
        # strategy.
        with later():
            strategy = StrategyProcess(folder, "strategy.py", arguments, plain=plain)
            stack.callback(uninterrupted(strategy.end))
        yield strategy


def _feed_address(feed: Feed, certificate: Certificate | None) -> str:
    """The feed's address: a small buffer, quick reconnects, gzip, and the subscription as
    payload."""
    trust = "&proxy=none" + (f"&cafile={certificate.cert}" if certificate else "")
    how = f"reconnect=true&interval=300&compress=gzip&mode=recv&buffer={BUFFER}"
    return f"{feed.server.url}/ws|{how}{trust}&payload={json.dumps({'sub': 'tickers'})}"


def _store_address(folder: Path) -> str:
    return f"sqlite3://file:{folder / 'ticks.db'}?_journal_mode=WAL&_synchronous=OFF"


def _print_processes(
    feed: Feed, certificate: Certificate | None, strategy: StrategyProcess
) -> None:
    print(f"exchange  {feed.server.url}/ws: gzip, heartbeats, lost links; process {os.getpid()}")
    if certificate is None:
        print("          without TLS: neither the package trustme nor the command openssl is here")
    print(f"strategy  process {strategy.process.pid}; its broker {strategy.broker}", flush=True)


def _play_events(feed: Feed, strategy: StrategyProcess, length_s: float) -> int:
    """Lose links, kill the worker and keep the strategy busy, from the subscription to the end of
    the feed.

    Returns how often the worker was killed.
    """
    _await_event(feed.subscribed.is_set, strategy, START_S)
    started = time.monotonic()
    kills = 0
    for part, event in _EVENTS:
        _wait_until(strategy, started + part * length_s)
        if not strategy.running():
            return kills
        if event == "drop":
            strategy.tell("note:the exchange loses the link")
            feed.drop()
        elif event == "busy":
            strategy.tell(f"busy:{BUSY_MS}")
        elif pid := _feed_worker(strategy):
            strategy.tell(f"note:kill -9 {pid}: the worker that holds the feed dies")
            os.kill(pid, signal.SIGKILL)
            kills += 1
    _wait_until(strategy, started + length_s)
    feed.finish()
    return kills


def _feed_worker(strategy: StrategyProcess) -> int:
    """The process id of the feed's worker; 0 without a worker."""
    return next(
        (int(row["pid"]) for row in strategy.connections() if row["scheme"] in ("ws", "wss")), 0
    )


def _await_event(happened: Any, strategy: StrategyProcess, timeout_s: float) -> None:
    """Wait for an event; Failed when the strategy ends or the time is over."""
    deadline = Deadline(timeout_s)
    while not happened():
        if not strategy.running() or deadline.expired():
            raise Failed(
                "the strategy did not subscribe to the feed; `trunkline doctor` may tell why"
            )
        time.sleep(LOOK_S)


def _wait_until(strategy: StrategyProcess, until: float) -> None:
    """Wait until the time `until` on the monotonic clock, but not longer than the strategy
    lives."""
    while strategy.running() and (left := until - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, left))


# The end.


def _read_result(folder: Path) -> dict[str, Any]:
    """The strategy's result; Failed without a result."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Failed("the strategy ended without its result") from None
    return result


def _read_stored_ticks(folder: Path) -> list[Stored]:
    """The rows that the writer stored, in the order of their insertion."""
    with contextlib.closing(sqlite3.connect(folder / "ticks.db")) as database:
        return database.execute(
            "SELECT seq, link, symbol, price FROM ticks ORDER BY rowid"
        ).fetchall()


def _print_report(report: Report, feed: Feed, *, plain: bool) -> None:
    from trunkline.demo.tables import Tables

    tables = Tables(plain=plain)
    tables.console.print()
    links = [[str(value) for value in astuple(each)] for each in report.links]
    tables.table(("link", "sent", "received", "dropped", "lost with the link"), links)
    tables.table(("in all", ""), [(name, str(value)) for name, value in report.totals.items()])
    tables.checks(report.checks)
    ledger = feed.ledger
    tables.console.print(
        f"the exchange made {len(ledger.ticks)} ticks, {ledger.unheard} of them while no link was up; "
        f"{ledger.heartbeats} heartbeats, {ledger.pongs} answered; "
        f"{ledger.pings} pings, {ledger.protocol_pongs} pongs"
    )
    tables.verdict(report.checks)
