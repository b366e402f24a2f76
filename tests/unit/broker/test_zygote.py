"""The zygote when its broker is gone, and when a worker cannot be started."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from trunkline.broker.spawner import Refused, SpawnerEvent, Started
from trunkline.broker.zygote import Zygote
from trunkline.wire import endpoint

pytestmark = pytest.mark.own_broker


def work(spec: dict[str, Any]) -> None:
    """The worker of these tests."""
    Path(spec["file"]).touch()


ENTRY = f"{__name__}:work"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A broker's folder; the path of its socket has to be short."""
    root = Path(tempfile.mkdtemp(prefix="tlb-"))
    made = root / "b"
    made.mkdir(mode=0o700)
    yield made
    shutil.rmtree(root)


def started(make: Callable[[], Zygote], spec: dict[str, Any]) -> list[SpawnerEvent]:
    """The first events after an order."""
    zygote = make()
    try:
        zygote.start("key", spec)
        found: list[SpawnerEvent] = []
        until(lambda: found.extend(zygote.events() or []) or found, "an event", 20)
        return found
    finally:
        zygote.close()


def test_an_order_is_carried_out_and_told(tmp_path: Path) -> None:
    (event,) = started(lambda: Zygote(ENTRY, []), {"file": str(tmp_path / "done")})[:1]
    assert isinstance(event, Started)
    assert event.key == "key"


def test_a_program_without_a_python_is_told_as_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_SPAWN", "exec")
    monkeypatch.setenv("TRUNKLINE_PYTHON", str(tmp_path / "none"))
    (event,) = started(lambda: Zygote(ENTRY, []), {"file": str(tmp_path / "done")})
    assert isinstance(event, Refused)


def test_a_broker_that_is_killed_during_an_order_leaves_no_folder(folder: Path) -> None:
    (folder / endpoint.NUMBER).touch()  # what a killed broker leaves
    zygote = Zygote(ENTRY, [], f"ipc://{folder}/broker.sock")
    done = folder.parent / "done"
    zygote.start("key", {"file": str(done)})
    zygote.close(stays=True)  # the answer finds nobody
    until(done.exists, "the worker", 20)
    until(lambda: not folder.exists(), "the end of the folder", 20)
    assert os.waitpid(zygote.pid, 0)[1] == 0
