"""What the message brokers' users count on while servers stop, freeze and vanish, and workers die: nothing
confirmed is lost where the protocol can promise that, and what is lost elsewhere shows as an outage.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import nats
import pytest

from tests.servers.base import Server
from tests.servers.kafka import Kafka
from tests.support.flow import LOSS, Flow
from tests.support.programs import Program
from tests.support.waiting import until
from trunkline import Connection, Dial, last_error
from trunkline.testing.faultproxy import FaultProxy

FAST = "interval=50&pingInterval=500"


@dataclass(frozen=True)
class Mode:
    """A way to use a protocol. `{at}` is the server's place, `{name}` a name of the test's own."""

    server: str
    read: str
    write: str
    keeps: bool = True
    """At least once: nothing confirmed may be missing."""
    forgets: bool = False
    """Where it was reading is known to the worker alone: the next one begins with what is written then."""
    once: bool = False
    """Nothing may come twice either, but for a reader or worker that was killed."""


MODES = {
    "mqtt qos 0": Mode(
        "mosquitto", "mqtt://{at}?topic={name}", "mqtt://{at}?write_topic={name}", keeps=False
    ),
    "mqtt qos 1": Mode(
        "mosquitto",
        "mqtt://{at}?topic={name}&qos=1&clean=false&client_id={name}",
        "mqtt://{at}?write_topic={name}&qos=1",
    ),
    "mqtt qos 2": Mode(
        "mosquitto",
        "mqtt://{at}?topic={name}&qos=2&clean=false&client_id={name}",
        "mqtt://{at}?write_topic={name}&qos=2",
        once=True,
    ),
    "nats": Mode("nats", "nats://{at}?topic={name}", "nats://{at}?write_topic={name}", keeps=False),
    "jetstream": Mode(
        "nats",
        "nats://{at}?topic={name}&stream={name}&durable=d",
        "nats://{at}?write_topic={name}&stream={name}",
    ),
    "amqp": Mode(
        "private_rabbitmq",
        "amqp://u:p@{at}/?queue={name}&durable=true|heartbeat=1",
        "amqp://u:p@{at}/?write_topic={name}|heartbeat=1",
    ),
    "kafka group": Mode(
        "private_kafka",
        "kafka://{at}/{name}?group={name}&offset=earliest",
        "kafka://{at}/?write_topic={name}",
    ),
    "kafka": Mode(
        "private_kafka", "kafka://{at}/{name}", "kafka://{at}/?write_topic={name}", forgets=True
    ),
}


@dataclass
class Stage:
    """A server, a proxy before it where that can be, and the two connections."""

    server: Server
    proxy: FaultProxy | None
    reader: Connection
    writer: Connection


async def _make_stream(port: int, name: str) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    await client.jetstream().add_stream(name=name, subjects=[name])
    await client.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Callable[[str, bool], Stage]]:
    with ExitStack() as stack:

        def make(name: str, proxied: bool) -> Stage:
            mode = MODES[name]
            server = _server(request, mode)
            topic = "t" + uuid.uuid4().hex[:10]
            if name == "jetstream":
                asyncio.run(_make_stream(server.port, topic))
            elif isinstance(server, Kafka):
                server.create(
                    topic, 1
                )  # one partition: across several there is no order to look at
            proxy = stack.enter_context(FaultProxy(server.port)) if proxied else None
            at = proxy.address if proxy else server.address
            sides = []
            for address in (mode.read, mode.write):
                address = address.format(at=at, name=topic)
                whole = f"{address}{'&' if '|' in address else '|'}{FAST}"
                conn = Dial(whole)
                assert conn is not None, last_error()
                sides.append(stack.enter_context(conn))
            return Stage(server, proxy, *sides)

        yield make


def _server(request: pytest.FixtureRequest, mode: Mode) -> Server:
    if mode.server == "mosquitto":
        server: Server = request.getfixturevalue("start_mosquitto")(persistence=True)
    elif mode.server == "nats":
        server = request.getfixturevalue("start_nats")(jetstream=True)
    else:
        server = request.getfixturevalue(mode.server)
    return server


def check(name: str, flow: Flow, around: range, *, killed: bool = False) -> None:
    """`around`: the numbers that were on their way when the writer lost its link."""
    mode = MODES[name]
    keeps = mode.keeps and not (killed and mode.forgets)
    if keeps:
        flow.finish()
        assert not flow.missing()
    else:
        assert flow.gaps(around) == [] or flow.reader.stats().dropped
    twice = flow.twice()
    if mode.once and not killed:
        assert not twice
    if not mode.keeps:
        assert not twice or killed
    # asked now, for JetStream sends again what a killed worker held while `finish` waits for it
    assert flow.reader.stats().redelivered >= len(twice & flow.flagged)


def restart(stage: Stage) -> None:
    stage.server.restart()


def freeze(stage: Stage) -> None:
    stage.server.freeze()
    try:
        until(
            lambda: stage.reader.stats().outages and stage.writer.stats().outages, "noticing it", 30
        )
    finally:
        stage.server.thaw()


def cut(stage: Stage) -> None:
    assert stage.proxy
    stage.proxy.reset()


def vanish(stage: Stage) -> None:
    """The network swallows everything, and nobody says so."""
    assert stage.proxy
    stage.proxy.blackhole()
    try:
        until(
            lambda: stage.reader.stats().outages and stage.writer.stats().outages, "noticing it", 30
        )
    finally:
        stage.proxy.heal()
        stage.proxy.reset()


def kill_worker(stage: Stage) -> None:
    pid = stage.reader.stats().pid
    assert pid
    os.kill(pid, signal.SIGKILL)


FAULTS: dict[str, Callable[[Stage], None]] = {
    "restart": restart,
    "freeze": freeze,
    "cut": cut,
    "vanish": vanish,
    "kill worker": kill_worker,
}
PROXIED = ("cut", "vanish")
UNDERWAY = 50
"""Messages that may be between writer and broker, and between broker and reader."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.timeout(180)
def test_nothing_is_lost_unseen(mode: str, fault: str, stage: Callable[[str, bool], Stage]) -> None:
    if mode.startswith("kafka") and fault in PROXIED:
        return  # its clients go to the place that the broker names: tests/e2e/test_kafka.py arranges that
    here = stage(mode, fault in PROXIED)
    with Flow(here.reader, here.writer) as flow:
        flow.goes_on(300)
        before = flow.written
        FAULTS[fault](here)
        around = range(before - UNDERWAY, flow.written + UNDERWAY)
        flow.goes_on(300)
        unsure = around if here.writer.stats().outages else range(0)
        check(mode, flow, unsure, killed=fault == "kill worker")
        assert LOSS in flow.seen
        print(f"{mode}, {fault}: {len(flow.confirmed)} confirmed, {len(flow.twice())} read twice")


READER = """
import sys
with Dial(int(sys.argv[1])) as conn:
    while True:
        message = conn.read(1000)
        if message:
            say(message)
"""


@pytest.mark.parametrize("mode", [name for name, mode in MODES.items() if mode.keeps])
def test_what_a_killed_reader_had_goes_to_the_next(
    mode: str, stage: Callable[[str, bool], Stage]
) -> None:
    """It had up to a whole buffer in its hands; what it did not acknowledge is read by another."""
    here = stage(mode, False)
    with Program(READER, here.reader.fd()) as program:
        for number in range(1, 301):
            assert here.writer.write(str(number))
        until(lambda: len(program.lines) >= 100, "some reading")
        for number in range(301, 601):
            assert here.writer.write(str(number))
        program.kill()
    first = [int(line) for line in program.lines]
    second: list[int] = []
    while (message := here.reader.read(3000)) is not None:
        second += [int(message)] if message else []
    lost = set(range(1, 601)) - set(first) - set(second)
    assert lost <= {max(first) + 1}, "but for the one that it had just read when it was killed"
    twice = set(first) & set(second)
    assert len(twice) <= 128, "what it had read and not acknowledged yet is little"
    assert len(second) == len(set(second))
    stats = here.reader.stats()
    assert (
        stats.messages_in
        == stats.read + stats.buffered + stats.dropped + stats.skipped + stats.returned
    )
