"""`HttpQuery`: one HTTP request with the standard library, an empty string when it fails."""

from __future__ import annotations

import base64
import contextlib
import http.client
import math
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from trunkline.address.header_text import header_text
from trunkline.strategy.record import Record

__all__ = ["HttpQuery"]

TIMEOUT_MS = 30_000
_PROXIED = re.compile(r"(socks5h?|http)://([^/]+)/(https?://.*)", re.DOTALL | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class _RefusedError(ValueError):
    """The request cannot be sent as it is given; the words hold nothing of it that may be secret."""


class HttpQuery:
    """The global of that name. `failed` gets the reason when a request fails."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed

    def __call__(self, url: str, options: dict[str, Any] | str | None = None, *old: Any) -> str | Record:
        """The body as text, whatever the status code; "" when there was no answer.

        Options: `method`, `body` (text, bytes, or a dict, which is sent as a form), `headers` (a dict),
        `cookie`, `charset`, `timeout` (milliseconds) and `debug`: with it the result is a dict
        `{StatusCode, Header, Cookies, Body, Error}`. `profile` is accepted and means nothing here. An address
        may be preceded by a proxy: `socks5://name:pwd@host:port/https://...`. The older form
        `HttpQuery(url, body, cookie, headers, debug)` is understood too.
        """
        given = options if isinstance(options, dict) else _old_form(options, old)
        answer = Record(StatusCode=0, Header={}, Cookies=[], Body="", Error="")
        try:
            self._ask(url, given, answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer.Error = f"HttpQuery {_shown(url)}: {_why(error)}"
            self._failed(answer.Error)
        return answer if given.get("debug") else str(answer.Body)

    def _ask(self, url: str, options: dict[str, Any], answer: Record) -> None:
        if not isinstance(url, str):
            raise _RefusedError(f"the address must be text, not {type(url).__name__}")
        seconds = _timeout_s(options.get("timeout"))
        with _Limit(seconds) as limit:
            target, opener = _route(url, limit)
            request = _request(target, options)
            try:
                response = opener.open(request, timeout=seconds)
            except urllib.error.HTTPError as error:
                response = error  # an answer all the same: exchanges explain themselves in its body
            with response:
                body = response.read()
            limit.check()  # the body of an answer without a length ends with its link
        answer.StatusCode = response.status
        answer.Header = _headers(response.headers)
        answer.Cookies = response.headers.get_all("Set-Cookie") or []
        charset = options.get("charset") or response.headers.get_content_charset() or "utf-8"
        answer.Body = body.decode(charset, "replace")


class _Limit:
    """Breaks the links of a request when its time is over: the timeout of a socket begins anew with every
    byte that a slow server sends."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = False
        self._links: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Limit:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        with self._lock:
            over, links = self._over, self._links
            self._links = []
        for link in links:
            link.close()
        if over and isinstance(error, (OSError, ValueError, http.client.HTTPException)):
            raise TimeoutError(self._late()) from None

    def check(self) -> None:
        if self._over:
            raise TimeoutError(self._late())

    def connect(self, create: Callable[..., socket.socket], *args: Any, **named: Any) -> socket.socket:
        """A link that is broken when the time is over. TLS takes the socket over, so a copy is kept."""
        made = create(*args, **named)
        with self._lock:
            self._links.append(made.dup())
            over = self._over
        if over:
            self._end()
        return made

    def _end(self) -> None:
        with self._lock:
            self._over = True
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _late(self) -> str:
        return f"no whole answer within {self._seconds * 1000:g} ms"


def _old_form(body: str | None, rest: tuple[Any, ...]) -> dict[str, Any]:
    names = ("cookie", "headers", "debug")
    return {"body": body, **dict(zip(names, rest, strict=False))}


def _request(url: str, options: dict[str, Any]) -> urllib.request.Request:
    target, login = _target(url)
    body = options.get("body")
    if isinstance(body, dict):
        body = urlencode(body)
    data = body.encode() if isinstance(body, str) else body
    if data is not None and not isinstance(data, (bytes, bytearray)):
        raise _RefusedError(f"the body must be text, bytes or a dict, not {type(body).__name__}")
    method = str(options.get("method") or ("POST" if data else "GET")).upper()
    if not method.isalpha():
        raise _RefusedError("the method must be one word, such as POST")
    request = urllib.request.Request(target, data or None, method=method)
    if login is not None:
        request.add_unredirected_header("Authorization", login)
    if options.get("cookie"):
        request.add_header("Cookie", _header("Cookie", options["cookie"]))
    for name, value in _header_items(options.get("headers")):
        request.add_header(name, value)
    return request


def _target(url: str) -> tuple[str, str | None]:
    """The address as it goes over the wire, and the header that its `name:password@` stands for."""
    url = url.strip()
    if _CONTROL.search(url):
        raise _RefusedError("the address holds a control character")
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise _RefusedError("the address must begin with http:// or https://")
    given, _, place = parts.netloc.rpartition("@")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _RefusedError("the port is no number from 0 to 65535") from None
    if not host or " " in host:
        raise _RefusedError("the address names no host")
    if not host.isascii():
        name = host.encode("idna").decode()
        place = name if port is None else f"{name}:{port}"
    rest = parts._replace(scheme="", netloc="", fragment="").geturl()
    login = base64.b64encode(unquote(given).encode()).decode() if given else None
    sent = f"{parts.scheme}://{place}{quote(rest, safe=_PRINTABLE)}"  # % stays: what is encoded is encoded
    return sent, None if login is None else f"Basic {login}"


def _timeout_s(given: Any) -> float:
    try:
        seconds = float(given or TIMEOUT_MS) / 1000
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise _RefusedError("the timeout must be a number of milliseconds above 0")
    return seconds


def _header_items(headers: Any) -> list[tuple[str, str]]:
    if isinstance(headers, str):
        pairs = (line.partition(":") for line in headers.splitlines())
        return [(name.strip(), value.strip()) for name, mark, value in pairs if mark]
    if headers is not None and not isinstance(headers, dict):
        raise _RefusedError(f"the headers must be a dict or text, not {type(headers).__name__}")
    return [(str(name), _header(str(name), value)) for name, value in (headers or {}).items()]


def _header(name: str, value: Any) -> str:
    """A header's value, which is often a key: what is wrong with it is said without quoting it."""
    try:
        text = header_text(name, value)
    except ValueError as error:
        raise _RefusedError(str(error)) from None
    if _CONTROL.search(text.replace("\t", " ")):
        raise _RefusedError(f"the header {name} holds a line end or another control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise _RefusedError(f"the header {name} holds characters that HTTP cannot send") from None
    return text


def _why(error: Exception) -> str:
    """In words that quote nothing of the request: addresses and headers hold keys."""
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, (ValueError, http.client.InvalidURL)):
        return f"the request cannot be sent as it is given ({type(error).__name__})"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _route(url: str, limit: _Limit) -> tuple[str, urllib.request.OpenerDirector]:
    """The target and what opens it: directly, or through the proxy written before it."""
    found = _PROXIED.fullmatch(url)
    create: Callable[..., socket.socket] = socket.create_connection
    proxy: list[urllib.request.BaseHandler] = []
    if found and found[1].lower() == "http":
        proxy = [urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), f"http://{found[2]}"))]
    elif found:
        proxy = [urllib.request.ProxyHandler({})]
        create = partial(_connect, found[2])
    limited = partial(limit.connect, create)
    opener = urllib.request.build_opener(*proxy, _Http(limited), _Https(limited))
    return found[3] if found else url, opener


class _Http(urllib.request.HTTPHandler):
    def __init__(self, create: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._create = create

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_over, http.client.HTTPConnection, self._create), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, create: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._create = create

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_over, http.client.HTTPSConnection, self._create), req)


def _over(
    kind: type[http.client.HTTPConnection], create: Callable[..., socket.socket], host: str, **options: Any
) -> Any:
    """An HTTP connection over the socket that `create` makes; a SOCKS proxy resolves the name itself."""
    connection = kind(host, **options)
    connection._create_connection = create  # type: ignore[attr-defined]
    return connection


def _connect(place: str, target: tuple[str, int], timeout: Any = None, source: Any = None) -> socket.socket:
    try:
        import socks
    except ModuleNotFoundError:
        raise OSError("a socks5:// proxy needs PySocks: pip install 'trunkline[socks]'") from None

    proxy = urlsplit(f"//{place}")
    seconds = timeout if isinstance(timeout, (int, float)) else None
    made: socket.socket = socks.create_connection(
        target, timeout=seconds, source_address=source, proxy_type=socks.SOCKS5, proxy_rdns=True,
        proxy_addr=proxy.hostname, proxy_port=proxy.port or 1080,
        proxy_username=proxy.username, proxy_password=proxy.password,
    )  # fmt: skip
    return made


def _headers(message: Message) -> dict[str, list[str]]:
    return {name: [str(value) for value in message.get_all(name, [])] for name in message}


def _shown(url: str) -> str:
    """The address without the password, and without the query, which often holds a key."""
    text = str(url)
    found = _PROXIED.fullmatch(text)
    place = re.split(r"[?#]", found[3] if found else text, maxsplit=1)[0]
    return _CONTROL.sub("", re.sub(r"[^/]*@", "", place))
