"""`HttpQuery`: an HTTP request by httpx (the extra `strategy`); an empty string when the request
fails."""

from __future__ import annotations

import base64
import math
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from trunkline.address.header_text import header_text
from trunkline.strategy.record import Record

if TYPE_CHECKING:
    from trunkline.strategy.httplinks import Links, Question

__all__ = ["HttpQuery"]

TIMEOUT_MS = 30_000
_PROXIED = re.compile(
    r"(socks5h?|socks4a?|http)://([^/]+)/(https?://.*)", re.DOTALL | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_FORM = "application/x-www-form-urlencoded"


class _RefusedError(ValueError):
    """The request cannot be sent as given. The text quotes no part that may be secret."""


class HttpQuery:
    """The global `HttpQuery`. `failed` gets the reason when a request fails.

    Links are kept for the next request to the same server. Several threads may call at once.
    """

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._links: Links | None = None
        self._lock = threading.Lock()

    def __call__(
        self, url: str, options: dict[str, Any] | str | None = None, *old: Any
    ) -> str | Record:
        """Return the body as text, whatever the status code; "" when no answer came.

        Options:
        `method`: the HTTP method; POST with a body, else GET.
        `body`: text, bytes, or a dict, which is sent as a form.
        `headers`: a dict or lines of text.
        `cookie`, `charset`: text.
        `timeout`: milliseconds.
        `debug`: return a dict `{StatusCode, Header, Cookies, Body, Error}` instead of the body.
        `profile`: accepted and ignored.

        A proxy may stand before the address: `socks5://name:pwd@host:port/https://...`.
        The older form `HttpQuery(url, body, cookie, headers, debug)` works too.
        """
        given = options if isinstance(options, dict) else _read_old_form(options, old)
        answer = Record(StatusCode=0, Header={}, Cookies=[], Body="", Error="")
        why = self._fill_answer(url, given, answer)
        if why is not None:
            answer.Error = f"HttpQuery {_without_secrets(url)}: {why}"
            self._failed(answer.Error)
        return answer if given.get("debug") else str(answer.Body)

    def close(self) -> None:
        """Close the kept links. The next request dials anew."""
        with self._lock:
            links, self._links = self._links, None
        if links is not None:
            links.close()

    def _fill_answer(self, url: str, options: dict[str, Any], answer: Record) -> str | None:
        """Fill in the answer and return None; without an answer, return the reason.

        The reason quotes no part of the request that may be secret.
        """
        try:
            from trunkline.strategy.httplinks import FAILURES, TIMEOUTS, UNSENDABLE, ProxyRefused
        except ModuleNotFoundError as error:
            return f"it needs the package {error.name}: pip install 'trunkline[strategy]'"
        try:
            if not isinstance(url, str):
                raise _RefusedError(f"the address must be text, not {type(url).__name__}")
            seconds = _read_timeout(options.get("timeout"))
            charset = _read_charset(options.get("charset"))
            proxy, target = _split_proxy(url)
            question = _make_question(target, options)
            got = self._links_of_process().ask(question, proxy, seconds)
        except (_RefusedError, ProxyRefused) as error:
            return str(error)
        except TIMEOUTS:
            return f"no whole answer within {seconds * 1000:g} ms"
        except (ValueError, *UNSENDABLE) as error:
            return f"the request cannot be sent as it is given ({type(error).__name__})"
        except (OSError, *FAILURES) as error:
            return str(error) or type(error).__name__
        answer.StatusCode = got.status
        answer.Header = _group_headers(got.headers)
        answer.Cookies = [
            text for name, text in _decode_headers(got.headers) if name.lower() == "set-cookie"
        ]
        answer.Body = got.body.decode(charset or _known_charset(got.charset) or "utf-8", "replace")
        return None

    def _links_of_process(self) -> Links:
        """The links of this process. A forked child must not use its parent's links."""
        from trunkline.strategy.httplinks import Links

        with self._lock:
            if self._links is None or self._links.process != os.getpid():
                self._links = Links()
                weakref.finalize(self, self._links.close)
            return self._links


def _read_old_form(body: str | None, rest: tuple[Any, ...]) -> dict[str, Any]:
    """The options of the older form `HttpQuery(url, body, cookie, headers, debug)`."""
    names = ("cookie", "headers", "debug")
    return {"body": body, **dict(zip(names, rest, strict=False))}


def _split_proxy(url: str) -> tuple[str | None, str]:
    """The proxy that stands before the address (None: no proxy), and the address."""
    found = _PROXIED.fullmatch(url)
    if found is None:
        return None, url
    return f"{found[1].lower()}://{found[2]}", found[3]


def _make_question(url: str, options: dict[str, Any]) -> Question:
    """The request as `Links` takes it; raises `_RefusedError`."""
    from trunkline.strategy.httplinks import Question

    origin, target, login = _split_address(url)
    body = _read_body(options.get("body"))
    method = str(options.get("method") or ("POST" if body else "GET")).upper()
    if not (method.isascii() and method.isalpha()):
        raise _RefusedError("the method must be one word, such as POST")
    headers = {}
    if body:
        headers["content-type"] = ("Content-Type", _FORM)
    if options.get("cookie"):
        headers["cookie"] = ("Cookie", _check_header("Cookie", options["cookie"]))
    for name, value in _header_items(options.get("headers")):
        # A name has a single value, whatever its spelling.
        headers[name.lower()] = (name, value)
    if login is not None:
        headers["authorization"] = ("Authorization", login)
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.values()]
    return Question(method, origin, target, encoded, body)


def _read_body(given: Any) -> bytes | None:
    """The body as bytes, None for an empty body; a dict becomes a form."""
    body = urlencode(given) if isinstance(given, dict) else given
    if isinstance(body, str):
        return body.encode() or None
    if body is not None and not isinstance(body, (bytes, bytearray)):
        raise _RefusedError(f"the body must be text, bytes or a dict, not {type(given).__name__}")
    return bytes(body) if body else None


def _split_address(url: str) -> tuple[str, str, str | None]:
    """Split an address into origin, target and login.

    Returns the scheme and host; the path and query as sent; and the value of the header
    Authorization for `name:password@` (None: no login).
    """
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
    # `%` stays: the address may be percent-encoded already.
    target = quote(rest, safe=_PRINTABLE)
    if not target.startswith("/"):
        target = f"/{target}"
    login = base64.b64encode(unquote(given).encode()).decode() if given else None
    return f"{parts.scheme}://{place}", target, None if login is None else f"Basic {login}"


def _read_timeout(given: Any) -> float:
    """The timeout in seconds, from the option in milliseconds."""
    try:
        seconds = float(given or TIMEOUT_MS) / 1000
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise _RefusedError("the timeout must be a number of milliseconds above 0")
    return seconds


def _read_charset(given: Any) -> str | None:
    """The name of a charset that Python knows; `_RefusedError` for other names."""
    if given and _known_charset(given) is None:
        raise _RefusedError("the charset must be the name of one that Python knows, such as gbk")
    return given or None


def _known_charset(name: Any) -> str | None:
    """The name, if Python knows a charset of this name; else None."""
    try:
        b" ".decode(name, "replace")
    except (LookupError, TypeError, ValueError):
        return None
    return str(name)


def _header_items(headers: Any) -> list[tuple[str, str]]:
    """The headers as pairs, from a dict or from lines `Name: value`."""
    if isinstance(headers, str):
        pairs = (line.partition(":") for line in headers.splitlines())
        return [
            (name.strip(), _check_header(name.strip(), value))
            for name, mark, value in pairs
            if mark
        ]
    if headers is not None and not isinstance(headers, dict):
        raise _RefusedError(f"the headers must be a dict or text, not {type(headers).__name__}")
    return [(str(name), _check_header(str(name), value)) for name, value in (headers or {}).items()]


def _check_header(name: str, value: Any) -> str:
    """A checked header value. The value is often a key, so errors do not quote it."""
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
    return text.strip(" \t")


def _decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _group_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """Group values by header name. A name keeps the spelling of its first header."""
    spelled: dict[str, str] = {}
    grouped: dict[str, list[str]] = {}
    for name, value in _decode_headers(headers):
        grouped.setdefault(spelled.setdefault(name.lower(), name), []).append(value)
    return grouped


def _without_secrets(url: str) -> str:
    """The address without the password and the query, which often holds a key."""
    text = str(url)
    found = _PROXIED.fullmatch(text)
    place = re.split(r"[?#]", found[3] if found else text, maxsplit=1)[0]
    return _CONTROL.sub("", re.sub(r"[^/]*@", "", place))
