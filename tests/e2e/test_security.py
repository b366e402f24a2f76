"""Other users stay out, secrets stay in, and whatever is sent to the sockets disturbs nobody."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

import trunkline
from tests.support.programs import Program, Remains, until
from tests.support.servers import WsServer, echo_messages
from tests.support.sockets import SocketServer, echo
from trunkline import Connection, Dial, connect
from trunkline.proxy import process
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind, header
from trunkline.wire.framing import frame

SECRET = "hunter2Xq"


@pytest.fixture
def echoing() -> Iterator[Connection]:
    with SocketServer(echo) as server, connect(server.url) as conn:
        yield conn


def works(conn: Connection) -> bool:
    assert conn.write("well") == 4
    assert conn.read(5000) == "well"
    return True


def folder() -> Path:
    return Path(os.environ["TRUNKLINE_BROKER"].removeprefix("ipc://")).parent


# other users


def test_everything_is_in_a_folder_for_its_user_alone(echoing: Connection) -> None:
    assert stat.S_IMODE(folder().stat().st_mode) == 0o700
    assert {path.stat().st_uid for path in folder().iterdir()} == {os.getuid()}


@pytest.mark.own_broker
def test_the_log_is_for_its_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    before = os.umask(0)
    try:
        with connect("sqlite3://:memory:"):
            assert stat.S_IMODE(folder().stat().st_mode) == 0o700
            assert stat.S_IMODE((folder() / "broker.log").stat().st_mode) == 0o600
    finally:
        os.umask(before)


KNOCK = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except PermissionError:
        print("denied")
    else:
        print("in")
"""


def test_another_user_reaches_neither_broker_nor_worker(echoing: Connection) -> None:
    if os.getuid() or shutil.which("setpriv") is None:
        assert (
            stat.S_IMODE(folder().stat().st_mode) == 0o700
        )  # only root can become another user here
        return
    doors = [str(path) for path in folder().iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert len(doors) >= 2
    nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/env",
        "python3",
    ]
    done = subprocess.run([*nobody, "-c", KNOCK, *doors], capture_output=True, text=True, cwd="/")
    assert done.stdout.split() == ["denied"] * len(doors), done.stderr


def refused(root: Path, folder_name: str = "b-x") -> str:
    """What Dial says of a runtime folder."""
    env = {
        "TRUNKLINE_RUNTIME": str(root),
        "TRUNKLINE_BROKER": f"ipc://{root}/{folder_name}/broker.sock",
    }
    with Program(
        "say('none' if Dial('sqlite3://:memory:', 5) is None else 'open')", env=env
    ) as program:
        assert program.end() == 0
        assert program.wait_line("none") == ""
        assert len(program.lines) == 2, program.lines  # one sentence, no traceback
        return program.lines[0]


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tls-"))
    yield path
    shutil.rmtree(path)


def test_a_folder_that_is_a_link_is_refused(place: Path) -> None:
    (place / "real").mkdir(mode=0o700)
    (place / "link").symlink_to("real")
    assert "link is a symbolic link" in refused(place / "link")
    assert "is a symbolic link" in refused(place, "link")
    assert list((place / "real").iterdir()) == []


def test_a_folder_open_to_others_is_refused_and_not_changed(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o755)
    assert "is open to other users (mode 755)" in refused(place, "open")
    assert stat.S_IMODE((place / "open").stat().st_mode) == 0o755
    (place / "loose").mkdir()
    (place / "loose").chmod(0o777)
    assert "others may write to" in refused(place / "loose")


def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    if os.getuid():
        assert "belongs to another user" in refused(Path("/"), "usr")
        return
    (place / "theirs").mkdir(mode=0o700)
    os.chown(place / "theirs", 65534, 65534)
    assert "belongs to another user" in refused(place / "theirs")
    assert "belongs to another user" in refused(place, "theirs")


def test_a_folder_with_other_things_in_it_keeps_them(place: Path) -> None:
    (place / "home").mkdir(mode=0o700)
    (place / "home" / "precious").write_text("x")
    env = {"TRUNKLINE_BROKER": f"ipc://{place}/home/broker.sock"}
    with Program("say(Dial('sqlite3://:memory:').exec('SELECT 1')['values'])", env=env) as program:
        assert program.wait_line("[[1]]") == ""
        program.end()
    until(
        lambda: [path.name for path in (place / "home").iterdir()] == ["precious"],
        "the end of the broker",
    )


# secrets

ADDRESSES = [
    f"tcp://{{tcp}}|payload={SECRET}",
    f"ws://user:{SECRET}@{{ws}}",
    f"ws://{{ws}}/?token={SECRET}",
    f"ws://{{ws}}|headers=Authorization: Bearer {SECRET}",
    f'ws://{{ws}}|payload={{{{"op":"login","key":"{SECRET}"}}}}',
    f"tcp://{{none}}|proxy=socks5://me:{SECRET}@{{none}}",
    f"ws://{{none}}|proxy=http://me:{SECRET}@{{none}}",
    f"sqlite3://file:x.db?mode=memory&_auth_user=u&_auth_pass={SECRET}",
    f"mysql://root:{SECRET}@tcp({{none}})/db",
    f"postgres://root:{SECRET}@{{none}}/db",
    f"clickhouse://{{none}}?username=u&password={SECRET}",
    f"mqtt://u:{SECRET}@{{none}}?topic=t",
    f"nats://{SECRET}@{{none}}?topic=t",
    f"amqp://u:{SECRET}@{{none}}/?queue=q",
    f"nosuch://u:{SECRET}@{{none}}",
    f"tcp://{{none}}|pasword={SECRET}",
]


@pytest.mark.own_broker
def test_no_secret_is_seen_anywhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    remains = Remains()
    seen: list[str] = []
    with SocketServer(echo) as tcp, WsServer(echo_messages) as ws, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"tcp": tcp.port, "ws": ws.port, "none": closed.getsockname()[1]}
        for address in ADDRESSES:
            conn = Dial(
                address.format(**{name: f"127.0.0.1:{port}" for name, port in ports.items()}), 5
            )
            seen.append(trunkline.last_error() or "")
            if conn is not None:
                seen += [repr(conn), repr(conn.stats())]
        seen.append(repr(values.unpack(process.get().link.ask_broker(Kind.LIST)[0])))
        for each in remains.processes():
            for name in ("cmdline", "environ", "comm"):
                with contextlib.suppress(OSError):  # just gone
                    seen.append(
                        Path(f"/proc/{each.pid}/{name}").read_bytes().decode(errors="replace")
                    )
        seen.append((folder() / "broker.log").read_text())
        seen.append(" ".join(path.name for path in folder().iterdir()))
    seen.append(caplog.text)
    assert [text for text in seen if SECRET in text] == []
    assert len(seen) > 30
    assert "status 0" not in caplog.text


# the wire


def test_nothing_that_is_pickled_is_unpickled(echoing: Connection) -> None:
    """Nor evaluated: no source of ours even imports what could."""
    root = Path(__file__).parents[2]
    sources = [path for part in ("sdk", "broker", "actors") for path in (root / part).rglob("*.py")]
    words = re.compile(r"import (pickle|marshal)|recv_pyobj|send_pyobj|(?<![.\w])eval\(")
    assert [path.name for path in sources if words.search(path.read_text())] == []


NEVER_GARBAGE = (Kind.WRITE, Kind.REQUEST)
"""With three fields that fit, it is an order of this user's own, and carried out."""


def garbage(rng: random.Random) -> bytes:
    kind = rng.choice([number for number in range(256) if number not in NEVER_GARBAGE])
    kinds = [kind for kind in Kind if kind not in NEVER_GARBAGE]
    fields = [
        rng.choice([None, b"", b"x" * 8, -1, 1 << 63, "text", [], {}, 1.5, True])
        for _ in range(rng.randrange(7))
    ]
    return rng.choice(
        [
            rng.randbytes(rng.randrange(40)),
            bytes([1]) + rng.randbytes(rng.randrange(40)),
            bytes([rng.randrange(2, 256)]) + msgpack.packb([kind, 0]),
            bytes([1]) + msgpack.packb([kind, rng.choice([0, 1, -1, "x"]), *fields]),
            bytes([1]) + msgpack.packb([int(rng.choice(kinds)), 1, *fields]),
        ]
    )


@pytest.fixture
def stranger(broker: str) -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 200)
    sock.connect(broker)
    yield sock
    sock.close()
    context.term()


def test_garbage_at_the_broker_disturbs_nobody(
    echoing: Connection, stranger: Any, rng: random.Random
) -> None:
    key = echoing._member.key
    pid = values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"]
    for number in range(3000):
        to = rng.choice([BROKER, key, b"x" * 8, b"", rng.randbytes(5), echoing._member.holder_id])
        stranger.send_multipart(
            [to, garbage(rng), *[rng.randbytes(9) for _ in range(rng.randrange(3))]]
        )
        if number % 500 == 0:
            assert works(echoing)
    assert works(echoing)
    assert Dial(int(echoing.fd())) is not None
    assert values.unpack(process.get().link.ask_broker(Kind.LIST)[0])["pid"] == pid


def test_a_forged_sender_takes_nothing_from_anybody(echoing: Connection, stranger: Any) -> None:
    key, holder = echoing._member.key, echoing._member.holder_id
    record = {"id": key, "number": 1, "spec": {}, "restart": True, "linger_s": 1.0, "handle": None}
    for kind, fields in [
        (Kind.READY, (record, 99, os.getpid(), [], {}, [])),
        (Kind.STATE, ({"state": "failed"},)),
        (Kind.FAILED, ({"name": "DialError", "text": "forged"},)),
        (Kind.OPENED, ({},)),
        (Kind.ATTACH, (b"no such control", 0, key, holder, 0, 0, [], 0)),
        (Kind.HELLO, (1 << 40,)),
        (Kind.HELLO, (-5,)),
        (Kind.OPEN, (b"no such control", 1000, True, 1.0)),
    ]:
        stranger.send_multipart([BROKER, header(kind, 1, *fields), values.pack({"display": "x"})])
        assert works(echoing)
    assert echoing.stats().state == "open"
    assert echoing.stats().holders == 1


def test_garbage_at_a_workers_door_disturbs_nobody(echoing: Connection, rng: random.Random) -> None:
    door = str(folder() / f"w-{echoing._member.key.hex()}")
    for number in range(300):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(door)
            body = garbage(rng)
            sock.sendall(
                rng.choice(
                    [
                        rng.randbytes(rng.randrange(60)),
                        frame(body, rng.randbytes(8)),
                        struct.pack("!IH", 0xFFFFFFFF, 4) + b"xxxx",
                        struct.pack("!IH", 1, 9),
                        struct.pack("!IH", 1 << 20, 4) + b"half",
                        frame(
                            header(
                                rng.choice(list(Kind)),
                                1,
                                echoing._member.holder_id,
                                0,
                                0,
                                0,
                                False,
                                False,
                            )
                        ),
                    ][: 5 if number % 2 else 4]
                )
            )
        if number % 50 == 0:
            assert works(echoing)
    assert works(echoing)
    assert echoing.stats().state == "open"


def test_the_version_is_checked_in_words(stranger: Any) -> None:
    stranger.send_multipart([BROKER, bytes([9]) + msgpack.packb([1, 0, 1])])
    assert stranger.poll(5000)
    answer = stranger.recv_multipart()
    assert b"protocol version 9" in answer[1]
