"""The HTTP links of `HttpQuery`, by httpx: kept for the next request, each request with one deadline.

httpx bounds each single read and write. A server that sends a byte now and then would hold a strategy for as
long as it liked, so the links here read and write with the time that is left of their request.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import logging
import os
import ssl
import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from trunkline.deadline import Deadline

__all__ = ["FAILURES", "TIMEOUTS", "UNSENDABLE", "Answer", "Links", "ProxyRefused", "Question"]

KEPT_S = 30.0
"""How long a link without a request is kept. Servers and routers drop silent links, mostly after a minute."""
MOST_PROXIES = 8
"""Proxies whose links are kept; a strategy may go through hundreds, one after the other."""
MOST_REDIRECTS = 10
_PROXY_PORTS = {
    "http": 80,
    "https": 443,
    "socks5": 1080,
    "socks5h": 1080,
    "socks4": 1080,
    "socks4a": 1080,
}
_REDIRECTS = (301, 302, 303, 307, 308)
_REPEATABLE = ("GET", "HEAD")

TIMEOUTS = (httpcore.TimeoutException,)
"""The errors of a request that took too long."""
UNSENDABLE = (httpcore.LocalProtocolError, httpx.InvalidURL)
"""The errors of a request that breaks the protocol. Their texts may quote a header, which may be a key."""
FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    httpx.HTTPError,
)
"""The errors of a request that got no answer."""


class ProxyRefused(ValueError):
    """The proxy cannot be used; the text quotes nothing of its address."""


class Question(NamedTuple):
    """A request, ready to be sent."""

    method: str
    origin: str
    """Scheme, host and port: `https://host:443`."""
    target: str
    """Path and query, percent-encoded, sent byte for byte: they may be signed."""
    headers: list[tuple[bytes, bytes]]
    body: bytes | None


class Answer(NamedTuple):
    """An answer with its whole body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    """In the server's order and spelling."""
    charset: str | None
    """From the header Content-Type."""
    body: bytes


class _Turn(threading.local):
    """The request that the current thread is busy with."""

    deadline: Deadline | None = None
    dialled = False
    """The request did not get a link that was kept, or not only."""


_turn = _Turn()


class Links:
    """The links of one process; a forked process needs an object of its own. Several threads may use one."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._context = ssl.create_default_context()
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        _hide_requests_from_logs()

    def ask(self, question: Question, proxy: str | None, seconds: float) -> Answer:
        """Send a request and return the whole answer, whatever its status, behind up to ten redirects.

        `proxy` is the address of a proxy; None stands for the one that the environment names, if any. Raises
        one of FAILURES, or ProxyRefused. When no answer is there within `seconds`, that is one of TIMEOUTS.
        """
        _turn.deadline = Deadline(seconds)
        try:
            if proxy is None:
                proxy = _proxy_of_environment(question.origin)
            with self._lend_client(proxy) as client:
                return _follow_redirects(client, question)
        finally:
            _turn.deadline = None

    def close(self) -> None:
        """Close the links that no request uses now; in a forked process nothing is closed."""
        if self.process != os.getpid():
            return  # the parent goes on using them, and the lock may be held by a thread that is not here
        with self._lock:
            for client in self._clients.values():
                client.retired = True
            idle = [client for client in self._clients.values() if not client.users]
            self._clients.clear()
        for client in idle:
            client.http.close()

    @contextlib.contextmanager
    def _lend_client(self, proxy: str) -> Iterator[httpx.Client]:
        with self._lock:
            lent = self._clients.get(proxy)
            if lent is None:
                lent = self._clients[proxy] = _Client(_make_client(proxy, self._context))
            self._clients.move_to_end(proxy)
            lent.users += 1
            surplus = self._retire_oldest()
        try:
            if surplus is not None:
                surplus.http.close()
            yield lent.http
        finally:
            with self._lock:
                lent.users -= 1
                is_done = lent.retired and not lent.users
            if is_done:
                lent.http.close()

    def _retire_oldest(self) -> _Client | None:
        """Take the client that was used least recently out of a list that is full. Return it where no request
        uses it, so that the caller closes it."""
        if len(self._clients) <= MOST_PROXIES + 1:  # one goes without a proxy
            return None
        _, oldest = self._clients.popitem(last=False)
        oldest.retired = True
        return None if oldest.users else oldest


@dataclass(eq=False)
class _Client:
    """A client of httpx and the number of requests that use it now."""

    http: httpx.Client
    users: int = 0
    retired: bool = False
    """The last request that uses the client closes it."""


def _make_client(proxy: str, context: ssl.SSLContext) -> httpx.Client:
    """A client that sends no cookie of its own and reads no file and no environment."""
    refuse_all = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
    return httpx.Client(
        transport=_Transport(_make_pool(proxy, context)),
        cookies=http.cookiejar.CookieJar(refuse_all),
        trust_env=False,
    )


def _make_pool(proxy: str, context: ssl.SSLContext) -> httpcore.ConnectionPool:
    options: dict[str, Any] = {
        "ssl_context": context,
        "max_connections": None,
        "max_keepalive_connections": 20,
        "keepalive_expiry": KEPT_S,
    }
    direct = _Network(httpcore.SyncBackend())
    if not proxy:
        return httpcore.ConnectionPool(network_backend=direct, **options)
    url, login = _parse_proxy(proxy)
    if url.scheme.startswith(b"socks"):
        return httpcore.ConnectionPool(
            network_backend=_Network(_make_socks_network(url, login)), **options
        )
    if url.scheme == b"https":
        options["proxy_ssl_context"] = context
    return httpcore.HTTPProxy(url, login, network_backend=direct, **options)


def _make_socks_network(
    url: httpcore.URL, login: tuple[bytes, bytes] | None
) -> httpcore.NetworkBackend:
    scheme = url.scheme.decode()
    try:
        from trunkline.strategy.sockslinks import SocksNetwork
    except ModuleNotFoundError:
        hint = "pip install 'trunkline[strategy]'"
        raise ProxyRefused(f"a {scheme}:// proxy needs the package PySocks: {hint}") from None
    words = None if login is None else (login[0].decode(), login[1].decode())
    try:
        return SocksNetwork(scheme, url.host.decode(), url.port or _PROXY_PORTS[scheme], words)
    except ValueError as error:
        raise ProxyRefused(str(error)) from None


def _parse_proxy(proxy: str) -> tuple[httpcore.URL, tuple[bytes, bytes] | None]:
    """The proxy's address without its login, and the login."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or _PROXY_PORTS.get(parts.scheme)
    except ValueError:
        raise ProxyRefused("the proxy's port is no number from 0 to 65535") from None
    if port is None or parts.scheme not in _PROXY_PORTS or not parts.hostname:
        raise ProxyRefused("the proxy must look like http://host:port, https://... or socks5://...")
    url = httpcore.URL(scheme=parts.scheme, host=parts.hostname, port=port, target="/")
    if parts.username is None:
        return url, None
    return url, (unquote(parts.username).encode(), unquote(parts.password or "").encode())


def _proxy_of_environment(origin: str) -> str:
    """The proxy that http_proxy, https_proxy and no_proxy name for a server; "" for none."""
    parts = urlsplit(origin)
    found = urllib.request.getproxies().get(parts.scheme.lower(), "")
    return "" if found and urllib.request.proxy_bypass(parts.netloc) else found


def _follow_redirects(client: httpx.Client, question: Question) -> Answer:
    """The answer of the last address; a body is never sent a second time."""
    request = client.build_request(
        question.method,
        question.origin + question.target,
        headers=question.headers,
        content=question.body,
        extensions={
            "target": question.target.encode()
        },  # httpx would spell some letters in its own way
    )
    for _ in range(MOST_REDIRECTS):
        response = _send_request(client, request)
        following = response.next_request
        if following is None or not _is_followed(request.method, response.status_code):
            break
        following.extensions.pop("target", None)
        if "Cookie" in request.headers and _is_as_safe(request.url, following.url):
            following.headers["Cookie"] = request.headers["Cookie"]
        request = following
    return Answer(
        response.status_code, response.headers.raw, response.charset_encoding, response.content
    )


def _is_as_safe(first: httpx.URL, second: httpx.URL) -> bool:
    """Whether a cookie for the first address may go to the second."""
    return first.host == second.host and second.scheme in (first.scheme, "https")


def _is_followed(method: str, status: int) -> bool:
    return method in _REPEATABLE or (method == "POST" and status in (301, 302, 303))


def _send_request(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """One answer with its body. A server may close a kept link at any time: a request that changes nothing
    is then sent again, until a new link was dialled for it."""
    while True:
        _turn.dialled = False
        try:
            return client.send(request)
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
            if _turn.dialled or request.method not in _REPEATABLE:
                raise


class _Transport(httpx.BaseTransport):
    """A pool of httpcore as httpx takes it; httpx's own offers no place for a network."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.extensions.get("target", request.url.raw_path),
        )
        asked = httpcore.Request(
            request.method, url, headers=request.headers.raw, content=request.stream
        )
        answer = self._pool.handle_request(asked)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer as httpx takes it."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Network(httpcore.NetworkBackend):
    """Dials by another network, within the time of the current thread's request."""

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        _turn.dialled = True
        return _Link(
            self._network.connect_tcp(host, port, _time_left(), local_address, socket_options)
        )


class _Link(httpcore.NetworkStream):
    """A link that obeys the deadline of the request that uses it now, and no other limit."""

    def __init__(self, link: httpcore.NetworkStream) -> None:
        self._link = link

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._link.read(max_bytes, _time_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            self._link.write(buffer[start : start + _PIECE], _time_left())

    def close(self) -> None:
        self._link.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            return _Link(self._link.start_tls(ssl_context, server_hostname, _time_left()))
        except BaseException:
            self.close()  # the pool forgets a link that did not come up
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._link.get_extra_info(info)


_PIECE = 1 << 14
"""Bytes written before the deadline is looked at again."""


def _time_left() -> float | None:
    """Seconds until the deadline of this thread's request; None outside of one (a client is closed)."""
    if _turn.deadline is None:
        return None
    left = _turn.deadline.left()
    if left == 0:
        raise httpcore.ReadTimeout("the deadline of the request is over")
    return left


def _hide_requests_from_logs() -> None:
    """Keep addresses and logins out of the libraries' logs: httpx logs each address, which may hold a key."""
    for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "socks"):
        logger = logging.getLogger(name)
        if _is_of_others not in logger.filters:
            logger.addFilter(_is_of_others)


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a log record belongs to the script's own use of the libraries, and not to `HttpQuery`."""
    return _turn.deadline is None
