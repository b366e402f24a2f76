"""docs/liveness.md says for every scheme what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trunkline.actors.drivers.amqp import plan as amqp_plan
from trunkline.actors.drivers.clickhouse import plan as clickhouse_plan
from trunkline.actors.drivers.kafka import plan as kafka_plan
from trunkline.actors.drivers.postgres import plan as postgres_plan
from trunkline.actors.net import tcp_keepalive
from trunkline.actors.net.liveness import answer_time
from trunkline.address import OPTIONS, SCHEMES, parse_address

PAGE = (Path(__file__).parents[3] / "docs/liveness.md").read_text()
ROWS = {
    scheme: cells
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    for scheme in re.findall(r"`([^`]+)`", cells[0])
}
CLICKHOUSE = clickhouse_plan.KEEPALIVE
KEPT_ALIVE = (tcp_keepalive.IDLE_S, tcp_keepalive.COUNT, tcp_keepalive.EVERY_S)


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def test_every_scheme_has_its_row() -> None:
    assert sorted(ROWS) == sorted(SCHEMES)


@pytest.mark.parametrize(
    "scheme", ["ws", "wss", "nats", "tls+nats", "kafka", "mqtt", "mqtts", "ws+mqtt", "wss+mqtt"]
)
def test_a_ping_and_the_time_for_its_answer(scheme: str) -> None:
    default_ms = OPTIONS["pingInterval"].default_for(scheme)
    every_s = (kafka_plan.PING_MS if scheme == "kafka" else default_ms) / 1000
    answer_s = answer_time(every_s, None, control=True)
    assert answer_s is not None
    for cell in ROWS[scheme][1:3]:
        assert numbers(cell) == [answer_s, every_s + answer_s]


def test_heartbeats() -> None:
    beat_s = amqp_plan._heartbeat_s(parse_address("amqp://h/?queue=q"))
    for scheme in ("amqp", "amqps"):
        # Either side sends one each half of the time, so that the last one is that old at most.
        assert numbers(ROWS[scheme][1]) == [1.5 * beat_s - beat_s / 2, 1.5 * beat_s + beat_s / 4]
        assert numbers(ROWS[scheme][3]) == [1.5 * beat_s, beat_s / 4]


@pytest.mark.parametrize(
    ("scheme", "first", "count", "every"),
    [
        ("tcp", *KEPT_ALIVE),
        ("tls", *KEPT_ALIVE),
        ("mysql", *KEPT_ALIVE),
        (
            "clickhouse",
            clickhouse_plan.KEEPALIVE[0],
            clickhouse_plan.KEEPALIVE[2],
            clickhouse_plan.KEEPALIVE[1],
        ),
        (
            "postgres",
            int(postgres_plan._NEUTRAL["keepalives_idle"]),
            int(postgres_plan._NEUTRAL["keepalives_count"]),
            int(postgres_plan._NEUTRAL["keepalives_interval"]),
        ),
    ],
)
def test_the_kernels_keepalive(scheme: str, first: int, count: int, every: int) -> None:
    assert numbers(ROWS[scheme][2]) == [first + count * every]
    assert numbers(ROWS[scheme][3]) == [first, count, every]


@pytest.mark.parametrize("scheme", ["tcp", "tls", "unix", "udp"])
def test_no_ping_by_default(scheme: str) -> None:
    assert not OPTIONS["pingInterval"].default_for(scheme)
    assert ROWS[scheme][1].startswith("never")
