"""Runtime folders without room, without the right to write, with long paths; and little memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import mounted
from tests.support.programs import Program, Remains, until
from tests.support.sockets import SocketServer, echo

pytestmark = pytest.mark.own_broker

TRY = """
try:
    conn = Dial("sqlite3://:memory:", 10)
    say("got", conn is not None)
    say("why", trunkline.last_error())
    if conn is not None:
        say("rows", conn.exec("SELECT 1").values)
        conn.close()
except BaseException as error:
    say("raised", repr(error))
say("done")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tlf-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def remains(_no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> Remains:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    return Remains()


def tried(runtime: Path, code: str = TRY) -> tuple[bool, str]:
    """Whether a program could dial, and what it was told; it never sees more than that."""
    with Program(code, env={"TRUNKLINE_RUNTIME": str(runtime), "TRUNKLINE_BROKER": ""}) as program:
        assert program.end(60) == 0, program.lines
        text = "\n".join(program.lines)
        assert program.wait_line("done") == "", text
        assert "raised" not in text
        assert "Traceback" not in text
        got = program.wait_line("got") == "True"
        if got:
            assert program.wait_line("rows") == "[[1]]", text
        else:
            assert len(program.lines) <= 4, text  # one line in the log, and what the program says
        return got, program.wait_line("why")


def test_a_path_beyond_what_a_socket_takes_is_named(place: Path, remains: Remains) -> None:
    long = place / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    got, why = tried(long)
    assert not got
    assert "TRUNKLINE_RUNTIME" in why
    assert "bytes" in why
    remains.assert_none()


def test_a_folder_where_nothing_may_be_written_is_named(place: Path, remains: Remains) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "ro", "none") as real:
        if not real:
            place.chmod(0o500)
        got, why = tried(place / "r")
        assert not got
        assert "TRUNKLINE_RUNTIME" in why
        assert str(place) in why
    remains.assert_none()


@pytest.mark.parametrize("inodes", [2, 3, 4, 5, 6, 7])
def test_a_folder_without_room_for_a_file_is_one_sentence(
    inodes: int, place: Path, remains: Remains
) -> None:
    """The folders, the lock, the log, the sockets: whichever is the first that cannot be made."""
    with mounted(
        place, "-t", "tmpfs", "-o", f"size=64k,nr_inodes={inodes},mode=700", "none"
    ) as real:
        if not real:
            pytest.skip("only root may mount")
        got, why = tried(place / "r")
        assert got or str(place) in why or "TRUNKLINE_RUNTIME" in why, why
        remains.assert_none(12)


FULL = """
first = connect(args[0], 20)
first.write("before"); say("before", first.read(10000))
sys.stdin.readline()
first.write("within"); say("within", first.read(10000))
second = Dial(args[0], 20)
if second is None:
    say("second", "none", trunkline.last_error())
else:
    second.write("too"); say("second", second.read(10000))
sys.stdin.readline()
third = connect(args[0], 20)
third.write("after"); say("after", third.read(10000))
"""


def test_a_folder_that_fills_up_stops_nothing_that_is_open(place: Path, remains: Remains) -> None:
    with (
        mounted(place, "-t", "tmpfs", "-o", "size=256k,mode=700", "none") as real,
        SocketServer(echo) as server,
    ):
        if not real:
            pytest.skip("only root may mount")
        env = {"TRUNKLINE_RUNTIME": str(place / "r"), "TRUNKLINE_BROKER": ""}
        with Program(FULL, server.url, env=env) as program:
            assert program.wait_line("before") == "before"
            ballast = place / "ballast"
            with ballast.open("wb", buffering=0) as file:
                until(lambda: not _written(file), "the last byte")
            program.tell()
            assert program.wait_line("within") == "within"
            second = program.wait_line("second", timeout=40)
            assert second == "too" or str(place) in second or "room" in second, second
            ballast.unlink()
            program.tell()
            assert program.wait_line("after", timeout=40) == "after"
            assert program.end() == 0
            assert "Traceback" not in "\n".join(program.lines)
        remains.assert_none(12)


def _written(file: object) -> bool:
    try:
        return bool(file.write(b"\0" * 1024))  # type: ignore[attr-defined]
    except OSError:
        return False


LITTLE = "import resource; resource.setrlimit(resource.RLIMIT_AS, (int(args[0]), int(args[0])))\n"


@pytest.mark.parametrize("megabytes", [30, 44, 52, 56, 60, 64, 68, 72, 80, 160])
def test_little_memory_is_one_sentence(megabytes: int, place: Path, remains: Remains) -> None:
    code = LITTLE.replace("int(args[0])", str(megabytes << 20)) + TRY
    with Program(code, env={"TRUNKLINE_RUNTIME": str(place), "TRUNKLINE_BROKER": ""}) as program:
        program.end(90)
        text = "\n".join(program.lines)
        if "cannot allocate memory for thread-local data" in text:
            return  # the C library has aborted the program, at a moment when any thread may begin
        assert program.wait_line("done") == "", text
        assert program.wait_line("got") == "True" or "ulimit -v" in program.wait_line("why"), text
        assert "raised" not in text
        assert "Traceback" not in text
    remains.assert_none(12)
