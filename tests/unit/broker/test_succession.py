"""Waiting for the place of a broker, and the end of one that cannot have it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from trunkline.broker import single
from trunkline.broker.__main__ import main
from trunkline.broker.succession import await_place, reap
from trunkline.wire import endpoint

pytestmark = pytest.mark.own_broker


@pytest.fixture
def folder() -> Iterator[Path]:
    """A broker's folder; the path of its socket has to be short."""
    root = Path(tempfile.mkdtemp(prefix="tlb-"))
    made = root / "b"
    made.mkdir(mode=0o700)
    yield made
    shutil.rmtree(root)


def address_of(folder: Path) -> str:
    return f"ipc://{folder}/broker.sock"


def test_a_free_place_is_taken_without_a_word(folder: Path) -> None:
    said: list[str] = []
    fd = await_place(folder, address_of(folder), said.append)
    assert fd is not None
    assert said == []
    assert endpoint.holder(folder) == os.getpid()
    assert endpoint.try_claim(folder) is None
    os.close(fd)


HOLD = "import sys, time; from trunkline.wire import endpoint; from pathlib import Path\n"
HOLD += (
    "fd = endpoint.try_claim(Path(sys.argv[1])); print(fd is not None, flush=True); time.sleep(60)"
)


def test_a_held_place_is_taken_when_its_holder_ends(folder: Path) -> None:
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"True\n"

        def say(line: str) -> None:
            said.append(line)
            holder.kill()

        fd = await_place(folder, address_of(folder), say)
        assert fd is not None
        os.close(fd)
        holder.returncode = -signal.SIGKILL  # `await_place` has awaited it, as process 1 has to
    assert said == [
        f"process {holder.pid} runs a broker at {address_of(folder)}; "
        "this one waits and takes over when that ends"
    ]


def test_a_signal_ends_the_wait_and_the_handlers_are_as_before(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"True\n"
        assert (
            await_place(folder, address_of(folder), lambda _: os.kill(os.getpid(), signal.SIGTERM))
            is None
        )
        assert holder.poll() is None
        holder.kill()
    assert signal.getsignal(signal.SIGTERM) is before


def test_reap_without_children_finds_none() -> None:
    assert reap() == []


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers of before: `main` sets its own."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_second_broker_says_that_there_is_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fd = endpoint.try_claim(folder)
    assert fd is not None
    assert main(["--address", address_of(folder)]) == 3
    os.close(fd)
    assert (
        capsys.readouterr().err
        == f"trunkline broker: there is one already at {address_of(folder)}\n"
    )


@pytest.mark.usefixtures("handlers")
def test_a_folder_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--address", f"ipc://{tmp_path}/file/broker.sock"]) == 2
    assert (
        "cannot be made (File exists); set TRUNKLINE_RUNTIME to a writable one"
        in capsys.readouterr().err
    )


def run_alone(spec: dict[str, object]) -> None:
    """What a worker's interpreter of its own is told to run, in the next test."""
    print("ran", spec)


def test_a_worker_alone_takes_its_order_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = io.TextIOWrapper(io.BytesIO(msgpack.packb({"a": [1]})))
    monkeypatch.setattr(sys, "stdin", order)
    single.main(f"{__name__}:run_alone")
    assert capsys.readouterr().out == "ran {'a': [1]}\n"
