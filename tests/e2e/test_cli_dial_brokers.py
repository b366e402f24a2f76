"""`trunkline dial` and `ps` with message brokers: lines out, messages with their envelopes in, one clear line
for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import trunkline
from tests.servers.base import Server
from tests.servers.nats import Nats
from tests.support.commands import Command, Ended, run

PROTOCOLS = ("mqtt", "nats", "amqp", "kafka")
SECRET = "s3cr3t-Pa55"

Place = tuple[str, str]
"""An address that reads what it writes, and the topic it writes to."""


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """For the protocol that the test is run with."""
    return _PLACES[request.param](request)


def _mqtt(request: pytest.FixtureRequest) -> Place:
    server: Server = request.getfixturevalue("mosquitto")
    topic = server.unique()
    return f"mqtt://{server.address}?topic={topic}/%23&write_topic={topic}/x&qos=1", f"{topic}/x"


def _nats(request: pytest.FixtureRequest) -> Place:
    server: Server = request.getfixturevalue("nats_server")
    topic = server.unique()
    return f"nats://{server.address}?topic={topic}.*&write_topic={topic}.x", f"{topic}.x"


def _amqp(request: pytest.FixtureRequest) -> Place:
    server: Server = request.getfixturevalue("rabbitmq")
    queue = server.unique("q")
    return f"amqp://u:p@{server.address}/?queue={queue}&auto_delete=true", queue


def _kafka(request: pytest.FixtureRequest) -> Place:
    server: Server = request.getfixturevalue("kafka")
    topic = server.unique()
    # in one partition, for there is no order among several
    return f"kafka://{server.address}/{topic}?partition=0", topic


_PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "mqtt": _mqtt,
    "nats": _nats,
    "amqp": _amqp,
    "kafka": _kafka,
}

every = pytest.mark.parametrize("place", PROTOCOLS, indirect=True)


def objects(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


@every
def test_lines_are_sent_and_what_arrives_is_printed(place: Place) -> None:
    address, _ = place
    ended = run("dial", address, "--count", "3", stdin="one\ntwo\nthrée\n")
    assert (ended.code, ended.out, ended.err) == (0, "one\ntwo\nthrée", "")


@every
def test_json_shows_the_envelope(place: Place) -> None:
    address, topic = place
    ended = run("dial", address, "--json", "--count", "2", stdin="one\ntwo\n")
    assert ended.code == 0, ended.err
    shown = objects(ended)
    assert [each["data"] for each in shown] == ["one", "two"]
    assert [each["topic"] for each in shown] == [topic, topic]
    assert all(each["time"] > 1_700_000_000 and "redelivered" not in each for each in shown)


@pytest.mark.parametrize("place", ["nats", "amqp", "kafka"], indirect=True)
def test_json_shows_headers_and_options_give_them(place: Place) -> None:
    address, _ = place
    ended = run(
        "dial", address, "--json", "--count", "1", "-o", 'headers={"a": "b=&|"}', stdin="x\n"
    )
    (shown,) = objects(ended)
    assert shown["headers"]["a"] == "b=&|"


@pytest.mark.parametrize("place", ["kafka"], indirect=True)
def test_json_shows_key_partition_and_offset(place: Place) -> None:
    address, _ = place
    ended = run("dial", address, "--json", "--count", "1", "-o", "key=k", stdin="x\n")
    (shown,) = objects(ended)
    assert (shown["key"], shown["partition"], shown["offset"]) == ("k", 0, 0)
    assert shown["timestamp"] > 1_700_000_000


@every
def test_ps_says_what_each_connection_reads(place: Place) -> None:
    address, topic = place
    with trunkline.connect(address) as connection, Command("dial", address):
        pid = connection.stats().pid
        (row,) = [row for row in json.loads(run("ps", "--json").out) if row["pid"] == pid]
        table = run("ps", env={"COLUMNS": "250"}).out
    assert (row["state"], row["scheme"]) == ("open", address.partition(":")[0])
    name = topic.removesuffix("/x").removesuffix(".x")
    assert name in row["peer"]
    assert row["peer"] in table
    assert "u:p@" not in table


SLIPS = [
    ("mqtt://127.0.0.1", "needs 'topic' or 'write_topic'"),
    ("nats://127.0.0.1?topik=a", "did you mean 'topic'"),
    ("amqp://127.0.0.1?queue=q|qos=1", "'qos' belongs to mqtt"),
    ("kafka://127.0.0.1/t?queue=q", "'queue' belongs to amqp and nats"),
    ("kafka://127.0.0.1/t|proxy=socks5://127.0.0.1:1", "cannot be had with kafka"),
    ("mqtt://127.0.0.1?topic=t&reconnect=false", "stands behind a '|'"),
]


@pytest.mark.parametrize(("address", "why"), SLIPS)
def test_a_wrong_address_is_said_in_one_line(address: str, why: str) -> None:
    ended = run("dial", address)
    assert (ended.code, ended.out) == (2, "")
    assert why in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_wrong_token_is_said_in_one_line_and_not_shown(start_nats: Callable[..., Nats]) -> None:
    server = start_nats(token="right")
    ended = run("dial", f"nats://{SECRET}@{server.address}?topic=t")
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1
    assert SECRET not in ended.output


@pytest.mark.parametrize("scheme", ["mqtt", "nats", "amqp", "kafka"])
def test_no_server_is_said_in_one_line(scheme: str, free_port: int) -> None:
    target = {"mqtt": "?topic=t", "nats": "?topic=t", "amqp": "/?queue=q", "kafka": "/t"}[scheme]
    ended = run("dial", f"{scheme}://127.0.0.1:{free_port}{target}", "--timeout", "5")
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1
    assert str(free_port) in ended.err
