"""Starting a broker: what is told when it cannot be."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import trunkline
from tests.support.waiting import until
from trunkline.deadline import Deadline
from trunkline.errors import BrokerGone
from trunkline.proxy import launch
from trunkline.wire import endpoint


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tll-"))
    monkeypatch.setenv("TRUNKLINE_RUNTIME", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_the_address_is_given_to_children(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_BROKER", "")
    address = launch.broker_address()
    assert os.environ["TRUNKLINE_BROKER"] == address == launch.broker_address()
    assert endpoint.folder_of(address).parent == place


def test_a_folder_that_cannot_be_made_is_told_at_once(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(BrokerGone, match="file/b"):
        launch.ensure_broker(f"ipc://{place}/file/b/broker.sock")


def test_a_python_that_is_not_there_is_told_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(BrokerGone, match="cannot be run"):
        launch.ensure_broker(f"ipc://{place}/b/broker.sock")


def test_a_broker_that_dies_at_once_says_its_last_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = place / "python"
    python.write_text(
        "#!/bin/sh\necho first >&2\necho 'ImportError: broken on purpose' >&2\nexit 1\n"
    )
    python.chmod(0o700)
    monkeypatch.setenv("TRUNKLINE_PYTHON", str(python))
    with pytest.raises(BrokerGone, match=r"broken on purpose \(TRUNKLINE_PYTHON is .*python\)"):
        launch.ensure_broker(f"ipc://{place}/b/broker.sock")


def test_what_is_no_python_is_told_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was started again and again, and called late at the end."""
    monkeypatch.setenv("TRUNKLINE_PYTHON", "/bin/true")
    with pytest.raises(BrokerGone, match="/bin/true ended without a word; set TRUNKLINE_PYTHON"):
        launch.ensure_broker(f"ipc://{place}/b/broker.sock")


def test_variables_that_cannot_be_obeyed_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_SPAWN", "thread")
    with pytest.raises(
        BrokerGone, match="TRUNKLINE_SPAWN=thread: workers are started by fork or by exec"
    ):
        launch.ensure_broker(f"ipc://{place}/b/broker.sock")
    with pytest.raises(BrokerGone, match=r"not UTF-8: 'ipc:///x\\udcff/.*set TRUNKLINE_RUNTIME"):
        endpoint.folder_of("ipc:///x\udcff/broker.sock")
    monkeypatch.setenv("TRUNKLINE_BROKER", address := f"ipc:///{'x' * 100}/broker.sock")
    with pytest.raises(BrokerGone, match=r"longer than .* set TRUNKLINE_BROKER to a shorter one"):
        endpoint.folder_of(address)


def test_one_that_is_there_is_not_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "b"
    fd = endpoint.claim(folder)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    launch.ensure_broker(f"ipc://{folder}/broker.sock")
    assert fd is not None
    os.close(fd)


def test_what_keeps_a_broker_from_being_set_up_is_told_at_once(place: Path) -> None:
    folder = place / "b"
    (folder / "broker.sock").mkdir(parents=True)
    folder.chmod(0o700)
    with pytest.raises(
        BrokerGone, match=r"could not be started: its folder .* set TRUNKLINE_RUNTIME"
    ):
        launch.ensure_broker(f"ipc://{folder}/broker.sock")
    until(lambda: not (folder / "lock").exists(), "the broker took its lock along")


def test_the_deadline_holds_where_the_broker_does_not_get_ready(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = place / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    monkeypatch.setenv("TRUNKLINE_PYTHON", str(python))
    whole = Deadline(15)
    with pytest.raises(BrokerGone, match="in the time allowed: it was not ready yet"):
        launch.ensure_broker(f"ipc://{place}/b/broker.sock", Deadline(0.2))
    assert not whole.expired()


def test_without_any_temporary_folder_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv("TRUNKLINE_RUNTIME")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert trunkline.Dial("sqlite3://:memory:", 2) is None
    assert "set TRUNKLINE_RUNTIME" in (trunkline.last_error() or "")
