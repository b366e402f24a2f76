"""Every option of SPEC 4, through Dial, against real servers."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from websockets.sync.server import ServerConnection

from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy
from tests.support.servers import Microsocks, WsServer, echo_messages, feed, hold
from tests.support.sockets import Peer, SocketServer, UdpServer, echo
from tests.support.waiting import until
from trunkline import Dial, last_error
from trunkline.deadline import Deadline
from trunkline.proxy.connection import Connection
from trunkline.testing.faultproxy import FaultProxy


def dial(address: str, **options: object) -> Connection:
    conn = Dial(address, options)
    assert conn is not None, last_error()
    return conn


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip_raw": raw_deflate,
    "deflate": raw_deflate,
    "zlib": zlib.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "gzip_raw": lambda data: zlib.decompress(data, -15),
    "deflate": lambda data: zlib.decompress(data, -15),
    "zlib": zlib.decompress,
}


@pytest.mark.parametrize("compress", PACK)
def test_compression_in_each_mode(compress: str) -> None:
    text = "préis " * 50
    packed = PACK[compress](text.encode())
    with WsServer(hold) as server:
        for mode in ("recv", "send", "dual"):
            with dial(f"{server.url}|compress={compress}&mode={mode}", payload="hello") as conn:
                server.wait_live(1)
                server.send_all(packed)
                server.send_all("plain text")
                assert conn.read(5000) == (packed if mode == "send" else text)
                assert conn.read(5000) == "plain text"
                before = len(server.received)
                assert conn.write(text) == len(text.encode())
                *_, sent = server.wait_received(before + 1)
                if mode == "recv":
                    assert sent == text
                else:
                    assert isinstance(sent, bytes)
                    assert UNPACK[compress](sent).decode() == text
            server.wait_live(0)
        assert server.received[0] == "hello"


def test_what_cannot_be_decompressed_is_one_line_and_not_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with WsServer(hold) as server, dial(f"{server.url}|compress=gzip") as conn:
        server.wait_live(1)
        broken = gzip.compress(b"abc" * 100)[:-9]
        for message in (broken, broken, gzip.compress(b"good")):
            server.send_all(message)
        assert conn.read(5000) == "good"
        assert conn.stats().errors == 2
        until(lambda: "was discarded" in caplog.text, "the line")
        assert caplog.text.count("was discarded") == 1


def test_permessage_deflate() -> None:
    with WsServer(echo_messages, compression="deflate") as server:
        with dial(f"{server.url}|enableCompression=true") as conn:
            assert conn.write("abc" * 1000) == 3000
            assert conn.read(5000) == "abc" * 1000
        assert "permessage-deflate" in server.requests[0].headers["Sec-WebSocket-Extensions"]


@pytest.mark.parametrize(
    "payload",
    [
        '{"op":"sub","args":["a=1&b=2","x|y"]}',
        "YWJjZA==",
        "a%20b%zz",
        "präfix €",
        '{"url":"wss://x/?a=b&c=d"}',
    ],
)
def test_payloads_arrive_byte_for_byte(payload: str) -> None:
    with WsServer(hold) as server:
        with dial(f"{server.url}||reconnect=true&payload={payload}&interval=7"):
            assert server.wait_received(1) == [payload]
        with dial(f"{server.url}|payload={quote(payload, safe='')}"):
            assert server.wait_received(2)[1] == payload


def test_several_payloads_on_each_link_in_order() -> None:
    with (
        WsServer(hold) as server,
        dial(
            f"{server.url}|reconnect=true&interval=10&payload=one&payload=two&payload=three"
        ) as conn,
    ):
        for link in range(1, 4):
            assert server.wait_received(3 * link) == ["one", "two", "three"] * link
            server.drop_all()
            until(lambda n=link: conn.stats().reconnects == n, "the new link")


def test_an_option_in_the_address_wins() -> None:
    with WsServer(hold) as server, dial(f"{server.url}|payload=address", payload="given"):
        assert server.wait_received(1) == ["address"]


def test_payloads_on_plain_sockets() -> None:
    with SocketServer(echo) as server, dial(f"{server.url}|payload=hi") as conn:
        assert conn.read(5000) == "hi"
    with UdpServer() as udp, dial(f"{udp.url}|payload=hi") as conn:
        assert conn.read(5000) == "hi"


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_socks5_with_a_login_resolves_the_name_itself(scheme: str) -> None:
    with (
        SocketServer(echo) as plain,
        WsServer(echo_messages) as ws,
        Microsocks("me", "p@ss") as proxy,
    ):
        port = plain.port if scheme == "tcp" else ws.port
        address = f"{scheme}://localhost:{port}|proxy=socks5://me:p%40ss@{proxy.address}"
        with dial(address) as conn:
            assert conn.write("through") == 7
            assert conn.read(5000) == "through"
            assert "p%40ss" not in repr(conn)
            assert "p@ss" not in repr(conn)
        assert Dial(f"{scheme}://localhost:{port}|proxy=socks5://me:wrong@{proxy.address}") is None
        assert "refused the user or password" in (last_error() or "")
        assert "wrong" not in (last_error() or "")


def test_http_proxy_for_ws() -> None:
    with WsServer(echo_messages) as server, HttpProxy("me", "secret") as proxy:
        url = server.url.replace("127.0.0.1", "localhost")
        with dial(f"{url}|proxy=http://me:secret@127.0.0.1:{proxy.port}") as conn:
            assert conn.write("through") == 7
            assert conn.read(5000) == "through"
        assert proxy.asked == [f"localhost:{server.port}"]
        assert Dial(f"{url}|proxy=http://me:wrong@127.0.0.1:{proxy.port}") is None
        assert "407" in (last_error() or "")


def test_handshake_options() -> None:
    with (
        WsServer(hold, subprotocols=["v2"]) as server,
        dial(
            server.url, headers={"X-Key": "k1"}, subprotocols=["v1", "v2"], origin="https://o.test"
        ),
    ):
        headers = server.requests[0].headers
        assert (headers["X-Key"], headers["Origin"]) == ("k1", "https://o.test")
        assert headers["Sec-WebSocket-Protocol"] == "v1, v2"


def test_text_pings_are_sent_while_the_strategy_is_busy() -> None:
    with (
        WsServer(hold) as server,
        dial(f"{server.url}|pingInterval=20&pingType=text&pingMessage=stay"),
    ):
        assert set(server.wait_received(3)) == {"stay"}
    with SocketServer(echo) as plain, dial(f"{plain.url}|pingInterval=20&pingMessage=stay"):
        plain.wait_received(b"staystay")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ("pingMessage=hb", "give pingType=text"),
        ("pingMessage=hb&pingInterval=0", "give pingInterval="),
    ],
)
def test_a_text_that_no_keepalive_will_carry_is_told(
    caplog: pytest.LogCaptureFixture, options: str, advice: str
) -> None:
    with WsServer(hold) as server, dial(f"{server.url}|{options}"):
        until(lambda: advice in caplog.text, "the line")


def test_control_pings_are_no_data_and_their_silence_is_a_loss() -> None:
    with (
        WsServer(hold) as server,
        FaultProxy(server.port) as proxy,
        dial(f"ws://{proxy.address}|pingInterval=50") as conn,
    ):
        before = proxy.taken("down")
        proxy.wait_taken("down", before + 8)  # pongs
        assert conn.read(-1) is None
        assert conn.stats().messages_in == 0
        proxy.blackhole("down")
        assert conn.read(20_000) == ""
        assert "ping" in (conn.stats().last_error or "")


def test_idle_is_reset_by_data_and_not_by_pings() -> None:
    stop = threading.Event()

    def chatter(ws: ServerConnection) -> None:
        for _ in range(12):
            ws.send("data")
            if stop.wait(0.05):
                return
        hold(ws)

    with WsServer(chatter) as server, dial(f"{server.url}|idle=400&pingInterval=30") as conn:
        got = []
        deadline = Deadline(20)
        while (message := conn.read(20_000)) and not deadline.expired():
            got.append(message)
        assert got == ["data"] * 12  # 600 ms of data every 50 ms outlived it, pings alone did not
        assert message == ""
        assert "idle" in (conn.stats().last_error or "")
        stop.set()


def test_tls_options(certs: Certs) -> None:
    with SocketServer(echo, tls=certs.server_context(ask_client=True)) as server:
        options = {
            "cafile": str(certs.ca),
            "certfile": str(certs.client.cert),
            "keyfile": str(certs.client.key),
        }
        with dial(server.url, **options) as conn:
            assert conn.write("hi") == 2
            assert conn.read(5000) == "hi"
    with SocketServer(echo, tls=certs.wrong_host.server_context()) as server:
        for extra in ({"servername": "somebody.example"}, {"insecureSkipVerify": True}):
            with dial(server.url, cafile=str(certs.ca), **extra) as conn:
                assert conn.write("hi") == 2
                assert conn.read(5000) == "hi"


def test_local_ip() -> None:
    seen: list[str] = []

    def note(peer: Peer) -> None:
        seen.append(peer.sock.getpeername()[0])
        echo(peer)

    with SocketServer(note) as server, dial(f"{server.url}|local_ip=127.0.0.9") as conn:
        conn.write("x")
        assert conn.read(5000) == "x"
    assert seen == ["127.0.0.9"]


def test_the_default_bound_is_2000() -> None:
    with WsServer(feed(2500)) as server, dial(server.url) as conn:
        until(lambda: conn.stats().messages_in == 2500, "the feed")
        taken = [str(conn.read(5000))]
        while taken[-1] != "2499":
            taken.append(str(conn.read(5000)))
        # What the program had already been sent may be read although it was to be dropped.
        assert taken[-2000:] == [str(n) for n in range(500, 2500)]
        assert all(int(early) < 500 for early in taken[:-2000])
        assert conn.read(-1) is None
        until(lambda: conn.stats().buffered == 0)
        until(lambda: conn.stats().read == len(taken), "the acknowledgement")
        assert conn.stats().dropped == 2500 - len(taken)


def test_buffer_and_decode() -> None:
    with WsServer(feed(10)) as server, dial(f"{server.url}|buffer=3&decode=bytes") as conn:
        until(lambda: conn.stats().messages_in == 10, "the feed")
        assert [conn.read() for _ in range(3)] == [b"7", b"8", b"9"]


@pytest.mark.parametrize("size", [1001, 100_000, 5_000_000, 17_000_000])
def test_max_size_ends_the_link_that_breaks_it(size: int) -> None:
    with WsServer(hold) as server, dial(f"{server.url}|max_size=1000") as conn:
        server.wait_live(1)
        server.send_all("x" * 1000)
        server.send_all("y" * size)
        assert conn.read(5000) == "x" * 1000
        assert conn.read(5000) == ""
        assert "1000" in (conn.stats().last_error or "")


def test_values_may_be_percent_encoded() -> None:
    text = json.dumps({"a": "b c"})
    with (
        WsServer(hold) as server,
        dial(f"{server.url}|headers={quote(json.dumps({'X-A': 'b c'}))}"),
    ):
        assert server.requests[0].headers["X-A"] == "b c", text


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with WsServer(echo_messages) as server, HttpProxy("u", "p") as proxy:
        monkeypatch.setenv("https_proxy", f"u:p@127.0.0.1:{proxy.port}")
        with dial(server.url) as conn:
            assert conn.write("through") == 7
            assert conn.read(5000) == "through"
        assert proxy.asked == [f"127.0.0.1:{server.port}"]
        with dial(f"{server.url}|proxy=none") as conn:
            assert conn.write("direct") == 6
            assert conn.read(5000) == "direct"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        dial(server.url).close()
        assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", f"u:S3cret@127.0.0.1:{proxy.port}")
        assert Dial(server.url) is None
        assert "(from https_proxy) refused the user or password" in (last_error() or "")
        assert "S3cret" not in (last_error() or "")
