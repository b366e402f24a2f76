"""The leak checks find what they are for, name it, and let everything else alone."""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from tests.support import anchor, leaks
from tests.support.anchor import SharedBroker
from tests.support.leaks import MARKER, Anchor, Leaked, Leaks, our_processes

ROOT = Path(__file__).parents[3]
WAIT_FOR_STDIN = [sys.executable, "-c", "import sys; sys.stdin.read()"]
ORPHAN = (
    "import os, sys; pid = os.fork()\n"
    "if pid: print(pid, flush=True); os._exit(0)\n"
    "os.setsid(); sys.stdin.read()"
)


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leaks:
    """What there was before; from here on nothing gets a grace."""
    monkeypatch.setattr(leaks, "OWN_GRACE_S", 0.0)
    monkeypatch.setattr(leaks, "OTHERS_GRACE_S", 0.0)
    return Leaks(tmp_path, os.environ[MARKER])


def test_nothing_left_is_no_leak(before: Leaks) -> None:
    before.check()


def test_a_thread_is_named(before: Leaks) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left-over")
    thread.start()
    try:
        with pytest.raises(Leaked, match="thread left-over"):
            before.check()
    finally:
        end.set()
        thread.join()
    before.check()


def test_what_ends_within_its_grace_is_no_leak(tmp_path: Path) -> None:
    before = Leaks(tmp_path, os.environ[MARKER])
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    timer = threading.Timer(0.1, end.set)
    timer.start()
    before.check()
    assert not thread.is_alive()


def test_a_descriptor_is_named_with_its_target(before: Leaks, tmp_path: Path) -> None:
    with (
        (tmp_path.parent / "open-file").open("w"),
        pytest.raises(Leaked, match=r"descriptor \d+ -> .*open-file"),
    ):
        before.check()
    before.check()


def test_a_child_is_named_with_its_command(before: Leaks) -> None:
    with subprocess.Popen(WAIT_FOR_STDIN, stdin=subprocess.PIPE) as child:
        with pytest.raises(Leaked, match=rf"process {child.pid} .*sys.stdin.read"):
            before.check()
        assert child.stdin
        child.stdin.close()


def test_a_zombie_is_named(before: Leaks) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Leaked, match=rf"process {child.pid} .*zombie"):
            before.check()
    before.check()


def test_an_orphan_in_a_session_of_its_own_is_found_by_the_marker(before: Leaks) -> None:
    command = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stdin
        orphan = psutil.Process(int(child.stdout.readline()))
        child.wait()
        with pytest.raises(Leaked, match=rf"process {orphan.pid} "):
            before.check()
    orphan.wait(10)
    before.check()


def test_processes_with_another_marker_are_not_ours() -> None:
    environ = os.environ | {MARKER: os.environ[MARKER] + "0"}
    command = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as child:
        assert child.stdout
        orphan = psutil.Process(int(child.stdout.readline()))
        child.wait()
        assert orphan not in our_processes(os.environ[MARKER])
        assert orphan in our_processes(environ[MARKER])
    orphan.wait(10)


def test_a_socket_file_is_named(before: Leaks, tmp_path: Path) -> None:
    (tmp_path / "w1").mkdir()
    (tmp_path / "w1" / "left.sock").touch()
    with pytest.raises(Leaked, match=r"file .*left\.sock"):
        before.check()


def test_a_context_is_named(before: Leaks) -> None:
    context = zmq.Context()
    with pytest.raises(Leaked, match="ZeroMQ context"):
        before.check()
    context.term()
    before.check()


def test_the_standard_librarys_helper_is_no_leak(before: Leaks) -> None:
    multiprocessing.resource_tracker.ensure_running()
    before.check()


class TestAnchor:
    def test_it_keeps_what_was_there_when_it_was_ready_and_nothing_later(
        self, before: Leaks, tmp_path: Path
    ) -> None:
        with subprocess.Popen(WAIT_FOR_STDIN, stdin=subprocess.PIPE) as broker:
            (tmp_path / "broker.sock").touch()
            before.anchor = Anchor({psutil.Process(broker.pid)}, {tmp_path / "broker.sock"})
            before.check_session()
            with subprocess.Popen(WAIT_FOR_STDIN, stdin=subprocess.PIPE) as worker:
                (tmp_path / "worker.sock").touch()
                with pytest.raises(Leaked) as caught:
                    before.check_session()
                assert worker.stdin
                worker.stdin.close()
            assert broker.stdin
            broker.stdin.close()
        assert f"process {worker.pid} " in str(caught.value)
        assert "worker.sock" in str(caught.value)
        assert f"process {broker.pid} " not in str(caught.value)
        assert "broker.sock" not in str(caught.value)


class TestSharedBroker:
    @pytest.fixture
    def fake(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SharedBroker]:
        """A broker that is a script: what is tested is how it is started and ended."""
        script = tmp_path / "fake-python"
        skip_the_launcher = "shift 4"  # -I -S -c and its text, before the arguments of the broker
        script.write_text(
            f"#!/bin/sh\n{skip_the_launcher}\ntouch {tmp_path}/b-shared/lock\necho ready $4\nexec sleep 600\n"
        )
        script.chmod(0o755)
        monkeypatch.setattr(anchor.sys, "executable", str(script))
        shared = SharedBroker(tmp_path)
        yield shared
        shared.stop()

    def test_it_starts_once_and_again_after_its_death(
        self, fake: SharedBroker, tmp_path: Path
    ) -> None:
        assert fake.ensure() == fake.ensure() == f"ipc://{tmp_path}/b-shared/broker.sock"
        (first,) = fake.anchor.processes
        assert fake.anchor.files == {tmp_path / "b-shared" / name for name in ("lock", "number")}
        first.kill()
        first.wait(10)
        fake.ensure()
        assert fake.anchor.processes
        assert first not in fake.anchor.processes
        fake.stop()
        fake.stop()
        assert not fake.anchor.processes

    def test_one_that_does_not_get_ready_fails_with_what_it_said(
        self, fake: SharedBroker, tmp_path: Path
    ) -> None:
        (tmp_path / "fake-python").write_text("#!/bin/sh\necho no\n")
        with pytest.raises(AssertionError, match="said 'no' instead of being ready"):
            fake.ensure()


def test_a_leaking_test_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(
        "import os\nfrom tests.support import leaks\n"
        "leaks.OWN_GRACE_S = leaks.OTHERS_GRACE_S = 0.0\n"
        "def test_leak(): os.dup(1)\n"
        "def test_fine(): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
    ]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "the test left behind:\n" in result.stdout
    assert "descriptor " in result.stdout
    assert "2 passed, 1 error" in result.stdout
    assert "TRUNKLINE_TEST_SEED=" in result.stdout
