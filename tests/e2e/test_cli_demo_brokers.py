"""`trunkline demo --brokers` with the real servers: its figures add up, and it leaves nothing behind.

That no process of ours, socket file or folder is left is checked after each test by the leak fixture; the
servers, which have an environment of their own, are looked for here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers.base import Unavailable
from tests.servers.fixtures import or_skip
from tests.servers.kafka import Kafka
from tests.support.commands import Command, Ended
from tests.support.waiting import until
from trunkline.demo.broker_servers import SERVERS

QUICK = "mqtt,nats"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, to see what is left in it; servers of another user get into it."""
    folder = Path(tempfile.mkdtemp(prefix="tl-demo-")).resolve()
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def need(*brokers: str) -> None:
    """These brokers must be installed, as servers of tests must (`or_skip`)."""
    missing = [why for broker in brokers if (why := SERVERS[broker].missing())]
    if missing:
        with or_skip():
            raise Unavailable("; ".join(missing))


def servers_in(folder: Path) -> list[psutil.Process]:
    """The processes whose command has to do with the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                found.append(process)
    return found


def demo(brokers: str, seconds: int, timeout: float) -> Ended:
    with Command("demo", "--plain", "--brokers", brokers, "--seconds", str(seconds)) as command:
        return command.end(timeout)


def check_nothing_left(temporary: Path) -> None:
    until(lambda: not servers_in(temporary) and not list(temporary.iterdir()), "the end", 20)


@pytest.mark.timeout(120)
def test_it_adds_up_with_brokers_that_start_at_once(temporary: Path) -> None:
    need(*QUICK.split(","))
    ended = demo(QUICK, 8, 90)
    assert ended.code == 0, ended.output
    assert ended.out.splitlines()[-1] == "OK: all figures add up"
    for line in (
        "mosquitto is restarted",
        "nats-server is frozen",
        "kill -9",
        "a new one takes over",
        "jetstream",
    ):
        assert line in ended.out
    assert "Traceback" not in ended.output
    assert servers_in(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(240)
def test_it_adds_up_with_all_four(temporary: Path) -> None:
    need(*SERVERS)
    ended = demo("mqtt,nats,amqp,kafka", 12, 210)
    assert ended.code == 0, ended.output
    assert "RabbitMQ is frozen" in ended.out
    assert "the workers that read Apache Kafka die" in ended.out
    check_nothing_left(temporary)


@pytest.mark.parametrize(
    "line", ["starting", "publisher", "dialled jetstream", "is restarted", "is frozen", "kill -9"]
)
def test_ctrl_c_at_any_time_ends_it_and_leaves_nothing(line: str, temporary: Path) -> None:
    need(*QUICK.split(","))
    with Command("demo", "--plain", "--brokers", QUICK, "--seconds", "8") as command:
        command.wait_out(line)
        command.interrupt()
        ended = command.end()
    assert ended.code == 130, ended.output
    assert "Traceback" not in ended.output
    assert servers_in(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(90)
def test_ctrl_c_while_a_slow_server_starts(temporary: Path) -> None:
    need("amqp")
    with Command("demo", "--plain", "--brokers", "amqp") as command:
        command.wait_out("starting")
        until(lambda: any("beam" in each.name() for each in servers_in(temporary)), "its start", 30)
        command.interrupt()
        ended = command.end()
    assert ended.code == 130, ended.output
    check_nothing_left(temporary)


@pytest.mark.parametrize("line", ["dialled jetstream", "is frozen"])
def test_when_it_is_killed_the_servers_end_too(line: str, temporary: Path) -> None:
    need(*QUICK.split(","))
    with Command("demo", "--plain", "--brokers", QUICK, "--seconds", "8") as command:
        command.wait_out(line)
        command.process.send_signal(signal.SIGKILL)
        command.end()
    check_nothing_left(temporary)


def test_servers_run_as_nobody_where_we_are_root_and_as_ourselves_elsewhere(
    temporary: Path,
) -> None:
    need("mqtt")
    with Command("demo", "--plain", "--brokers", "mqtt", "--seconds", "6") as command:
        command.wait_out("dialled mqtt qos 0")
        users = [
            process.username() for process in servers_in(temporary) if process.name() == "mosquitto"
        ]
        command.interrupt()
        command.end()
    assert users == ["nobody" if os.geteuid() == 0 else psutil.Process().username()]


@pytest.mark.timeout(120)
def test_a_kafka_that_runs_already_is_used_and_left_alone(
    temporary: Path, apache_kafka: Kafka
) -> None:
    need("kafka")
    command = (
        "demo",
        "--plain",
        "--brokers",
        "kafka",
        "--kafka",
        apache_kafka.address,
        "--seconds",
        "6",
    )
    with Command(*command) as started:
        ended = started.end(90)
    assert ended.code == 0, ended.output
    assert f"Apache Kafka at {apache_kafka.address}" in ended.out
    assert "kill -9" in ended.out
    assert "restarted" not in ended.out.replace("of a restarted broker", "")
    assert apache_kafka.running()
    check_nothing_left(temporary)


def test_a_folder_for_temporary_files_that_is_ours_alone_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mqtt")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Command("demo", "--plain", "--brokers", "mqtt", "--seconds", "6") as command:
        command.wait_out("dialled mqtt qos 0")
        command.interrupt()
        ended = command.end()
    assert ended.code == 130, ended.output
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed_is_said_with_what_to_do(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(temporary / "none"))
    with Command("demo", "--plain", "--brokers", "kafka") as command:
        ended = command.end()
    assert ended.code == 1
    assert ended.out == ""
    assert "Apache Kafka: its jars are not in the cache" in ended.err
    assert "--kafka HOST:PORT" in ended.err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--brokers", "rabbit"], "some of mqtt,nats,amqp,kafka"),
        (["--brokers", "mqtt,mqtt"], "some of mqtt,nats,amqp,kafka"),
        (["--brokers", "kafka", "--kafka", "here"], "HOST:PORT, such as 127.0.0.1:9092"),
    ],
)
def test_a_mistake_in_its_options_is_said(arguments: list[str], text: str) -> None:
    with Command("demo", *arguments) as command:
        ended = command.end()
    assert ended.code == 2
    assert text in ended.err
