"""The links of HttpQuery: kept, bounded, not shared with a forked child, and without secrets in logs."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import queue
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.certs import Certs
from tests.support.http_proxy import HttpProxy
from tests.support.sockets import Peer, SocketServer
from trunkline.strategy import httplinks
from trunkline.strategy.httpquery import HttpQuery

Answers = Callable[[Peer, bytes], bytes | None]


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def query(failures: list[str]) -> Iterator[HttpQuery]:
    with contextlib.closing(HttpQuery(failures.append)) as made:
        yield made


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


def web(
    make: Answers, ended: queue.Queue[int] | None = None, tls: ssl.SSLContext | None = None
) -> SocketServer:
    """A server that keeps its links. `make` gets the head of a request and returns the answer, None to end.
    `ended` gets the number of each link that the client has ended."""

    def serve(peer: Peer) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                head = peer.read_until(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        peer.read_exactly(int(line.partition(b":")[2]))
                made = make(peer, head)
                if made is None:
                    return
                peer.send(made)
        if ended is not None:
            ended.put(peer.number)

    return SocketServer(serve, tls=tls)


def address(server: SocketServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def target(head: bytes) -> bytes:
    return head.split()[1]


def number_of_link(peer: Peer, head: bytes) -> bytes:
    return answer(b"link %d" % peer.number)


def test_a_link_is_kept_for_the_next_request_of_any_method(query: HttpQuery) -> None:
    with web(number_of_link) as server:
        first = [
            query(address(server)),
            query(address(server), {"body": "a=1"}),
            query(address(server)),
        ]
        query.close()
        again = query(address(server))
        query.close()
    assert first == ["link 0"] * 3
    assert again == "link 1"


def test_a_query_that_is_collected_closes_its_links(failures: list[str]) -> None:
    ended: queue.Queue[int] = queue.Queue()
    with web(number_of_link, ended) as server:
        query = HttpQuery(failures.append)
        assert query(address(server)) == "link 0"
        del query
        assert ended.get(timeout=10) == 0


def test_a_kept_link_that_breaks_repeats_only_what_changes_nothing(
    query: HttpQuery, failures: list[str]
) -> None:
    def once(peer: Peer, head: bytes) -> bytes | None:
        return number_of_link(peer, head) if peer.received.count(b"HTTP/1.1") == 1 else None

    with web(once) as server:
        assert query(address(server)) == "link 0"
        assert query(address(server)) == "link 1"
        assert query(address(server), {"method": "POST"}) == ""
        assert len(failures) == 1
        assert query(address(server), {"method": "POST"}) == "link 2"
        assert len(server.peers) == 3
        query.close()


def test_a_new_link_that_breaks_is_not_tried_again(query: HttpQuery, failures: list[str]) -> None:
    with web(lambda peer, head: None) as server:
        assert query(address(server)) == ""
        assert len(server.peers) == 1
    assert len(failures) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_links_of_its_own() -> None:
    code = """
import os, sys
from trunkline.strategy.httpquery import HttpQuery
query = HttpQuery(print)
print(query(sys.argv[1]), flush=True)
pid = os.fork()
print(query(sys.argv[1]), flush=True)
if pid:
    os.waitpid(pid, 0)
    print(query(sys.argv[1]), flush=True)
else:
    query.close()
"""
    with web(number_of_link) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, address(server)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["link 0", "link 0", "link 0", "link 1"]


def test_the_address_arrives_byte_for_byte(query: HttpQuery) -> None:
    with web(lambda peer, head: answer(target(head))) as server:
        for sent in ("/a'(b)[c]?d=[1]&e='f'&g=%7e~|", "/x/../y//z", "/?q=a+b%20c", "/{a}?b={c}^`"):
            assert query(address(server) + sent) == sent
        assert query(address(server) + "?x=1#y") == "/?x=1"
        query.close()


def test_redirects_are_followed_with_the_cookie_and_the_login_stays_at_home(
    query: HttpQuery,
) -> None:
    with web(lambda peer, head: answer(head)) as other:

        def move(peer: Peer, head: bytes) -> bytes:
            if target(head) == b"/here":
                return answer(head)
            place = {b"/away": address(other).encode(), b"/near": b"here", b"/loop": b"/loop"}[
                target(head)
            ]
            return answer(b"moved", b"Location: " + place, status=b"302 Found")

        with web(move) as server:
            near = str(
                query(
                    address(server) + "/near", {"cookie": "c=1", "body": "x", "headers": {"K": "v"}}
                )
            )
            url = address(server).replace("//", "//me:pw@") + "/away"
            away = str(query(url, {"cookie": "c=1"}))
            loop = query(address(server) + "/loop", {"debug": True})
            query.close()
    assert near.startswith("GET /here")
    assert "Cookie: c=1" in near
    assert "K: v" in near
    assert "authorization" not in away.lower()
    assert not isinstance(loop, str)
    assert (loop.StatusCode, loop.Body) == (302, "moved")


@pytest.mark.parametrize(
    ("status", "method"), [("307 Temporary Redirect", "POST"), ("302 Found", "PUT")]
)
def test_a_body_is_never_sent_to_another_address(
    query: HttpQuery, status: str, method: str
) -> None:
    def move(peer: Peer, head: bytes) -> bytes:
        return answer(b"moved", b"Location: /other", status=status.encode())

    with web(move) as server:
        assert query(address(server) + "/order", {"method": method, "body": "buy"}) == "moved"
        assert server.peers[0].received.count(b"HTTP/1.1") == 1
        query.close()


def test_cookies_of_an_answer_are_told_and_not_sent_back(query: HttpQuery) -> None:
    with web(lambda peer, head: answer(head, b"Set-Cookie: a=1; Path=/")) as server:
        first = query(address(server), {"debug": True})
        assert not isinstance(first, str)
        assert first.Cookies == first.Header["Set-Cookie"] == ["a=1; Path=/"]
        assert "cookie" not in str(query(address(server))).lower()
        query.close()


def test_a_packed_answer_is_unpacked_and_a_charset_is_obeyed(
    query: HttpQuery, failures: list[str]
) -> None:
    packed = gzip.compress("中".encode("gbk"))
    headers = [b"Content-Encoding: gzip", b"Content-Type: text/plain; charset=GBK"]
    with web(lambda peer, head: answer(packed, *headers)) as server:
        assert query(address(server)) == "中"
        assert query(address(server), {"charset": "latin-1"}) == "ÖÐ"
        assert query(address(server), {"charset": "rot13"}) == ""
        query.close()
    assert "the charset must be" in failures[0]


def test_a_charset_that_nobody_knows_is_read_as_utf_8(query: HttpQuery) -> None:
    with web(
        lambda peer, head: answer("é".encode(), b"Content-Type: text/plain; charset=bogus")
    ) as server:
        assert query(address(server)) == "é"
        query.close()


def test_the_proxy_of_the_environment_is_used_but_for_its_exceptions(
    query: HttpQuery, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with web(lambda peer, head: answer(head)) as server:
        place = f"127.0.0.1:{server.port}"
        monkeypatch.setenv("http_proxy", f"http://me:p%40w@{place}")
        asked = str(query("http://nowhere.example/x?y='1'"))
        monkeypatch.setenv("http_proxy", place)
        plain = str(query("http://nowhere.example/x"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        direct = str(query(address(server) + "/x"))
        query.close()
    assert asked.startswith("GET http://nowhere.example/x?y='1' HTTP/1.1")
    assert "Proxy-Authorization: Basic bWU6cEB3" in asked
    assert plain.startswith("GET http://nowhere.example/x HTTP/1.1")
    assert direct.startswith("GET /x HTTP/1.1")
    monkeypatch.setenv("http_proxy", "quic://me:s3cret@p")
    assert query("http://nowhere.example/") == ""
    assert "the proxy must look like" in failures[0]
    assert "s3cret" not in failures[0]


def test_https_goes_directly_and_through_a_proxy(
    query: HttpQuery, certs: Certs, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca))
    with (
        web(number_of_link, tls=certs.server_context()) as server,
        HttpProxy("me", "pw") as proxy,
    ):
        url = f"https://localhost:{server.port}/"
        assert [query(url), query(url)] == ["link 0", "link 0"]
        assert query(f"http://me:pw@127.0.0.1:{proxy.port}/{url}") == "link 1"
        assert query(f"http://me:s3cret@127.0.0.1:{proxy.port}/{url}") == ""
        query.close()
    assert proxy.asked == [f"localhost:{server.port}"] * 2
    assert failures == [f"HttpQuery {url}: 407 Proxy Authentication Required"]


def test_https_trusts_no_stranger(query: HttpQuery, certs: Certs, failures: list[str]) -> None:
    with SocketServer(lambda peer: None, tls=certs.stranger.server_context()) as server:
        assert query(f"https://localhost:{server.port}/?key=s3cret") == ""
    assert "certificate verify failed" in failures[0].lower().replace("_", " ")
    assert "s3cret" not in failures[0]


def test_only_the_links_of_a_few_proxies_are_kept(query: HttpQuery) -> None:
    count = httplinks.MOST_PROXIES + 3
    ended: queue.Queue[int] = queue.Queue()
    with web(number_of_link, ended) as server:
        for number in range(count):
            proxy = f"http://user{number}:pw@127.0.0.1:{server.port}"
            assert query(f"{proxy}/http://nowhere.example/") == f"link {number}"
        assert {ended.get(timeout=10), ended.get(timeout=10)} == {0, 1}
        assert query(f"{proxy}/http://nowhere.example/") == f"link {count - 1}"
        query.close()


def test_no_log_of_the_libraries_tells_a_key(
    query: HttpQuery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with web(lambda peer, head: answer(b"", b"Set-Cookie: session=s3cret")) as server:
        url = f"http://me:s3cret@127.0.0.1:{server.port}/x?key=s3cret"
        query(url, {"headers": {"X-Key": "s3cret"}, "debug": True})
        query(f"http://me:s3cret@127.0.0.1:{server.port}/{url}")
        query.close()
    assert "s3cret" not in caplog.text


def test_a_header_that_http_refuses_is_not_quoted(query: HttpQuery, failures: list[str]) -> None:
    with web(number_of_link) as server:
        assert query(address(server), {"headers": {"X Key": "s3cret"}}) == ""
    assert "cannot be sent as it is given" in failures[0]
    assert "s3cret" not in failures[0]


@pytest.mark.parametrize("hidden", ["httpx", "httpcore"])
def test_without_its_extra_it_says_what_to_install(
    query: HttpQuery, failures: list[str], hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "trunkline.strategy.httplinks")
    monkeypatch.delattr("trunkline.strategy.httplinks")
    monkeypatch.setitem(sys.modules, hidden, None)
    assert query("http://127.0.0.1:9/x?key=s3cret") == ""
    assert failures == [
        f"HttpQuery http://127.0.0.1:9/x: it needs the package {hidden}: pip install 'trunkline[strategy]'"
    ]
