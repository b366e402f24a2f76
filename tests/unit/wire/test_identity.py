"""Names of sockets tell the process that they belong to."""

from __future__ import annotations

import os

from trunkline.wire.identity import new_identity, process_of


def test_a_name_tells_its_process_and_is_nobody_elses() -> None:
    names = {new_identity() for _ in range(100)}
    assert len(names) == 100
    assert set(map(process_of, names)) == {os.getpid()}


def test_what_is_no_such_name_has_no_process() -> None:
    assert [process_of(name) for name in (b"", b"c", b"w" + bytes(16), b"c" + bytes(17))] == [
        0,
        0,
        0,
        0,
    ]
