"""The WebSocket opening handshake: the bytes of the request, the meaning of the answer.

No I/O, for both engines.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import time
from urllib.parse import quote

from trunkline.actors.drivers.ws.deflate import OFFER, Deflate, NegotiationError, negotiate
from trunkline.actors.drivers.ws.request import Redirect, Target, check_subprotocol, refusal
from trunkline.actors.net import tls, tls_alerts
from trunkline.actors.net.http_answer import Answer, Malformed, body_words
from trunkline.actors.net.peer_words import without_secrets
from trunkline.actors.net.retry_after import read_retry_after
from trunkline.errors import DialError

__all__ = [
    "BODY_S",
    "accept_for",
    "ended_early",
    "has_body_to_read",
    "judge",
    "new_key",
    "no_websocket",
    "request_bytes",
    "request_headers",
]

BODY_S = 1.0
"""Seconds to wait for the body of a refusal, whose first line is shown to the user."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ASCII = "".join(map(chr, range(128)))
_REDIRECTS = (301, 302, 303, 307, 308)


def new_key() -> str:
    """Return a new `Sec-WebSocket-Key`."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_for(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that a server must answer to this key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def request_headers(target: Target, *, deflate: bool) -> list[tuple[str, str]]:
    """Return `Host` and all headers of the user, without the headers of the handshake itself."""
    headers = [("Host", target.host_header), *target.extra_headers]
    return [*headers, ("Sec-WebSocket-Extensions", OFFER)] if deflate else headers


def request_bytes(target: Target, key: str, *, deflate: bool) -> bytes:
    """Return the whole request."""
    host, *others = request_headers(target, deflate=deflate)
    headers = [
        host,
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
        *others,
    ]
    lines = [f"GET {target.resource} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def has_body_to_read(answer: Answer) -> bool:
    """Whether the words of a refusal may follow behind the head of the answer."""
    return answer.status != 101 and not _leads_elsewhere(answer)


def judge(
    answer: Answer, body: bytes, target: Target, key: str, *, offered: bool
) -> Deflate | None:
    """Judge the server's answer; return the agreed compression, or None for none.

    Raises `Redirect`, or a DialError that names the fault (FatalError where another attempt cannot
    help). `offered`: whether the request has offered compression.
    """
    if _leads_elsewhere(answer):
        raise Redirect(_location(answer))
    if answer.status != 101:
        raise _refused(answer, body, target)
    if "websocket" not in answer.tokens("upgrade"):
        raise no_websocket(
            target, f"its 101 says {_said(answer, 'Upgrade')}, not 'Upgrade: websocket'"
        )
    if "upgrade" not in answer.tokens("connection"):
        raise no_websocket(
            target, f"its 101 says {_said(answer, 'Connection')}, not 'Connection: Upgrade'"
        )
    if set(answer.all("sec-websocket-accept")) != {accept_for(key)}:
        missing = not answer.all("sec-websocket-accept")
        what = (
            "has no Sec-WebSocket-Accept"
            if missing
            else "has a Sec-WebSocket-Accept for another key"
        )
        raise no_websocket(target, f"its 101 {what}")
    check_subprotocol(target, answer.get("sec-websocket-protocol"))
    try:
        deflate = negotiate(answer.get("sec-websocket-extensions"))
    except NegotiationError as error:
        raise no_websocket(target, str(error)) from None
    if deflate is not None and not offered:
        raise no_websocket(target, "the server chose permessage-deflate, which was not offered")
    return deflate


def no_websocket(target: Target, why: Malformed | str) -> DialError:
    """Return the error for a peer that answers, but not as a WebSocket server."""
    words = why.said(target.secrets) if isinstance(why, Malformed) else why
    return DialError(f"{target.peer} did not answer as a WebSocket server: {words}")


def ended_early(target: Target, *, begun: bool, error: Exception | None = None) -> DialError:
    """Return the error for a connection that ended before its answer was complete."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return tls.explain(
            error, target.host, target.port
        )  # TLS 1.3 refuses a client certificate so late
    if begun:
        return DialError(
            f"{target.peer} closed the connection in the middle of its handshake answer"
        )
    hint = tls_alerts.if_it_wants_a_certificate(target.certfile) if target.secure else ""
    return DialError(
        f"{target.peer} closed the connection in the handshake; check the port and the scheme{hint}"
    )


def _leads_elsewhere(answer: Answer) -> bool:
    return answer.status in _REDIRECTS and any(answer.all("location")[:1])


def _location(answer: Answer) -> str:
    """Return the target of a redirect. Bytes above ASCII are percent-encoded as they came."""
    return quote(answer.all("location")[0], safe=_ASCII, encoding="latin-1")


def _refused(answer: Answer, body: bytes, target: Target) -> DialError:
    """Return the error for a refusal, with the server's own words and its `Retry-After`."""
    words = without_secrets(body_words(answer, body), target.secrets)
    error = refusal(answer.status, target.peer, words)
    date = answer.get("date")
    error.retry_after_s = read_retry_after(answer.get("retry-after"), now=time.time(), date=date)
    return error


def _said(answer: Answer, name: str) -> str:
    value = answer.get(name)
    return f"no {name}" if value is None else f"'{name}: {value[:60]}'"
