"""HttpQuery through SOCKS proxies: kept links, TLS, refusals, and proxies that take their time."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import sys
from collections.abc import Iterator

import httpcore
import pytest

from tests.support.certs import Certs
from tests.support.servers import Microsocks
from tests.support.sockets import Handler, Peer, SocketServer, deaf, unused_port
from tests.support.socks4_proxy import Socks4Proxy
from trunkline.strategy.httpquery import HttpQuery
from trunkline.strategy.sockslinks import LONGEST, SocksNetwork

GRANTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlink "
IN_TIME = {"timeout": 10_000}


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def query(failures: list[str]) -> Iterator[HttpQuery]:
    with contextlib.closing(HttpQuery(failures.append)) as made:
        yield made


def answer_by_number(peer: Peer) -> None:
    """An HTTP server: each answer is the number of its link."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            peer.read_until(b"\r\n\r\n")
            peer.send(ANSWER + b"%d" % peer.number)


def answer_once(peer: Peer) -> None:
    peer.read_until(b"\r\n\r\n")
    peer.send(ANSWER + b"%d" % peer.number)


def read_target(peer: Peer) -> tuple[int, bytes]:
    """Take a client's greeting and its request. Return the kind of the address, and the address."""
    peer.read_exactly(peer.read_exactly(2)[1])
    peer.send(b"\x05\x00")
    assert peer.read_exactly(3) == b"\x05\x01\x00"
    (kind,) = peer.read_exactly(1)
    size = {1: 4, 4: 16}.get(kind) or peer.read_exactly(1)[0]
    address = peer.read_exactly(size)
    peer.read_exactly(2)
    return kind, address


def dripping(begun: bytes, dripped: queue.Queue[int]) -> Handler:
    """A SOCKS5 proxy that answers a request with the bytes `begun` and then sends a byte now and then, until
    its client has left. `dripped` gets the number of these bytes."""

    def serve(peer: Peer) -> None:
        count = 0
        with contextlib.suppress(OSError):
            read_target(peer)
            peer.send(begun)
            while not peer.stopping.wait(0.05):
                peer.send(b"z")
                count += 1
        dripped.put(count)

    return serve


def test_a_kept_link_through_the_proxy_is_used_again(query: HttpQuery, failures: list[str]) -> None:
    with SocketServer(answer_by_number) as server, Microsocks("me", "p@w") as proxy:
        through = f"socks5://me:p%40w@{proxy.address}/http://localhost:{server.port}/"
        given = [query(through, IN_TIME), query(through, {**IN_TIME, "body": "a=1"})]
        given.append(query(through.replace("socks5:", "socks5h:"), IN_TIME))
        query.close()
    assert given == ["link 0", "link 0", "link 1"]
    assert failures == []


def test_a_kept_link_that_the_server_ended_is_dialled_anew(
    query: HttpQuery, failures: list[str]
) -> None:
    with SocketServer(answer_once) as server, Microsocks() as proxy:
        through = f"socks5://{proxy.address}/http://127.0.0.1:{server.port}/"
        assert [query(through, IN_TIME), query(through, IN_TIME)] == ["link 0", "link 1"]
        query.close()
    assert failures == []


def test_https_goes_through_the_proxy_and_is_kept(
    query: HttpQuery, certs: Certs, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca))
    with (
        SocketServer(answer_by_number, tls=certs.server_context()) as server,
        Microsocks() as proxy,
    ):
        through = f"socks5://{proxy.address}/https://localhost:{server.port}/"
        assert [query(through, IN_TIME), query(through, IN_TIME)] == ["link 0", "link 0"]
        query.close()
    assert failures == []


def test_https_through_the_proxy_trusts_no_stranger(
    query: HttpQuery, certs: Certs, failures: list[str]
) -> None:
    stranger = certs.stranger.server_context()
    with SocketServer(lambda peer: None, tls=stranger) as server, Microsocks() as proxy:
        assert query(f"socks5://{proxy.address}/https://localhost:{server.port}/", IN_TIME) == ""
    assert "certificate verify failed" in failures[0].lower().replace("_", " ")


@pytest.mark.parametrize(
    "begun",
    [b"\x05\x00\x00\x03\xff", GRANTED + b"\x16\x03\x03\x3f\x00"],
    ids=["in the reply", "in the handshake of TLS"],
)
def test_a_proxy_that_drips_does_not_outlive_the_request(
    query: HttpQuery, failures: list[str], begun: bytes
) -> None:
    """Each single byte comes in time."""
    dripped: queue.Queue[int] = queue.Queue()
    with SocketServer(dripping(begun, dripped)) as proxy:
        url = "https://nowhere.example/"
        assert query(f"socks5://127.0.0.1:{proxy.port}/{url}", {"timeout": 300}) == ""
        assert dripped.get(timeout=10) < 0xFF, "what was begun came to its end"
    assert failures == [f"HttpQuery {url}: no whole answer within 300 ms"]


def test_a_proxy_that_says_nothing_does_not_outlive_the_request(
    query: HttpQuery, failures: list[str]
) -> None:
    with SocketServer(deaf) as proxy:
        url = "http://nowhere.example/"
        assert query(f"socks5://127.0.0.1:{proxy.port}/{url}", {"timeout": 200}) == ""
    assert failures == [f"HttpQuery {url}: no whole answer within 200 ms"]


@pytest.mark.parametrize("login", ["", "me:s3cret@", "other:pw@"])
def test_a_refused_login_is_told_without_it(
    query: HttpQuery, failures: list[str], login: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Microsocks("me", "pw") as proxy:
        assert (
            query(f"socks5://{login}{proxy.address}/http://nowhere.example/?key=s3cret", IN_TIME)
            == ""
        )
    assert failures[0].startswith(
        "HttpQuery http://nowhere.example/: the SOCKS proxy refused the login: "
    )
    assert "s3cret" not in failures[0] + caplog.text


def test_a_target_that_the_proxy_cannot_reach_is_named(
    query: HttpQuery, failures: list[str]
) -> None:
    with unused_port() as port, Microsocks() as proxy:
        assert query(f"socks5://{proxy.address}/http://127.0.0.1:{port}/", IN_TIME) == ""
    why = f"the SOCKS proxy did not connect to 127.0.0.1:{port}: 0x05: Connection refused"
    assert failures == [f"HttpQuery http://127.0.0.1:{port}/: {why}"]


def test_a_proxy_that_is_not_there_is_told(query: HttpQuery, failures: list[str]) -> None:
    with unused_port() as port:
        assert query(f"socks5://me:s3cret@127.0.0.1:{port}/http://nowhere.example/", IN_TIME) == ""
    assert "the SOCKS proxy cannot be reached: " in failures[0]
    assert "refused" in failures[0]
    assert "s3cret" not in failures[0]


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x05"])
def test_a_server_that_does_not_speak_socks_is_told(
    query: HttpQuery, failures: list[str], words: bytes
) -> None:
    def serve(peer: Peer) -> None:
        peer.read_exactly(3)
        peer.send(words)

    with SocketServer(serve) as proxy:
        assert query(f"socks5://127.0.0.1:{proxy.port}/http://nowhere.example/", IN_TIME) == ""
    assert "the SOCKS proxy did not finish its handshake: " in failures[0]


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("nowhere.example", (3, b"nowhere.example")),
        ("127.0.0.9", (1, bytes([127, 0, 0, 9]))),
        ("[::9]", (4, bytes(15) + b"\x09")),
    ],
)
def test_the_proxy_gets_a_name_as_a_name_and_an_address_as_an_address(
    query: HttpQuery, host: str, target: tuple[int, bytes]
) -> None:
    asked: list[tuple[int, bytes]] = []

    def serve(peer: Peer) -> None:
        asked.append(read_target(peer))
        peer.send(GRANTED)
        answer_once(peer)

    with SocketServer(serve) as proxy:
        assert query(f"socks5://127.0.0.1:{proxy.port}/http://{host}/", IN_TIME) == "link 0"
        query.close()
    assert asked == [target]


@pytest.mark.parametrize(("scheme", "host"), [("socks4", "127.0.0.1"), ("socks4a", "localhost")])
def test_socks4_goes_through_with_a_user_name(
    query: HttpQuery, failures: list[str], scheme: str, host: str
) -> None:
    with SocketServer(answer_by_number) as server, Socks4Proxy("me") as proxy:
        url = f"http://localhost:{server.port}/"
        assert query(f"{scheme}://me@127.0.0.1:{proxy.port}/{url}", IN_TIME) == "link 0"
        assert query(f"{scheme}://other@127.0.0.1:{proxy.port}/{url}", IN_TIME) == ""
        query.close()
    assert proxy.asked == [f"{host}:{server.port}"] * 2
    assert failures[0].startswith(f"HttpQuery {url}: the SOCKS proxy did not connect to localhost:")


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks4a://me:s3cret@127.0.0.1:9", "SOCKS4 proxies take a user name and no password"),
        (
            f"socks5://me:{'s3cret' * 22}@127.0.0.1:9",
            "user name and password have 127 bytes at most",
        ),
    ],
)
def test_a_login_that_cannot_be_sent_is_refused(
    query: HttpQuery, failures: list[str], proxy: str, words: str
) -> None:
    assert query(f"{proxy}/http://nowhere.example/", IN_TIME) == ""
    assert words in failures[0]
    assert "s3cret" not in failures[0]


def test_a_login_and_a_name_of_the_greatest_length_arrive_whole(query: HttpQuery) -> None:
    user, password = "u" * LONGEST, "p" * LONGEST
    name = ".".join(["n" * 31] * 4)
    assert len(name) == LONGEST

    def serve(peer: Peer) -> None:
        assert peer.read_exactly(4) == b"\x05\x02\x00\x02"
        peer.send(b"\x05\x02")
        wanted = b"\x01\x7f" + user.encode() + b"\x7f" + password.encode()
        assert peer.read_exactly(len(wanted)) == wanted
        peer.send(b"\x01\x00")
        wanted = b"\x05\x01\x00\x03\x7f" + name.encode() + b"\x00\x50"
        assert peer.read_exactly(len(wanted)) == wanted
        peer.send(GRANTED)
        answer_once(peer)

    with SocketServer(serve) as proxy:
        url = f"socks5://{user}:{password}@127.0.0.1:{proxy.port}/http://{name}/"
        assert query(url, IN_TIME) == "link 0"
        query.close()


def test_a_longer_name_is_refused(query: HttpQuery, failures: list[str]) -> None:
    assert query(f"socks5://127.0.0.1:9/http://{'.'.join(['n' * 32] * 4)}/", IN_TIME) == ""
    assert "a host's name has 127 bytes at most" in failures[0]


def test_the_proxy_of_the_environment_may_be_a_socks_proxy(
    query: HttpQuery, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with SocketServer(answer_by_number) as server, Microsocks() as proxy:
        monkeypatch.setenv("http_proxy", f"socks5://{proxy.address}")
        assert query(f"http://localhost:{server.port}/", IN_TIME) == "link 0"
        query.close()
    monkeypatch.setenv("http_proxy", "socks6://me:s3cret@127.0.0.1:9")
    assert query("http://nowhere.example/") == ""
    assert "the proxy must look like" in failures[0]
    assert "s3cret" not in failures[0]


def test_without_pysocks_it_says_what_to_install(
    query: HttpQuery, failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "trunkline.strategy.sockslinks")
    monkeypatch.setitem(sys.modules, "socks", None)
    assert query("socks5://127.0.0.1:9/http://nowhere.example/") == ""
    why = "a socks5:// proxy needs the package PySocks: pip install 'trunkline[strategy]'"
    assert failures == [f"HttpQuery http://nowhere.example/: {why}"]


def test_the_network_obeys_what_httpcore_may_ask_for() -> None:
    with SocketServer(answer_by_number) as server, Microsocks() as proxy:
        network = SocksNetwork("socks5", "127.0.0.1", proxy.port, None)
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        link = network.connect_tcp("127.0.0.1", server.port, 10, "127.0.0.2", options)
        with contextlib.closing(link):
            sock = link.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert link.get_extra_info("client_addr")[0] == "127.0.0.2"
            assert link.get_extra_info("server_addr") == ("127.0.0.1", proxy.port)
            assert link.get_extra_info("ssl_object") is None
            assert not link.get_extra_info("is_readable")
            with pytest.raises(httpcore.ReadTimeout):
                link.read(1, 0.01)
            link.write(b"\r\n\r\n", 10)
            got = b""
            while not got.endswith(b"link 0"):
                got += link.read(100, 10)
        assert link.get_extra_info("is_readable")
        with pytest.raises(httpcore.WriteError):
            link.write(b"x", 10)
