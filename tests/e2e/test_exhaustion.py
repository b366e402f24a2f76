"""Where the system gives no more: descriptors, threads, processes; and a folder that somebody removes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.programs import Program, Remains, until
from tests.support.sockets import SocketServer, echo

NOBODY = 65533
LIMITED = """
import resource
limit, value = getattr(resource, args[0]), int(args[1])
if args[0] == "RLIMIT_NPROC":  # it counts the processes of a user, and root has no limit
    os.setgid(int(args[2])); os.setuid(int(args[2]))
resource.setrlimit(limit, (value, value))
try:
    conn = Dial("sqlite3://:memory:", 10)
    say("got", conn is not None)
    say("why", trunkline.last_error())
    if conn is not None:
        say("values", conn.exec("SELECT 1"))
except BaseException as error:
    say("raised", repr(error))
say("done")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tlx-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def may_run_python(user: int) -> bool:
    try:
        return subprocess.run([sys.executable, "-c", ""], user=user, check=False).returncode == 0
    except PermissionError:
        return False


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17])
def test_few_processes_and_threads_are_one_sentence(processes: int, place: Path) -> None:
    if os.getuid():
        pytest.skip("only root can become a user without processes")
    user = NOBODY - processes  # the tests of the other workers count too
    if not may_run_python(user):
        pytest.skip(
            f"others than root may not run {sys.executable}: its folders are closed to them"
        )
    env = {"TRUNKLINE_RUNTIME": str(place / "r"), "HOME": str(place), "TRUNKLINE_BROKER": ""}
    with Program(LIMITED, "RLIMIT_NPROC", processes, user, env=env) as program:
        assert program.end() == 0, program.lines
        text = "\n".join(program.lines)
        assert program.wait_line("done") == "", text
        assert "raised" not in text
        assert "Traceback" not in text
        if program.wait_line("got") == "False":
            assert "allows no further thread or process" in program.wait_line("why"), text
    until(lambda: not _processes_of(user), "the end of its processes", seconds=30)


def _processes_of(user: int) -> list[int]:
    processes = psutil.process_iter(["uids"])
    return [each.pid for each in processes if each.info["uids"] and each.info["uids"].real == user]


USED_UP = """
import resource
first = Dial(args[0], 20)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(args[1]), int(args[1])))
open_ones = [first]
while (conn := Dial(args[0], 5)) is not None:
    open_ones.append(conn)
say("why", trunkline.last_error())
say("first", first.write("still here", 5000), first.read(5000))
for conn in open_ones[1:]:
    conn.close()
while (conn := Dial(args[0], 5)) is None:  # what was closed is given back a moment later
    pass
say("again", conn.write("x"), conn.read(5000))
"""


@pytest.mark.own_broker
@pytest.mark.parametrize("descriptors", [40, 64, 100])
def test_descriptors_that_are_used_up_are_named_and_can_be_had_again(
    descriptors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    with SocketServer(echo) as server, Program(USED_UP, server.url, descriptors) as program:
        assert "ulimit -n" in program.wait_line("why", timeout=60)
        assert program.wait_line("first") == "10 still here"
        assert program.wait_line("again", timeout=60) == "1 x"
        assert program.end() == 0


REMOVED = """
import shutil, time
from pathlib import Path
db, stream = connect("sqlite3://:memory:"), connect(args[0])
db.exec("CREATE TABLE t (n)")
folder = Path(os.environ["TRUNKLINE_BROKER"].removeprefix("ipc://")).parent
shutil.rmtree(folder.parent if args[1] == "root" else folder)
threads = [threading.Thread(target=db.exec, args=("INSERT INTO t VALUES (?)", n)) for n in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
say("rows", db.exec("SELECT count(*) FROM t").values[0][0])
stream.write("after it")
say("stream", stream.read(10000))
new = connect(args[0], 20)
new.write("new one")
say("new", new.read(10000))
say("shared", connect(db.fd(), 20).exec("SELECT count(*) FROM t").values[0][0])
say("private", oct(folder.stat().st_mode & 0o777))
sys.stdin.readline()
"""


@pytest.mark.parametrize("what", ["folder", "root"])
def test_a_runtime_folder_that_is_removed_is_made_anew(what: str, place: Path) -> None:
    remains = Remains()
    env = {"TRUNKLINE_RUNTIME": str(place / "r"), "TRUNKLINE_BROKER": ""}
    with SocketServer(echo) as server, Program(REMOVED, server.url, what, env=env) as program:
        assert program.wait_line("rows", timeout=60) == "5"
        assert program.wait_line("stream") == "after it"
        assert program.wait_line("new", timeout=60) == "new one"
        assert program.wait_line("shared", timeout=60) == "5"
        assert program.wait_line("private") == "0o700"
        logs = list((place / "r").glob("*/broker.log"))
        assert "has been made anew" in logs[0].read_text()
        program.tell()
        assert program.end() == 0
    until(lambda: not remains.processes(), "the end of all processes")
    assert not (place / "r").exists()


FLAT = """
import gc
def figures():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))
def rounds(count):
    for _ in range(count):
        with connect(args[0], 20) as conn:
            conn.write("x")
            conn.read(5000)
rounds(20)
first = figures()
rounds(100)
say("flat", first, figures())
sys.stdin.readline()
"""


@pytest.mark.own_broker
def test_dials_and_closes_leave_nothing_in_program_and_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    with SocketServer(echo) as server, Program(FLAT, server.url) as program:
        first, second = _halves(program.wait_line("flat", timeout=100))
        assert second[0] <= first[0] + 4, (first, second)
        assert second[1:] == first[1:]
        broker = remains.broker()
        until(lambda: broker.num_fds() < 40, "the broker's descriptors")
        until(lambda: len(remains.processes("trunk-")) == 0, "the end of the workers")
        program.tell()
        assert program.end() == 0


def _halves(text: str) -> tuple[list[int], list[int]]:
    numbers = [int(word.strip("(),")) for word in text.split()]
    return numbers[:3], numbers[3:]
