"""Finding brokers: what the system tells of sockets, and names that tell brokers apart."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.proxy.brokers import Broker, Listing, Silent, short_names
from trunkline.proxy.discovery import Scope
from trunkline.proxy.processes import (
    Served,
    find_served_sockets,
    list_own_processes,
    parse_lsof,
    parse_unix_table,
    peer_of,
    sockets_by_lsof,
)

UNIX_TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 5001 /run/user/7/trunkline/b-1/broker.sock
0000000000000000: 00000003 00000000 00000000 0001 03 5002 /run/user/7/trunkline/b-1/broker.sock
0000000000000000: 00000002 00000000 00010000 0001 01 5003 @abstract/broker.sock
0000000000000000: 00000002 00000000 00010000 0001 01 5004 /tmp/with space/broker.sock
0000000000000000: 00000003 00000000 00000000 0001 03 5005
a line that is none
"""

LSOF = "p12\nf4\nn/run/b-1/broker.sock type=STREAM (LISTEN)\nf5\nn->0x1\np13\nn/run/b-1/broker.sock\nn/x/w-00\n"


@pytest.fixture
def listener() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tl-") as name, socket.socket(socket.AF_UNIX) as sock:
        path = Path(name) / "broker.sock"
        sock.bind(str(path))
        sock.listen()
        yield path


def test_only_listeners_with_a_path_count() -> None:
    assert list(parse_unix_table(UNIX_TABLE)) == [
        Served("/run/user/7/trunkline/b-1/broker.sock", 5001),
        Served("/tmp/with space/broker.sock", 5004),
    ]


def test_lsof_is_understood_as_macos_and_linux_have_it() -> None:
    assert list(parse_lsof(LSOF)) == [Served("/run/b-1/broker.sock", 0), Served("/x/w-00", 0)]


def test_a_listener_is_found_with_its_owner(listener: Path) -> None:
    processes = list_own_processes()
    assert os.getpid() in {process.pid for process in processes}
    (served,) = [
        each
        for each in find_served_sockets(re.compile(r"broker\.sock"), processes)
        if each.path == str(listener)
    ]
    (ours,) = [process for process in processes if process.pid == os.getpid()]
    assert served.inode in ours.socket_inodes()
    assert ours.path_from_here("/x") == "/x"
    assert peer_of(listener) == (os.getpid(), os.getuid())
    assert peer_of(listener.parent / "none") is None


@pytest.mark.skipif(shutil.which("lsof") is None, reason="needs lsof")
def test_lsof_finds_it_too(listener: Path) -> None:
    assert Served(str(listener), 0) in sockets_by_lsof()


def test_brokers_in_folders_of_one_name_are_told_apart() -> None:
    one, other, third = (
        f"ipc:///{name}/broker.sock" for name in ("a/shared", "b/shared", "c/b-shale")
    )
    names = short_names([one, other, third])
    assert len(set(names.values())) == 3
    assert names == short_names([third, one, other])
    assert names[third] == "shal" or names[third] == "shale"


def test_an_id_that_was_shown_beside_other_brokers_stays_good() -> None:
    address = "ipc:///a/b-4b1f03/broker.sock"
    beside = ["ipc:///c/b-4b1f03/broker.sock", "ipc:///c/b-4b1f09/broker.sock"]
    broker = Broker(address, short_names([address])[address], 1, 2, [], [])
    marked = short_names([address, *beside])[address]
    assert marked.startswith("4b1f03~")
    assert all(map(broker.goes_by, (broker.name, marked, "4b1f03", "4b1f0", "4b")))
    wrong = [
        short_names([address, *beside])[beside[0]],
        "4b1f09",
        "",
        "~",
        "4b1f03~",
        marked.rpartition("~")[1],
    ]
    assert not any(map(broker.goes_by, wrong))


def test_a_plain_number_means_the_brokers_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = f"ipc://{tmp_path}/root/b-1/broker.sock"
    elsewhere = f"ipc://{tmp_path}/else/b-2/broker.sock"
    for name in ("TRUNKLINE_BROKER", "TRUNKLINE_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    assert Scope.of_environment().holds(elsewhere)
    monkeypatch.setenv("TRUNKLINE_RUNTIME", str(tmp_path / "root"))
    assert [Scope.of_environment().holds(address) for address in (mine, elsewhere)] == [True, False]
    monkeypatch.setenv("TRUNKLINE_BROKER", elsewhere)
    assert [Scope.of_environment().holds(address) for address in (mine, elsewhere)] == [True, True]
    brokers = [
        Broker(mine, "1", 1, 2, [{"id": "7"}], []),
        Broker(elsewhere, "2", 3, 4, [{"id": "7"}], [], addressed=False),
    ]
    assert [shown for shown, _, _ in Listing(brokers).rows()] == ["7", "2:7"]
    silent = [Silent(elsewhere, "does not answer", 3, addressed=False)]
    assert not Listing(silent=silent).is_failed()
    assert Listing(silent=silent).complaints() == [
        f"the broker at {elsewhere} does not answer; `trunkline doctor` tells more"
    ]
