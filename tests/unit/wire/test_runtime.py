"""The folders of brokers: whose they may be, who holds them, what is removed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.broker import journal
from trunkline.errors import BrokerGone
from trunkline.proxy.discovery import find_brokers
from trunkline.wire import endpoint


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tlr-"))
    monkeypatch.setenv("TRUNKLINE_RUNTIME", str(path / "root"))
    yield path / "root"
    shutil.rmtree(path)


def held(folder: Path) -> Iterator[int]:
    fd = endpoint.claim(folder)
    assert fd is not None
    yield fd
    os.close(fd)


def test_a_new_address_is_in_the_root_and_private_when_made(root: Path) -> None:
    address = endpoint.new_address()
    folder = endpoint.folder_of(address)
    assert folder.parent == root
    endpoint.make_folder(folder)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, folder)] == [0o700, 0o700]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "tcp://127.0.0.1:1",
        "ipc://relative/broker.sock",
        "ipc:///x/other.sock",
        f"ipc:///{'x' * 90}/broker.sock",
    ],
)
def test_what_is_no_address_of_a_broker_is_refused_in_words(address: str) -> None:
    with pytest.raises(BrokerGone, match=r"TRUNKLINE_(BROKER|RUNTIME)"):
        endpoint.folder_of(address)


def test_one_claims_a_folder_and_the_next_is_told_there_is_one(root: Path) -> None:
    address = endpoint.new_address()
    folder = endpoint.folder_of(address)
    assert not endpoint.alive(address)
    for _ in held(folder):
        assert endpoint.alive(address)
        assert endpoint.claim(folder) is None
        assert address in [found.address for found in find_brokers()[0]]
    assert not endpoint.alive(address)
    assert address not in [found.address for found in find_brokers()[0]]


def test_a_look_creates_nothing(root: Path) -> None:
    address = endpoint.new_address()
    endpoint.make_folder(endpoint.folder_of(address))
    assert not endpoint.alive(address)
    assert list(endpoint.folder_of(address).iterdir()) == []


def test_only_what_brokers_make_is_removed(root: Path) -> None:
    folder = endpoint.folder_of(endpoint.new_address())
    endpoint.make_folder(folder)
    for name in ("lock", "broker.log", "w-0011", "f-0011", "precious"):
        (folder / name).touch()
    endpoint.remove_folder(folder, awaited=True)
    assert sorted(path.name for path in folder.iterdir()) == ["f-0011", "precious", "w-0011"]
    endpoint.remove_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["precious"]
    (folder / "precious").unlink()
    endpoint.remove_folder(folder)
    assert not root.exists()


def test_a_folder_open_to_others_is_refused_and_left_as_it_is(root: Path) -> None:
    folder = endpoint.folder_of(endpoint.new_address())
    endpoint.make_folder(folder)
    folder.chmod(0o750)
    with pytest.raises(BrokerGone, match=r"open to other users \(mode 750\)"):
        endpoint.claim(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_root_that_others_may_write_to_is_refused_but_for_a_sticky_one(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(BrokerGone, match="others may write"):
        endpoint.make_folder(root / "b-1")
    root.chmod(0o1777)
    endpoint.make_folder(root / "b-1")


def test_the_remains_of_a_killed_broker_are_swept(root: Path) -> None:
    folder = endpoint.folder_of(endpoint.new_address())
    for _ in held(folder):
        endpoint.sweep()
        assert folder.exists()
    endpoint.sweep()
    assert not folder.exists()


def test_remains_where_a_worker_waits_for_another_broker_are_not_swept(root: Path) -> None:
    folder = endpoint.folder_of(endpoint.new_address())
    for _ in held(folder):
        pass
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / "w-00"))
        door.listen()
        endpoint.sweep()
        assert endpoint.answers(folder / "w-00")
        assert (folder / "lock").exists()
    endpoint.sweep()
    assert not folder.exists()


def test_a_log_that_has_outgrown_its_limit_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab+", buffering=0) as mine, path.open("ab", buffering=0) as workers:
        for number in range(1000):
            mine.write(b"line %d\n" % number)
        assert not journal.trim(mine.fileno(), 1 << 20, 100)
        assert journal.trim(mine.fileno(), 1000, 100)
        workers.write(b"a worker's\n")
        mine.write(b"mine\n")
    lines = path.read_text().splitlines()
    assert lines[0] == "trunkline broker: the log was shortened here"
    assert lines[-3:] == ["line 999", "a worker's", "mine"]
    assert len(lines) < 20


def test_a_log_that_is_a_terminal_or_a_pipe_is_left_alone() -> None:
    read_end, write_end = os.pipe()
    assert not journal.trim(write_end, 0, 0)
    os.close(read_end)
    os.close(write_end)
