"""Names, families, local_ip and proxies under the TCP schemes, and whose fault it was."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import Any

import pytest

from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy, HttpsProxy
from tests.support.loops import Run, on_both_loops
from tests.support.servers import Microsocks
from tests.support.sockets import Handler, Peer, SocketServer, deaf, echo, say, unused_port
from tests.support.socks4_proxy import Socks4Proxy
from trunkline.actors.driver import FatalError
from trunkline.actors.net import dialer
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout

pytestmark = on_both_loops
SOON = 0.2


async def dial(url: str, seconds: float = 5.0, **options: object) -> socket.socket:
    return await dialer.open_connection(parse_address(url, options), Deadline(seconds))


async def greeting(url: str, **options: object) -> bytes:
    """What the server says first, through a fresh connection."""
    with await dial(url, **options) as sock:
        return await asyncio.get_running_loop().sock_recv(sock, 100)


async def failure(url: str, **options: Any) -> DialError:
    with pytest.raises(DialError) as caught:
        (await dial(url, **options)).close()
    return caught.value


def test_a_direct_connection_is_tuned(run: Run) -> None:
    async def body() -> None:
        with await dial(server.url) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert not sock.getblocking()

    with SocketServer(echo) as server:
        run(body())


def test_a_name_with_two_families_finds_the_one_that_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(host: str, port: int, **kind: Any) -> list[Any]:
        assert host == "twofold.test"
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0))
        return [v6, (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with SocketServer(say(b"hello")) as server:
        run(_expect(f"tcp://twofold.test:{server.port}", b"hello"))


async def _expect(url: str, data: bytes, **options: object) -> None:
    assert await greeting(url, **options) == data


def test_the_resolver_is_not_waited_for_beyond_the_deadline(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stuck(*args: object, **kind: object) -> list[Any]:
        release.wait(10)
        return []

    async def body() -> None:
        try:
            error = await failure("tcp://slow.test:1", seconds=SOON)
        finally:
            release.set()
        assert isinstance(error, DialTimeout)
        assert str(error) == "no answer from slow.test:1 in the time allowed"

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    run(body())


def test_a_name_that_does_not_exist(run: Run) -> None:
    async def body() -> None:
        error = await failure("tcp://nobody.invalid:80")
        assert "nobody.invalid" in str(error)
        assert "check the spelling or DNS" in str(error)

    run(body())


def test_a_refusal_says_who_and_what_to_look_at(run: Run) -> None:
    async def body() -> None:
        error = await failure(f"tcp://127.0.0.1:{port}")
        assert str(error) == f"127.0.0.1:{port} refused the connection; is the server running?"
        assert error.code == errno.ECONNREFUSED
        assert not isinstance(error, FatalError)

    with unused_port() as port:
        run(body())


def test_local_ip_is_the_address_we_come_from(run: Run) -> None:
    async def body() -> None:
        with await dial(server.url, local_ip="127.0.0.7") as sock:
            assert sock.getsockname()[0] == "127.0.0.7"
        error = await failure(server.url, local_ip="192.0.2.1")
        assert isinstance(error, FatalError)
        assert "local_ip=192.0.2.1 cannot be used" in str(error)
        error = await failure(server.url, local_ip="::1")
        assert "not of the same address family" in str(error)

    with SocketServer(echo) as server:
        run(body())


@pytest.mark.parametrize("login", [None, ("name", "p w:d")])
def test_through_a_socks5_proxy(run: Run, login: tuple[str, str] | None) -> None:
    account = "name:p%20w%3Ad@" if login else ""
    with SocketServer(say(b"first words")) as server, Microsocks(*(login or ())) as proxy:
        for host in ("127.0.0.1", "localhost"):
            url = f"tcp://{host}:{server.port}|proxy=socks5://{account}{proxy.address}"
            run(_expect(url, b"first words"))


@pytest.mark.parametrize("login", [None, ("name", "secret")])
def test_through_an_http_proxy(run: Run, login: tuple[str, str] | None) -> None:
    account = "name:secret@" if login else ""
    with SocketServer(say(b"first words")) as server, HttpProxy(*(login or ())) as proxy:
        url = f"tcp://localhost:{server.port}|proxy=http://{account}127.0.0.1:{proxy.port}"
        run(_expect(url, b"first words"))
        assert proxy.asked == [f"localhost:{server.port}"], "names are resolved at the proxy"


@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
def test_through_a_socks4_proxy(run: Run, scheme: str) -> None:
    with SocketServer(say(b"first words")) as server, Socks4Proxy("me") as proxy:
        url = f"tcp://localhost:{server.port}|proxy={scheme}://me@127.0.0.1:{proxy.port}"
        run(_expect(url, b"first words"))
        host = "localhost" if scheme == "socks4a" else "127.0.0.1"
        assert proxy.asked == [f"{host}:{server.port}"], (
            "socks4a has the name looked up at the proxy"
        )


def test_socks4_failures_name_the_party(run: Run) -> None:
    async def body() -> None:
        place = f"127.0.0.1:{proxy.port}"
        error = await failure(f"tcp://127.0.0.1:{port}", proxy=f"socks4a://me@{place}")
        assert str(error).startswith(
            f"127.0.0.1:{port} is unreachable through proxy {place}: rejected"
        )
        error = await failure(f"tcp://127.0.0.1:{port}", proxy=f"socks4a://you@{place}")
        assert isinstance(error, FatalError)
        assert str(error) == f"proxy {place} refused the user; check proxy="
        for scheme in ("socks4", "socks4a"):
            error = await failure("tcp://[::1]:1", proxy=f"{scheme}://me@{place}")
            assert isinstance(error, FatalError)
            assert "use socks5://" in str(error)

    with Socks4Proxy("me") as proxy, unused_port() as port:
        run(body())


@pytest.mark.parametrize("login", [None, ("name", "secret")])
def test_through_an_https_proxy(run: Run, certs: Certs, login: tuple[str, str] | None) -> None:
    account = "name:secret@" if login else ""
    with (
        SocketServer(say(b"first words")) as server,
        HttpProxy(*(login or ())) as proxy,
        HttpsProxy(proxy, certs.server_context()) as front,
    ):
        url = f"tcp://localhost:{server.port}|proxy=https://{account}127.0.0.1:{front.port}"
        run(_expect(url, b"first words", cafile=str(certs.ca)))
        run(_expect(url, b"first words", insecureSkipVerify=True))
        assert proxy.asked == [f"localhost:{server.port}"] * 2


def test_https_proxy_failures_name_the_party(run: Run, certs: Certs) -> None:
    async def body() -> None:
        url, place = f"tcp://127.0.0.1:{port}", f"127.0.0.1:{front.port}"
        error = await failure(url, proxy=f"https://{place}")
        assert isinstance(error, FatalError)
        assert str(error).startswith(f"proxy: certificate of {place} is not trusted: ")
        error = await failure(url, proxy=f"https://127.0.0.1:{stranger.port}", cafile=str(certs.ca))
        assert str(error).endswith(
            "use the name in its certificate, or give insecureSkipVerify=true"
        )
        error = await failure(url, proxy=f"https://name:wrong@{place}", cafile=str(certs.ca))
        assert isinstance(error, FatalError)
        assert f"proxy {place} refused the user or password (407)" in str(error)
        error = await failure(url, proxy=f"https://name:secret@{place}", cafile=str(certs.ca))
        assert f"127.0.0.1:{port} is unreachable through proxy {place}" in str(error)
        error = await failure(url, proxy=f"https://127.0.0.1:{plain.port}", cafile=str(certs.ca))
        assert str(error).startswith(
            f"proxy: 127.0.0.1:{plain.port} did not answer with TLS; check the port"
        )

    with (
        HttpProxy("name", "secret") as proxy,
        HttpsProxy(proxy, certs.server_context()) as front,
        HttpsProxy(proxy, certs.wrong_host.server_context()) as stranger,
        SocketServer(say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as plain,
        unused_port() as port,
    ):
        run(body())


def test_socks5_failures_name_the_party(run: Run) -> None:
    async def body() -> None:
        base = f"socks5://name:secret@{proxy.address}"
        error = await failure(f"tcp://127.0.0.1:{port}", proxy=base)
        assert (
            str(error)
            == f"127.0.0.1:{port} is unreachable through proxy {proxy.address}: connection refused"
        )
        error = await failure("tcp://nobody.invalid:80", proxy=base)
        assert "nobody.invalid:80 is unreachable through proxy" in str(error)
        for account in ("name:wrong@", ""):
            error = await failure(
                f"tcp://127.0.0.1:{port}", proxy=f"socks5://{account}{proxy.address}"
            )
            assert isinstance(error, FatalError)
            assert "wrong" not in str(error)

    with Microsocks("name", "secret") as proxy, unused_port() as port:
        run(body())


def _after_connect(answer: bytes) -> Handler:
    def handler(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(answer)
        peer.read()

    return handler


@pytest.mark.parametrize("size", [0, 40_000])
def test_what_follows_a_proxys_answer_is_the_targets(run: Run, size: int) -> None:
    """However long its headers are, and with what the target says in the same packet."""
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Long: "
        + b"x" * size
        + b"\r\n\r\nfirst words"
    )
    with SocketServer(_after_connect(answer)) as server:
        run(_expect(f"tcp://localhost:1|proxy=http://127.0.0.1:{server.port}", b"first words"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"SSH-2.0-x\r\n",
            "is no HTTP proxy: it does not speak HTTP; its answer begins with 'SSH-2.0-x",
        ),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
            "the headers of its answer are longer than 256 KB",
        ),
        (b"HTTP/1.1 407 Who?\r\n\r\n", "wants a user and password (407)"),
    ],
)
def test_what_is_no_answer_of_a_proxy_is_told_at_once(run: Run, answer: bytes, words: str) -> None:
    async def body() -> None:
        assert words in str(
            await failure("tcp://localhost:1", proxy=f"http://127.0.0.1:{server.port}")
        )

    with SocketServer(_after_connect(answer)) as server:
        run(body())


def test_http_proxy_failures_name_the_party(run: Run) -> None:
    async def body() -> None:
        url = f"tcp://127.0.0.1:{port}"
        error = await failure(url, proxy=f"http://name:wrong@127.0.0.1:{proxy.port}")
        assert isinstance(error, FatalError)
        assert "refused the user or password (407)" in str(error)
        error = await failure(url, proxy=f"http://name:secret@127.0.0.1:{proxy.port}")
        assert f"127.0.0.1:{port} is unreachable through proxy" in str(error)
        error = await failure(url, proxy=f"http://127.0.0.1:{strict.port}")
        assert "refused to connect" in str(error)
        assert "403" in str(error)

    with (
        HttpProxy("name", "secret") as proxy,
        HttpProxy(answer="HTTP/1.1 403 Forbidden") as strict,
        unused_port() as port,
    ):
        run(body())


@pytest.mark.parametrize("scheme", ["socks5", "socks4a", "http"])
def test_what_is_no_proxy_is_recognised(run: Run, scheme: str) -> None:
    async def body() -> None:
        with SocketServer(say(b"220 mail ready\r\n")) as mail:
            error = await failure("tcp://h:1", proxy=f"{scheme}://127.0.0.1:{mail.port}")
            assert "does not speak" in str(error)
        with unused_port() as port:
            error = await failure("tcp://h:1", proxy=f"{scheme}://127.0.0.1:{port}")
            assert str(error).startswith(f"proxy: 127.0.0.1:{port} refused the connection")
        with SocketServer(lambda peer: peer.read(1) and peer.close()) as leaving:  # type: ignore[arg-type,func-returns-value]
            error = await failure("tcp://h:1", proxy=f"{scheme}://127.0.0.1:{leaving.port}")
            assert f"proxy 127.0.0.1:{leaving.port}" in str(error)

    run(body())


@pytest.mark.parametrize("scheme", ["socks5", "socks4a", "http", "https"])
def test_a_proxy_that_never_answers_is_left_at_the_deadline(run: Run, scheme: str) -> None:
    async def body() -> None:
        error = await failure(
            "tcp://h:1", seconds=SOON, proxy=f"{scheme}://127.0.0.1:{server.port}"
        )
        assert isinstance(error, DialTimeout)
        assert f"no answer through proxy 127.0.0.1:{server.port}" in str(error)

    with SocketServer(deaf) as server:
        run(body())
