"""The opening handshake on both engines: what is sent, where it goes through, and every way it fails."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

import pytest
from websockets.sync.server import ServerConnection

from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy, HttpsProxy
from tests.support.recorder import Recorder
from tests.support.servers import (
    Microsocks,
    WsServer,
    echo_messages,
    garbage_handshake,
    refuse_with,
)
from tests.support.sockets import Peer, SocketServer, deaf, unused_port
from tests.support.socks4_proxy import Socks4Proxy
from tests.support.websocket_peer import proof_of, upgrade
from tests.support.wsdrivers import Engine, on_every_engine
from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.ws.driver import WsDriver, choose_engine
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

pytestmark = on_every_engine
SOON = 0.3


def works(ws: Engine, url: str, **options: object) -> None:
    """The link opens and echoes."""

    async def body() -> None:
        sink, driver = await ws.dial(url, **options)
        await driver.send("hello", Deadline(5))
        assert await sink.wait_received(1) == ["hello"]
        await driver.close()

    ws.run(body())


def failure(ws: Engine, url: str, seconds: float = 10.0, **options: object) -> DialError:
    """What `open` raised; closing after a failed open must be allowed."""
    caught: list[DialError] = []

    async def body() -> None:
        sink = Recorder()
        driver = ws.driver(url, sink, **options)
        try:
            await driver.open(Deadline(seconds))
        except DialError as error:
            caught.append(error)
        await driver.close()
        assert sink.losses == []

    ws.run(body())
    assert caught, "it opened"
    return caught[0]


def test_path_query_and_headers_arrive_as_written(ws: Engine) -> None:
    headers = {
        "X-Key": "k1",
        "Host": "example.test",
        "User-Agent": "mine/1",
        "Origin": "https://o.test",
    }
    with WsServer(echo_messages) as server:
        works(ws, f"{server.url}/a;p=1/b?x=%2F&y=a+b&z=päth", headers=headers)
        request = server.requests[0]
        assert request.path == "/a;p=1/b?x=%2F&y=a+b&z=p%C3%A4th"
        for name, value in headers.items():
            assert request.headers.get_all(name) == [value]


def test_without_options_nothing_is_said_that_was_not_asked_for(ws: Engine) -> None:
    with WsServer(echo_messages) as server:
        works(ws, server.url)
        headers = server.requests[0].headers
        assert headers["Host"] == f"127.0.0.1:{server.port}"
        assert not {
            "Origin",
            "Authorization",
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Extensions",
        } & set(headers)


def test_origin_user_and_subprotocols_are_sent(ws: Engine) -> None:
    with WsServer(echo_messages, subprotocols=["v2"]) as server:
        url = server.url.replace("://", "://name:secret@")
        works(ws, url, origin="https://o.test", subprotocols=["v1", "v2"])
        headers = server.requests[0].headers
        assert headers["Origin"] == "https://o.test"
        assert headers["Authorization"] == "Basic bmFtZTpzZWNyZXQ="
        assert headers["Sec-WebSocket-Protocol"] == "v1, v2"


def test_a_subprotocol_nobody_offered_is_refused(ws: Engine) -> None:
    def pushy(peer: Peer) -> None:
        upgrade(peer, "Sec-WebSocket-Protocol: mine")
        peer.read()

    with SocketServer(pushy) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}", subprotocols=["yours"])
    assert isinstance(error, FatalError)
    assert "which was not offered" in str(error)


def test_an_extension_nobody_offered_is_refused(ws: Engine) -> None:
    def pushy(peer: Peer) -> None:
        upgrade(peer, "Sec-WebSocket-Extensions: permessage-deflate")
        peer.read()

    with SocketServer(pushy) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}")
    assert "did not answer as a WebSocket server" in str(error)


def test_headers_of_the_handshake_itself_are_left_out_with_a_warning(ws: Engine) -> None:
    async def body() -> None:
        sink, driver = await ws.dial(
            server.url, headers={"Connection": "close", "Sec-WebSocket-Key": "x"}
        )
        assert sink.warnings == [
            "headers: Connection, Sec-WebSocket-Key left out, the handshake sets them itself"
        ]
        await driver.close()

    with WsServer(echo_messages) as server:
        ws.run(body())


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "a list": lambda proof: answer(proof, connection=["Connection: keep-alive, Upgrade"]),
    "two lines": lambda proof: answer(
        proof, connection=["Connection: keep-alive", "Connection: upgrade"]
    ),
    "cases": lambda proof: answer(
        proof, upgrade="UPGRADE: WebSocket", connection=["connection:UPGRADE"]
    ),
    "no phrase": lambda proof: answer(proof, status="HTTP/1.1 101"),
    "empty phrase": lambda proof: answer(proof, status="HTTP/1.1 101 "),
    "latin-1": lambda proof: answer(proof, "X-City: Montr\xe9al"),
    "empty": lambda proof: answer(proof, "X-Empty:", "X-Spaces:  \t "),
    "folded": lambda proof: answer(proof, "X-Folded: one", "\ttwo"),
    "space before the colon": lambda proof: answer(proof, "X-Key : v"),
    "a control character": lambda proof: answer(proof, "X-Key: a\x01b"),
    "long": lambda proof: answer(proof, f"X-Long: {'l' * 100_000}"),
    "many": lambda proof: answer(proof, *(f"X-{number}: v" for number in range(1000))),
    "informational": lambda proof: (
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 100\r\n\r\n" + answer(proof)
    ),
    "an empty line first": lambda proof: b"\r\n" + answer(proof),
    "bare line feeds": lambda proof: answer(proof).replace(b"\r\n", b"\n"),
    "a length": lambda proof: answer(proof, "Content-Length: 0", "Transfer-Encoding: identity"),
    "the proof twice": lambda proof: answer(proof, f"sec-websocket-accept:  {proof.decode()} "),
    "no extensions": lambda proof: answer(proof, "Sec-WebSocket-Extensions:"),
    "HTTP/1.0": lambda proof: answer(proof, status="HTTP/1.0 101 x"),
}


def answer(
    proof: bytes,
    *more: str,
    status: str = "HTTP/1.1 101 Switching Protocols",
    upgrade: str = "Upgrade: websocket",
    connection: Sequence[str] = ("Connection: Upgrade",),
) -> bytes:
    """A valid answer in another spelling."""
    lines = [status, upgrade, *connection, f"Sec-WebSocket-Accept: {proof.decode()}", *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_every_spelling_of_a_valid_answer_is_taken(ws: Engine) -> None:
    """With a message in the same segment, and with everything byte by byte where that is quick."""

    def speller(peer: Peer) -> None:
        request = peer.read_until(b"\r\n\r\n")
        name = unquote(request.split()[1].decode()[1:])
        data = (
            SPELLINGS[name](proof_of(request)) + b"\x81\x02ok" + b"\x82\x7e\xff\xff" + bytes(65535)
        )
        for at in range(300):
            peer.send(data[at : at + 1])
        peer.send(data[300:])
        peer.read()

    async def body() -> None:
        for name in SPELLINGS:
            sink, driver = await ws.dial(f"ws://127.0.0.1:{server.port}/{quote(name)}")
            assert await sink.wait_received(2) == ["ok", bytes(65535)], name
            assert sink.losses == []
            await driver.close()

    with SocketServer(speller) as server:
        ws.run(body())


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            (b"Upgrade: websocket", b"Upgrade: h2c"),
            "its 101 says 'Upgrade: h2c', not 'Upgrade: websocket'",
        ),
        ((b"Connection: Upgrade\r\n", b""), "its 101 says no Connection"),
        ((b"Connection: Upgrade", b"Connection: close"), "its 101 says 'Connection: close'"),
        (
            (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
            "a Sec-WebSocket-Accept for another key",
        ),
        ((b"Sec-WebSocket-Accept: ", b"X: "), "has no Sec-WebSocket-Accept"),
        ((b"HTTP/1.1 ", b"HTTP/2 "), "its status line is 'HTTP/2 101 Switching Protocols'"),
        (
            (b"Upgrade: w", b"garbage\r\nUpgrade: w"),
            "a header line of its answer has no colon: 'garbage'",
        ),
        ((b"Upgrade: w", b"X: " + b"y" * 300_000 + b"\r\nUpgrade: w"), "longer than 256 KB"),
        (
            (b"HTTP/1.1 ", b"\x15\x03\x01\x00\x02\x02\x46"),
            "it speaks TLS on this port; give a scheme with TLS (wss://)",
        ),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(
    ws: Engine, spoil: tuple[bytes, bytes], why: str
) -> None:
    def spoiler(peer: Peer) -> None:
        request = peer.read_until(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            peer.send(answer(proof_of(request)).replace(*spoil))
            peer.read()

    with SocketServer(spoiler) as server:
        text = str(failure(ws, f"ws://127.0.0.1:{server.port}"))
    assert text.startswith(f"127.0.0.1:{server.port} did not answer as a WebSocket server: ")
    assert why in text
    assert "check the p" not in text


def test_a_refusal_says_what_the_server_says_and_when_to_come_back(ws: Engine) -> None:
    """Its body, cut and printable, without the secrets that it repeats; also where the body never ends."""

    def refuser(peer: Peer) -> None:
        key = re.search(rb"X-Key: (\S+)", peer.read_until(b"\r\n\r\n"))
        assert key
        peer.send(
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n\r\n{banned: '"
            + key[1]
            + b"'}\nmore"
        )
        peer.read()

    with SocketServer(refuser) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}", headers={"X-Key": "abcd1234"})
        assert (error.code, error.retry_after_s) == (429, 7.0)
        assert str(error).endswith("; it says: {banned: '***'}")
        error = failure(ws, f"ws://127.0.0.1:{server.port}", 0.6, headers={"X-Key": "k" * 4})
        assert error.code == 429  # not a timeout: the refusal itself was there in time


@pytest.mark.parametrize("status", [401, 403, 404, 418])
def test_a_refusal_that_stays_is_fatal(ws: Engine, status: int) -> None:
    with WsServer(on_request=refuse_with(status)) as server:
        error = failure(ws, server.url)
    assert isinstance(error, FatalError)
    assert error.code == status
    assert f"127.0.0.1:{server.port} refused the WebSocket with HTTP {status}; check the " in str(
        error
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_may_pass_is_not(ws: Engine, status: int) -> None:
    with WsServer(on_request=refuse_with(status)) as server:
        error = failure(ws, server.url)
    assert not isinstance(error, FatalError)
    assert error.code == status


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff not http at all\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm8=\r\n\r\n",
    ],
    ids=["garbage", "ssh", "http 200", "no proof", "wrong proof"],
)
def test_garbage_is_recognised(ws: Engine, answer: bytes) -> None:
    with SocketServer(garbage_handshake(answer)) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}")
    assert f"127.0.0.1:{server.port} did not answer as a WebSocket server" in str(error)
    assert "check the port" not in str(error)  # the cause is known, and said instead
    assert not isinstance(error, FatalError)


def test_a_status_python_has_no_name_for_is_still_read(ws: Engine) -> None:
    with SocketServer(
        garbage_handshake(b"HTTP/1.1 521 Down\r\nContent-Length: 0\r\n\r\n")
    ) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}")
    assert error.code == 521


def test_a_server_that_leaves_in_the_handshake(ws: Engine) -> None:
    with SocketServer(garbage_handshake(b"")) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}")
    assert "closed the connection in the handshake" in str(error)
    assert not isinstance(error, FatalError)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_peer_that_never_answers_is_left_at_the_deadline(ws: Engine, scheme: str) -> None:
    with SocketServer(deaf) as server:
        error = failure(ws, f"{scheme}://127.0.0.1:{server.port}", 3.0 if scheme == "wss" else SOON)
    assert isinstance(error, DialTimeout)
    what = (
        "no TLS answer from"
        if scheme == "wss"
        else "did not answer the WebSocket handshake in the time"
    )
    assert what in str(error)


def test_a_peer_that_answers_drop_by_drop_is_left_at_the_deadline(ws: Engine) -> None:
    def drip(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 101 ")
        while not peer.stopping.wait(0.02):
            peer.send(b"H")

    with SocketServer(drip) as server:
        assert isinstance(failure(ws, f"ws://127.0.0.1:{server.port}", SOON), DialTimeout)


def test_an_open_that_is_cancelled_leaves_nothing_behind(ws: Engine) -> None:
    async def body() -> None:
        driver = ws.driver(f"ws://127.0.0.1:{server.port}", Recorder())
        opening = asyncio.create_task(driver.open(Deadline(10)))
        await asyncio.to_thread(server.wait_received, b"\r\n\r\n")
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await driver.close()

    def listen(peer: Peer) -> None:
        while peer.read():
            pass

    with SocketServer(listen) as server:
        ws.run(body())


def test_nobody_listening(ws: Engine) -> None:
    with unused_port() as port:
        assert "is the server running?" in str(failure(ws, f"ws://127.0.0.1:{port}"))


def redirecting(*locations: str) -> SocketServer:
    """Answers handshake after handshake with a redirect to the next location, with PORT put in."""
    left = list(locations)

    def handler(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        port = str(peer.sock.getsockname()[1])
        peer.send(
            f"HTTP/1.1 302 Found\r\nLocation: {left.pop(0).replace('PORT', port)}\r\n\r\n".encode()
        )

    return SocketServer(handler)


def test_redirects_are_followed(ws: Engine) -> None:
    with WsServer(echo_messages) as goal:
        with redirecting(
            "/next", "http://127.0.0.1:PORT/more?a=1", f"{goal.url}/end?b=2"
        ) as server:
            works(ws, f"ws://127.0.0.1:{server.port}/start", headers={"X-Key": "k"})
        assert goal.requests[0].path == "/end?b=2"
        assert "X-Key" not in goal.requests[0].headers  # a key is for the host it was given for


@pytest.mark.parametrize(
    ("location", "path"),
    [("/caf\u00e9?s=\u20ac", "/caf%C3%A9?s=%E2%82%AC"), ("/a%C3%A9 b", "/a%C3%A9%20b")],
)
def test_a_redirect_that_is_no_ascii_keeps_its_bytes(ws: Engine, location: str, path: str) -> None:
    with WsServer(echo_messages) as goal, redirecting(f"{goal.url}{location}") as server:
        works(ws, f"ws://127.0.0.1:{server.port}/")
    assert goal.requests[0].path == path


def test_a_failure_after_a_redirect_says_who_sent_us_there(ws: Engine) -> None:
    with unused_port() as port, redirecting(f"ws://127.0.0.1:{port}/") as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}/")
    origin = f"after a redirect of 127.0.0.1:{server.port}"
    assert (
        str(error) == f"{origin}: 127.0.0.1:{port} refused the connection; is the server running?"
    )


def test_redirects_in_a_circle_end(ws: Engine) -> None:
    with redirecting(*["/again"] * 9) as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}/")
    assert isinstance(error, FatalError)
    assert "redirects more than 5 times" in str(error)


def test_wss_is_never_redirected_to_ws(ws: Engine, certs: Certs) -> None:
    def move(connection: ServerConnection, request: object) -> Any:
        response = connection.respond(302, "")
        response.headers["Location"] = "ws://127.0.0.1:9/"
        return response

    with WsServer(tls=certs.server_context(), on_request=move) as server:
        error = failure(ws, server.url, cafile=str(certs.ca))
    assert isinstance(error, FatalError)
    assert "from wss to ws" in str(error)


def test_wss_with_certificates_and_a_client_certificate(ws: Engine, certs: Certs) -> None:
    options = {
        "cafile": str(certs.ca),
        "certfile": str(certs.client.cert),
        "keyfile": str(certs.client.key),
    }
    with WsServer(echo_messages, tls=certs.server_context(ask_client=True)) as server:
        works(ws, server.url, **options)


@pytest.mark.parametrize(
    ("which", "why"),
    [
        ("stranger", "is not trusted"),
        ("wrong_host", "for another host"),
        ("expired", "it has expired"),
    ],
)
def test_wrong_certificates_are_told_apart(ws: Engine, certs: Certs, which: str, why: str) -> None:
    context = getattr(certs, which).server_context()
    with WsServer(echo_messages, tls=context) as server:
        error = failure(ws, server.url, cafile=str(certs.ca))
        assert isinstance(error, FatalError)
        assert f"certificate of 127.0.0.1:{server.port} is not trusted" in str(error)
        assert why in str(error)
        works(ws, server.url, insecureSkipVerify=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_client_certificate_says_so(
    ws: Engine, certs: Certs, version: ssl.TLSVersion
) -> None:
    context = certs.server_context(ask_client=True)
    context.minimum_version = context.maximum_version = version
    with WsServer(echo_messages, tls=context) as server:
        error = failure(ws, server.url, cafile=str(certs.ca))
    assert "wants a client certificate" in str(error)
    assert "certfile=" in str(error)


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_wss_to_a_plain_port_that_only_hangs_up(ws: Engine, leave: Callable[[Peer], None]) -> None:
    def handler(peer: Peer) -> None:
        peer.read(20)
        leave(peer)

    with SocketServer(handler) as server:
        error = failure(ws, f"wss://127.0.0.1:{server.port}")
    place = f"127.0.0.1:{server.port}"
    assert str(error).startswith(
        f"{place} closed the connection in the TLS handshake; check that this port serves"
    )


def test_a_redirect_to_nowhere_is_no_redirect(ws: Engine) -> None:
    with redirecting("") as server:
        error = failure(ws, f"ws://127.0.0.1:{server.port}/")
    assert "did not answer as a WebSocket server (HTTP 302)" in str(error)


def test_wss_to_a_plain_port(ws: Engine) -> None:
    with SocketServer(garbage_handshake(b"")) as server:

        def plain(peer: Peer) -> None:
            peer.read()
            peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server.handler = plain
        error = failure(ws, f"wss://127.0.0.1:{server.port}")
    assert "did not answer with TLS" in str(error)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("kind", ["socks5", "socks4a", "http", "https"])
def test_through_proxies(ws: Engine, certs: Certs, kind: str, secure: bool) -> None:
    context = certs.server_context() if secure else None
    options: dict[str, object] = {"cafile": str(certs.ca)} if secure or kind == "https" else {}
    with WsServer(echo_messages, tls=context) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        if kind == "socks5":
            with Microsocks("name", "secret") as socks:
                works(ws, url, proxy=f"socks5://name:secret@{socks.address}", **options)
        elif kind == "socks4a":
            with Socks4Proxy("name") as socks4:
                works(ws, url, proxy=f"socks4a://name@127.0.0.1:{socks4.port}", **options)
        elif kind == "https":
            with (
                HttpProxy("name", "secret") as proxy,
                HttpsProxy(proxy, certs.server_context()) as front,
            ):
                works(ws, url, proxy=f"https://name:secret@127.0.0.1:{front.port}", **options)
        else:
            with HttpProxy("name", "secret") as proxy:
                works(ws, url, proxy=f"http://name:secret@127.0.0.1:{proxy.port}", **options)
                assert proxy.asked == [f"localhost:{server.port}"]


def test_cookies_of_one_link_are_not_sent_on_the_next(ws: Engine) -> None:
    def bake(connection: ServerConnection, request: object, response: Any) -> Any:
        response.headers["Set-Cookie"] = "session=1; domain=127.0.0.1"
        return response

    with WsServer(echo_messages, process_response=bake) as server:
        works(ws, server.url)
        works(ws, server.url)
        assert "Cookie" not in server.requests[1].headers


def test_local_ip(ws: Engine) -> None:
    seen: list[str] = []

    def note(connection: ServerConnection) -> None:
        seen.append(connection.remote_address[0])
        echo_messages(connection)

    with WsServer(note) as server:
        works(ws, server.url, local_ip="127.0.0.5")
    assert seen == ["127.0.0.5"]


def test_the_engine_can_be_forced(ws: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_WS_ENGINE", ws.name)
    assert choose_engine() == ws.name
    monkeypatch.setenv("TRUNKLINE_WS_ENGINE", "carrier-pigeon")
    with pytest.raises(FatalError, match="the engines are picows and websocket-client"):
        choose_engine()
    assert WsDriver.schemes == ("ws", "wss")


def test_without_picows_the_other_engine_is_taken(
    ws: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_WS_ENGINE", raising=False)
    monkeypatch.setitem(sys.modules, "picows", None)
    assert choose_engine() == "websocket-client"
    with pytest.raises(FatalError, match="picows is not installed; pip install"):
        choose_engine("picows")
