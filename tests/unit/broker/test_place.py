"""Who removes the folder of a broker that is gone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from trunkline.broker import place
from trunkline.wire import endpoint


def test_a_process_that_only_looks_is_not_taken_for_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "b"
    address = f"ipc://{folder}/broker.sock"
    endpoint.make_folder(folder)
    (folder / endpoint.NUMBER).write_text("7\n")
    held = endpoint.lock(folder)
    assert held is not None
    is_alive = endpoint.alive
    found = []

    def look(address: str) -> bool:
        found.append(is_alive(address))
        if len(found) == 1:
            os.close(held)
        return found[-1]

    monkeypatch.setattr(endpoint, "alive", look)
    monkeypatch.setattr(place, "TIDY_S", 0.5)
    seeing = threading.Thread(target=place.see_to_folder, args=(address,))
    seeing.start()
    seeing.join(30)
    assert not seeing.is_alive()
    assert found[:2] == [True, False]
    assert not folder.exists()
