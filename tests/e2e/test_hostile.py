"""Forged and mutated envelopes at the router and at the doors: no effect on others, no crash, no growth."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.adversary.hostile import Victims, attack
from tests.support.commands import run
from tests.support.programs import Program, Remains
from tests.support.sockets import SocketServer, echo
from tests.support.waiting import until
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, header, parse

COUNT = 10_000


@pytest.mark.own_broker
@pytest.mark.timeout(240)
def test_ten_thousand_envelopes_disturb_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    with SocketServer(echo) as server:
        victims = Victims(server)
        attack(victims, COUNT, random.Random(8))
        log = (victims.folder() / "broker.log").read_text()
        assert "Traceback" not in log
        assert len(log) < 1 << 20
        victims.close()


# a client that is none


GUEST = """
conn = Dial(args[0])
say("broker", os.environ["TRUNKLINE_BROKER"])
sys.stdin.readline()
say("works", conn.write("x"), conn.read(20_000), conn.stats().pid)
sys.stdin.readline()
"""


def introduce_as(pid: int, broker: str) -> None:
    """Say HELLO as this process, hear that we are welcome, and go."""
    assert asked(broker, header(Kind.HELLO, 0, pid))[0] is Kind.WELCOME


def clients(broker: str) -> list[int]:
    """The processes that the broker takes for its clients."""
    _, body = asked(broker, header(Kind.LIST, 1))
    return list(values.unpack(body[0])["clients"])


def asked(broker: str, head: bytes) -> tuple[Kind, list[bytes]]:
    """What the broker answers to a stranger's envelope."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sock = context.socket(zmq.DEALER)
        sock.connect(broker)
        sock.send_multipart([BROKER, head])
        assert sock.poll(20_000)
        _, answer, *body = sock.recv_multipart()
        return parse(answer)[0], body
    finally:
        context.destroy(linger=0)


@pytest.mark.own_broker
def test_a_client_that_names_a_living_process_and_goes_keeps_no_broker() -> None:
    remains = Remains()
    with SocketServer(echo) as server:
        with Program(GUEST, server.url, env={"TRUNKLINE_BROKER": ""}) as program:
            broker = program.wait_line("broker")
            for pid in (os.getpid(), program.pid, 1):
                introduce_as(pid, broker)
            program.tell()
            assert program.wait_line("works").startswith("1 x ")
            program.tell()
            assert program.end() == 0
        remains.assert_none(10)


@pytest.mark.own_broker
def test_a_strategy_that_says_nothing_for_long_is_still_there() -> None:
    with (
        SocketServer(echo) as server,
        Program(GUEST, server.url, env={"TRUNKLINE_BROKER": ""}) as program,
    ):
        broker = program.wait_line("broker")
        introduce_as(program.pid, broker)
        program.process.send_signal(signal.SIGSTOP)
        # The stranger that has gone is missed; the program, silent for as long, is not.
        until(lambda: clients(broker).count(program.pid) == 1, "the end of the stranger", 30)
        program.process.send_signal(signal.SIGCONT)
        program.tell()
        assert program.wait_line("works").startswith("1 x ")
        assert len(server.peers) == 1, "the same link"
        program.tell()
        assert program.end() == 0


# what another user has put where our folder would be made


STRANGER = 65532
SOMEBODY_ELSES = ("folder", "open folder", "link to ours", "link to nothing", "file", "fifo")


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A temporary folder for all, as /tmp is."""
    path = Path(tempfile.mkdtemp(prefix="tlp-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


def plant(what: str, at: Path, ours: Path) -> None:
    """Put something of a stranger's there."""
    if "folder" in what:
        at.mkdir(mode=0o700)
        at.chmod(0o777 if "open" in what else 0o700)
    elif what == "file":
        at.write_text("theirs")
    elif what == "fifo":
        os.mkfifo(at)
    else:
        at.symlink_to(ours if what == "link to ours" else "/nowhere/at/all")
    if not os.getuid():
        os.chown(at, STRANGER, STRANGER, follow_symlinks=False)


@pytest.mark.own_broker
@pytest.mark.parametrize("what", SOMEBODY_ELSES)
def test_what_a_stranger_has_planted_is_neither_used_nor_changed(
    what: str, everybodys: Path
) -> None:
    if os.getuid() and "folder" in what:
        pytest.skip("only root can give a folder to somebody else")
    ours = everybodys / "precious"
    ours.mkdir(mode=0o700)
    planted = everybodys / f"trunkline-{os.getuid()}"
    plant(what, planted, ours)
    before = planted.lstat()
    env: dict[str, str] = {
        "TMPDIR": str(everybodys),
        "TRUNKLINE_RUNTIME": "",
        "XDG_RUNTIME_DIR": "",
    }
    code = "say('got', Dial('sqlite3://:memory:', 10)); say('why', trunkline.last_error())"
    with Program(code, env={**env, "TRUNKLINE_BROKER": ""}) as program:
        assert program.end() == 0
        assert program.wait_line("got") == "None"
        assert str(planted) in program.wait_line("why")
        assert "TRUNKLINE_RUNTIME" in program.wait_line("why")
        assert len(program.lines) == 3, program.lines
    for command in (["ps"], ["doctor"]):
        run(*command, env={**env, "TRUNKLINE_BROKER": None})  # it fails where there is a traceback
    assert list(ours.iterdir()) == []
    after = planted.lstat()
    assert (after.st_mode, after.st_uid, after.st_ino) == (
        before.st_mode,
        before.st_uid,
        before.st_ino,
    )
    if stat.S_ISDIR(after.st_mode):
        assert list(planted.iterdir()) == []
