"""`trunkline broker` under a service manager: it waits where there is a broker already, and as process 1 of a
container it leaves no zombie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.support.commands import Command
from tests.support.programs import Program, Remains
from tests.support.sockets import SocketServer, echo
from tests.support.waiting import until
from trunkline.broker.process import is_alive
from trunkline.wire import endpoint

pytestmark = pytest.mark.own_broker

ECHOES = """
conn = Dial(args[0])
for line in sys.stdin:
    say(line.strip(), conn.write("x"), conn.read(20_000))
"""
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

can_contain = pytest.mark.skipif(
    sys.platform != "linux"
    or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="process namespaces are not to be had here",
)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a broker that nobody has started yet."""
    made = endpoint.new_address()
    monkeypatch.setenv("TRUNKLINE_BROKER", made)
    return made


@pytest.fixture
def echoes() -> Iterator[str]:
    with SocketServer(echo) as server:
        yield server.url


def owner(address: str) -> int:
    """The process whose broker it is."""
    pid = endpoint.holder(endpoint.folder_of(address))
    assert pid is not None
    return pid


def test_it_waits_for_the_broker_of_a_program_and_takes_over(address: str, echoes: str) -> None:
    with Program(ECHOES, echoes) as program:
        program.tell("first")
        assert program.wait_line("first") == "1 x"
        with Command("broker", "--address", address) as unit:
            unit.wait_err(f"process {owner(address)} runs a broker at {address}")
            program.tell("second")
            assert program.wait_line("second") == "1 x"
            program.process.stdin.close()
            assert program.end() == 0
            unit.wait_out("export TRUNKLINE_BROKER=")
            assert owner(address) == unit.process.pid
            with Program(ECHOES, echoes) as other:
                other.tell("third")
                assert other.wait_line("third") == "1 x"
            assert unit.process.poll() is None
            unit.process.terminate()
            ended = unit.end()
    assert (ended.code, len(ended.err.splitlines())) == (0, 1)
    assert not endpoint.folder_of(address).exists()


def test_it_takes_over_from_a_broker_that_is_killed(address: str, echoes: str) -> None:
    with Program(ECHOES, echoes) as program:
        program.tell("first")
        assert program.wait_line("first") == "1 x"
        with Command("broker", "--address", address) as unit:
            unit.wait_err(f"process {owner(address)} runs")
            # The program starts another at once: the unit has the place at the end at the latest.
            os.kill(owner(address), signal.SIGKILL)
            program.tell("second")
            assert program.wait_line("second") == "1 x"
            program.process.stdin.close()
            assert program.end() == 0
            unit.wait_out("export TRUNKLINE_BROKER=")
            unit.process.terminate()
            assert unit.end().code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_and_disturbs_nobody(
    number: signal.Signals, address: str, echoes: str
) -> None:
    with Program(ECHOES, echoes) as program:
        program.tell("first")
        program.wait_line("first")
        first = owner(address)
        with Command("broker", "--address", address) as unit:
            unit.wait_err("this one waits and takes over")
            unit.process.send_signal(number)
            ended = unit.end()
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (0, "", 1)
        assert owner(address) == first
        program.tell("second")
        assert program.wait_line("second") == "1 x"


def test_of_two_that_wait_one_takes_over_and_the_other_waits_for_it(address: str) -> None:
    with Command("broker", "--address", address) as first:
        first.wait_out("export")
        with (
            Command("broker", "--address", address) as second,
            Command("broker", "--address", address) as third,
        ):
            for each in (second, third):
                each.wait_err(f"process {first.process.pid} runs")
            first.process.terminate()
            assert first.end().code == 0
            until(
                lambda: (
                    endpoint.holder(endpoint.folder_of(address))
                    in (second.process.pid, third.process.pid)
                )
            )
            winner, loser = (
                (second, third) if owner(address) == second.process.pid else (third, second)
            )
            winner.wait_out("export")
            loser.wait_err(f"process {winner.process.pid} runs")
            winner.process.kill()
            loser.wait_out("export")
            loser.process.terminate()
            assert loser.end().code == 0


def test_a_broker_whose_lock_names_nobody_is_waited_for_too(address: str) -> None:
    """As one of another container, or one whose disk was full."""
    with Command("broker", "--address", address) as first:
        first.wait_out("export")
        (endpoint.folder_of(address) / "lock").write_text("")
        with Command("broker", "--address", address) as second:
            second.wait_err("another process runs a broker at")
            first.process.terminate()
            assert first.end().code == 0
            second.wait_out("export")
            second.process.terminate()
            assert second.end().code == 0


# process 1


def inner(unshare: subprocess.Popen[bytes]) -> psutil.Process:
    """Process 1 of the container."""
    until(psutil.Process(unshare.pid).children, "the container")
    return psutil.Process(unshare.pid).children()[0]


def zombies(process: psutil.Process) -> list[int]:
    return [child.pid for child in process.children() if not is_alive(child.pid)]


@can_contain
def test_a_broker_that_is_process_1_awaits_everybody(address: str, echoes: str) -> None:
    with Command("broker", "--address", address, prefix=CONTAINER) as command:
        command.wait_out("export")
        broker = inner(command.process)
        (zygote,) = broker.children()
        inside = ["nsenter", "-t", str(broker.pid), "-p", "-m", "sh", "-c"]
        for _ in range(3):  # its parent ends first, so process 1 gets it
            subprocess.run([*inside, "(sleep 0.1; exit 3) & exit 0"], check=True)
        with Program(ECHOES, echoes, prefix=inside[:-2]) as program:
            program.tell("first")
            assert program.wait_line("first") == "1 x"
            zygote.kill()
            until(lambda: zygote not in broker.children(), "the zygote is no zombie")
            program.tell("second")
            assert program.wait_line("second") == "1 x"
        until(
            lambda: len(broker.children()) == 1 and not zombies(broker),
            "no child but the next zygote",
        )
        broker.terminate()
        assert command.end().code == 0


@can_contain
def test_a_broker_that_waits_as_process_1_awaits_everybody(address: str) -> None:
    with Command("broker", "--address", address) as first:
        first.wait_out("export")
        with Command("broker", "--address", address, prefix=CONTAINER) as command:
            command.wait_err("this one waits")
            waiting = inner(command.process)
            inside = ["nsenter", "-t", str(waiting.pid), "-p", "-m", "sh", "-c"]
            subprocess.run([*inside, "(sleep 0.1; exit 3) & exit 0"], check=True)
            until(lambda: not waiting.children(), "no zombie")
            waiting.terminate()
            assert command.end().code == 0


@can_contain
def test_a_strategy_that_is_process_1_leaves_no_zombie_of_ours_and_no_child_of_its_own_is_taken(
    address: str, echoes: str, remains: Remains
) -> None:
    code = """
import subprocess
own = subprocess.Popen(["true"])
conn = Dial(args[0], reconnect=True)
for line in sys.stdin:
    word = line.strip()
    if word == "leave":
        trunkline.shutdown()
    elif word == "own":
        say(word, os.waitpid(own.pid, 0)[0] == own.pid)
        continue
    else:
        while not conn.write("x", 5000):
            conn.read(100)
    say(word, os.getpid())
"""
    with Program(code, echoes, prefix=CONTAINER) as program:
        program.tell("first")
        assert program.wait_line("first") == "1"
        strategy = inner(program.process)
        mine = {child.pid for child in strategy.children() if not is_alive(child.pid)}
        for word in ("second", "third"):
            broker = remains.broker()
            assert broker.ppid() == strategy.pid
            zygote = remains.zygote()
            broker.kill()
            zygote.kill()
            until(lambda p=broker: not psutil.pid_exists(p.pid), "the broker is no zombie")
            program.tell(word)
            assert program.wait_line(word) == "1"
        program.tell("leave")
        assert program.wait_line("leave") == "1"
        until(
            lambda: {child.pid for child in strategy.children()} <= mine, "nothing of ours is left"
        )
        program.tell("own")
        assert program.wait_line("own") == "True"
        program.process.stdin.close()
        assert program.end() == 0


@pytest.fixture
def remains() -> Remains:
    return Remains()


def test_its_lock_names_it_and_it_heeds_signals_as_soon_as_it_is_ready(address: str) -> None:
    with Command("broker", "--address", address) as unit:
        unit.wait_out("export")
        lock = endpoint.folder_of(address) / "lock"
        assert lock.read_text() == f"{unit.process.pid}\n"
        unit.process.terminate()
        assert unit.end().code == 0
