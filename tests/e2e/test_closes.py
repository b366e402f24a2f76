"""Why a peer closed: code and words of its close frame, wherever users look, with both WebSocket engines; and
what it said before the link counted as open."""

from __future__ import annotations

import pytest

from tests.support.sockets import Peer, SocketServer
from tests.support.waiting import until
from tests.support.websocket_peer import upgrade
from trunkline import Dial, connect, last_error
from trunkline.errors import BrokenError


def close_frame(code: int, reason: str) -> bytes:
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes([0x88, len(payload)]) + payload


def text_frame(text: str) -> bytes:
    return bytes([0x81, len(text)]) + text.encode()


@pytest.fixture(params=["picows", "websocket-client"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRUNKLINE_WS_ENGINE", request.param)
    return str(request.param)


@pytest.mark.own_broker
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, "done for today"), (1001, "restarting"), (4001, "bad key"), (4401, "")],
)
def test_code_and_reason_of_a_close_are_told(
    code: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(peer: Peer) -> None:
        upgrade(peer)
        peer.send(text_frame("hello") + close_frame(code, reason))
        peer.stopping.wait()

    with SocketServer(handler) as server, connect(server.url.replace("tcp", "ws")) as conn:
        assert conn.read(10_000) == "hello"
        with pytest.raises(BrokenError) as caught:
            conn.read(10_000)
        assert (caught.value.code, caught.value.reason or "") == (code, reason)
        for text in (str(caught.value), conn.stats().last_error or ""):
            assert str(code) in text
            assert reason in text
        until(lambda: f"{code}" in caplog.text and reason in caplog.text, "the line in the log")
        with pytest.raises(BrokenError, match=str(code)):
            conn.write("x")
    with SocketServer(handler) as server:
        conn = Dial(server.url.replace("tcp", "ws"))
        assert conn is not None
        assert conn.read(10_000) == "hello"
        assert conn.read(10_000) == ""
        assert str(code) in (last_error() or "")
        assert reason in (last_error() or "")
        conn.close()


@pytest.mark.own_broker
@pytest.mark.usefixtures("engine")
def test_a_login_that_is_refused_is_told_with_the_peers_words() -> None:
    def handler(peer: Peer) -> None:
        upgrade(peer)
        peer.read(6)
        peer.send(text_frame('{"error":"bad signature"}') + close_frame(4401, "bad signature"))
        peer.stopping.wait(5)

    with SocketServer(handler) as server:
        assert Dial(server.url.replace("tcp", "ws"), payload=["login", "subscribe"]) is None
        assert "4401" in (last_error() or "")
        assert "bad signature" in (last_error() or "")


@pytest.mark.own_broker
@pytest.mark.usefixtures("engine")
def test_what_a_peer_says_while_a_link_comes_back_is_read() -> None:
    def handler(peer: Peer) -> None:
        upgrade(peer)
        peer.read_exactly(6 + len("login"))
        peer.send(text_frame(f"answer {peer.number}"))
        if peer.number == 0:
            peer.reset()
        elif peer.number == 1:
            peer.send(close_frame(4401, "try again"))
            peer.stopping.wait(5)
        else:
            peer.stopping.wait()

    with SocketServer(handler) as server:
        options = {"payload": ["login", "subscribe"], "reconnect": True, "interval": 50}
        conn = Dial(server.url.replace("tcp", "ws"), options)
        while conn is None:  # the first link may be broken before it counts as open
            conn = Dial(server.url.replace("tcp", "ws"), options)
        found: list[object] = []
        while "answer 2" not in found and len(found) < 5000:
            if (message := conn.read(1000)) not in ("", None):
                found.append(message)
        first = int(str(found[0]).split()[1])
        assert found == [f"answer {number}" for number in range(first, 3)]
        conn.close()


def test_a_reset_is_told_in_words() -> None:
    def handler(peer: Peer) -> None:
        peer.read(2)
        peer.reset()

    with SocketServer(handler) as server, connect(server.url) as conn:
        conn.write("go")
        with pytest.raises(BrokenError, match=r"has ended: Connection reset by peer$"):
            conn.read(5000)
