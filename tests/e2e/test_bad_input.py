"""Bad input on streams: the documented result in time, one clear line in the log, nobody else disturbed."""

from __future__ import annotations

import contextlib
import gzip
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certs import Certs
from tests.support.servers import (
    INVALID_UTF8_FRAME,
    OVERSIZE_FRAME,
    WsServer,
    echo_messages,
    garbage_handshake,
    raw,
    refuse_with,
)
from tests.support.sockets import SocketServer, deaf, echo, unused_port
from tests.support.waiting import until
from trunkline import Dial, connect, last_error
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, DialError, DialTimeout, TrunklineError, UnknownScheme


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Another connection, which goes on whatever happens in the block."""
    with SocketServer(echo) as server:
        conn = Dial(server.url)
        assert conn is not None
        with conn:
            yield
            assert conn.write("still here") == 10
            assert conn.read(5000) == "still here"


def refused(
    caplog: pytest.LogCaptureFixture,
    address: str,
    *words: str,
    seconds: float = 10,
    **options: object,
) -> None:
    """Dial gives None in time, with one line that holds the words, and nobody else is disturbed."""
    caplog.clear()
    with undisturbed():
        deadline = Deadline(seconds)
        assert Dial(address, options) is None
        assert not deadline.expired()
        records = list(caplog.records)
    lines = [
        r.getMessage() for r in records if r.name == "trunkline" and r.levelno >= logging.WARNING
    ]
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    assert last_error() == lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("wx://127.0.0.1:1", ("wx", "ws")),
        ("127.0.0.1:80", ()),
        ("", ()),
        ("tcp://", ()),
        ("tcp://127.0.0.1", ("port",)),
        ("tcp://127.0.0.1:99999", ("port",)),
        ("ws://127.0.0.1:x/", ("port",)),
        ("ws://127.0.0.1:1|reconect=true", ("reconect", "reconnect")),
        ("ws://127.0.0.1:1|interval=soon", ("interval",)),
        ("ws://127.0.0.1:1|compress=brotli", ("compress", "gzip")),
        ("ws://127.0.0.1:1|proxy=ftp://x:1", ("proxy",)),
        ("tcp://127.0.0.1:1|headers={}", ("headers",)),
        ("ws://127.0.0.1:1|buffer=0", ("buffer",)),
    ],
)
def test_malformed_addresses(
    caplog: pytest.LogCaptureFixture, address: str, words: tuple[str, ...]
) -> None:
    refused(caplog, address, *words)
    with pytest.raises(AddressError):
        connect(address)


def test_an_unknown_scheme_has_its_own_error() -> None:
    with pytest.raises(UnknownScheme):
        connect("wsss://127.0.0.1:1")


@pytest.mark.parametrize("wrong", [None, 1.5, True, b"tcp://x:1", ["tcp://x:1"]])
def test_a_wrong_type_raises_at_once(wrong: object) -> None:
    with pytest.raises(TypeError):
        Dial(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Dial("tcp://127.0.0.1:1", "5")  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["tcp", "tls", "ws", "wss"])
def test_nobody_listening(caplog: pytest.LogCaptureFixture, scheme: str) -> None:
    with unused_port() as port:
        refused(
            caplog, f"{scheme}://127.0.0.1:{port}", f"127.0.0.1:{port}", "is the server running?"
        )
        with pytest.raises(DialError):
            connect(f"{scheme}://127.0.0.1:{port}")


def test_no_socket_file(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    refused(caplog, f"unix://{tmp_path}/none", "nobody listens on")


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".com"])
@pytest.mark.parametrize(
    "address", ["mysql://u@tcp({}:1)/d", "clickhouse://{}:1/d", "postgres://{}:1/d"]
)
def test_a_name_that_cannot_be_looked_up(
    caplog: pytest.LogCaptureFixture, address: str, host: str
) -> None:
    """The DSNs of the Go drivers take any host; nothing has answered there."""
    refused(caplog, address.format(host), f"{host}:1")
    assert "what answers" not in str(last_error())


def test_a_name_that_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    refused(caplog, "tcp://nobody.invalid:1", "nobody.invalid", seconds=20, timeout=5)


@pytest.mark.parametrize("scheme", ["tls", "ws", "wss"])
def test_a_peer_that_accepts_and_never_answers(
    caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    with SocketServer(deaf) as server:
        refused(caplog, f"{scheme}://127.0.0.1:{server.port}", str(server.port), timeout=0.3)
        with pytest.raises(DialTimeout):
            connect(f"{scheme}://127.0.0.1:{server.port}", 0.3)


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize("which", ["stranger", "wrong_host", "expired"])
def test_wrong_certificates(
    caplog: pytest.LogCaptureFixture, certs: Certs, scheme: str, which: str
) -> None:
    with SocketServer(echo, tls=getattr(certs, which).server_context()) as server:
        address = f"{scheme}://127.0.0.1:{server.port}"
        refused(caplog, address, "certificate", "insecureSkipVerify=true", cafile=str(certs.ca))


def test_a_handshake_answered_with_garbage(caplog: pytest.LogCaptureFixture) -> None:
    with SocketServer(garbage_handshake()) as server:
        refused(caplog, f"ws://127.0.0.1:{server.port}", "did not answer as a WebSocket server")


def test_a_handshake_answered_with_404(caplog: pytest.LogCaptureFixture) -> None:
    with WsServer(on_request=refuse_with(404)) as server:
        refused(caplog, server.url, "404", "check the")


@pytest.mark.parametrize("frame", [INVALID_UTF8_FRAME, OVERSIZE_FRAME, b"\xff\xff\xff\xff"])
def test_frames_that_are_none_end_the_link(caplog: pytest.LogCaptureFixture, frame: bytes) -> None:
    with undisturbed(), WsServer(raw(frame)) as server:
        conn = Dial(server.url, decode="text")
        assert conn is not None
        with conn:
            assert conn.read(5000) == ""
            until(lambda: "was lost" in caplog.text, "the line")
            assert caplog.text.count("was lost") == 1
            assert conn.write("x") == 0


def test_a_decompression_bomb(caplog: pytest.LogCaptureFixture) -> None:
    bomb = gzip.compress(bytes(200 << 20))
    with undisturbed(), WsServer(echo_messages) as server:
        conn = Dial(f"{server.url}|compress=gzip&max_size=1000000")
        assert conn is not None
        with conn:
            assert conn.write(bomb) == len(bomb)
            assert conn.write("after") == 5
            assert conn.read(20_000) == "after"
            until(lambda: "max_size" in caplog.text, "the line")


def test_a_dead_handle(caplog: pytest.LogCaptureFixture) -> None:
    with WsServer(echo_messages) as server:
        conn = Dial(server.url)
        assert conn is not None
        handle = conn.fd()
        with pytest.raises(TrunklineError):
            connect(1)
        for wrong in (1, 0, -5, handle ^ 1):
            caplog.clear()
            assert Dial(wrong) is None
            assert "dial" in caplog.text
        conn.close()


def test_the_log_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    with unused_port() as port:
        options = {
            "proxy": "socks5://me:hush1@127.0.0.1:9",
            "headers": {"X-Key": "hush2"},
            "payload": "hush3",
        }
        assert Dial(f"ws://user:hush4@127.0.0.1:{port}/?token=hush5", options) is None
        assert "hush" not in caplog.text
        assert "hush" not in (last_error() or "")
