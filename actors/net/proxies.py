"""The client side of SOCKS5 (RFC 1928, 1929) and of HTTP CONNECT, over a connected socket.

The functions are coroutines of the event loop. PySocks blocks: a deadline for it would need a
thread and a socket that another thread closes. Host names are always resolved at the proxy.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterable

from trunkline.actors.driver import FatalError
from trunkline.actors.net.http_answer import (
    MAX_BODY,
    Answer,
    AnswerReader,
    Malformed,
    body_is_complete,
    body_words,
)
from trunkline.actors.net.peer_words import without_secrets
from trunkline.actors.net.retry_after import read_retry_after
from trunkline.address.host import join_host_port, without_zone
from trunkline.errors import DialError

__all__ = ["http_connect", "receive", "send", "socks5"]

_SIZES, _NAME = {1: 4, 4: 16}, 3
"""Kinds of addresses: sizes in bytes by kind, and the kind of a name with its length in front."""
_NO_AUTH, _PASSWORD, _NONE_ACCEPTED = 0, 2, 0xFF
_REPLIES = {
    1: "general failure (often a name it cannot resolve)",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
_PIECE = 16 * 1024
_BODY_S = 0.5
"""Seconds to wait for the body of a refusal, whose first line is shown to the user."""


async def socks5(
    sock: socket.socket, proxy: str, target: tuple[str, int], user: str | None, password: str | None
) -> None:
    """Ask the SOCKS5 proxy at the other end of `sock` to connect to `target` (host, port).

    `proxy`: the proxy's name in errors. Raises DialError; FatalError for the login."""
    methods = bytes([_NO_AUTH, _PASSWORD] if user is not None else [_NO_AUTH])
    await send(sock, bytes([5, len(methods)]) + methods)
    version, method = await receive(sock, 2, proxy)
    if version != 5:
        raise DialError(f"proxy {proxy} does not speak SOCKS5; check proxy=")
    if method == _PASSWORD and user is not None:
        await _log_in(sock, proxy, user, password or "")
    elif method != _NO_AUTH:
        raise FatalError(
            f"proxy {proxy} wants another login; give proxy=socks5://name:password@host:port"
        )
    await send(sock, b"\x05\x01\x00" + _destination(*target))
    _, reply, _, kind = await receive(sock, 4, proxy)
    if reply:
        why = _REPLIES.get(reply, f"code {reply}")
        raise DialError(
            f"{join_host_port(*target)} is unreachable through proxy {proxy}: {why}", code=reply
        )
    if kind not in (*_SIZES, _NAME):
        raise DialError(
            f"proxy {proxy} does not speak SOCKS5 (address of kind {kind}); check proxy="
        )
    await _skip_bound_address(sock, kind, proxy)


async def http_connect(
    sock: socket.socket, proxy: str, target: tuple[str, int], user: str | None, password: str | None
) -> None:
    """Ask the HTTP proxy at the other end of `sock` for a tunnel to `target` (host, port).

    `proxy`: the proxy's name in errors. Raises DialError; FatalError for the login (407)."""
    host = join_host_port(without_zone(target[0]), None)
    token = ""
    lines = [f"CONNECT {host}:{target[1]} HTTP/1.1", f"Host: {host}:{target[1]}"]
    if user is not None:
        token = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    await send(sock, "\r\n".join([*lines, "", ""]).encode())
    secrets = [secret for secret in (user, password, token) if secret]
    answer = await _receive_answer(sock, proxy, secrets)
    status = answer.status
    if 200 <= status < 300:
        return
    body = await _receive_body(sock, answer)
    says = _said(answer, body, secrets)
    if status == 407:
        what = "refused the user or password" if user is not None else "wants a user and password"
        raise FatalError(f"proxy {proxy} {what} (407); check proxy={says}", code=status)
    if status in (502, 503, 504):
        text = f"{host}:{target[1]} is unreachable through proxy {proxy}: {status}{says}"
    else:
        text = f"proxy {proxy} refused to connect to {host}:{target[1]}: {status}{says}"
    raise DialError(text, code=status, retry_after_s=_retry_after(answer))


async def _log_in(sock: socket.socket, proxy: str, user: str, password: str) -> None:
    name, secret = user.encode(), password.encode()
    if not name or max(len(name), len(secret)) > 255:
        raise FatalError(f"proxy {proxy}: a SOCKS5 name has 1 to 255 bytes, a password at most 255")
    await send(sock, bytes([1, len(name)]) + name + bytes([len(secret)]) + secret)
    _, status = await receive(sock, 2, proxy, refused_login=True)
    if status:
        raise FatalError(f"proxy {proxy} refused the user or password; check proxy=")


def _destination(host: str, port: int) -> bytes:
    try:
        address = ipaddress.ip_address(without_zone(host))
    except ValueError:
        name = host.encode("idna") if not host.isascii() else host.encode()
        if not 0 < len(name) < 256:
            raise FatalError(f"host name of {len(name)} bytes: SOCKS5 allows 1 to 255") from None
        return b"\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big")
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed + port.to_bytes(2, "big")


async def _skip_bound_address(sock: socket.socket, kind: int, proxy: str) -> None:
    size = _SIZES[kind] if kind in _SIZES else (await receive(sock, 1, proxy))[0]
    await receive(sock, size + 2, proxy)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of `data` to the proxy."""
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(
    sock: socket.socket, count: int, proxy: str, *, refused_login: bool = False
) -> bytes:
    """Read exactly `count` bytes. The target's first bytes must stay in the socket.

    `refused_login`: an end of the stream means that the proxy refused the login."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece and refused_login:
            raise FatalError(f"proxy {proxy} refused the user or password; check proxy=")
        if not piece:
            raise DialError(f"proxy {proxy} closed the connection in its handshake")
        data += piece
    return data


async def _receive_answer(sock: socket.socket, proxy: str, secrets: Iterable[str]) -> Answer:
    """Read the answer to CONNECT and no byte behind it.

    The target's first bytes must stay in the socket. So each piece is peeked at first, and bytes of
    the answer alone are taken out."""
    reader = AnswerReader()
    try:
        while True:
            first, more = await receive(sock, 1, proxy), b""
            with contextlib.suppress(BlockingIOError):
                more = sock.recv(_PIECE, socket.MSG_PEEK)
            answer = reader.feed(first + more)
            behind = len(answer.rest) if answer is not None else 0
            await receive(sock, len(more) - behind, proxy)
            if answer is not None:
                return answer
    except Malformed as error:
        raise DialError(
            f"proxy {proxy} is no HTTP proxy: {error.said(secrets)}; check proxy="
        ) from None


async def _receive_body(sock: socket.socket, answer: Answer) -> bytes:
    """The part of a refusal's body that comes within `_BODY_S`."""
    loop, body = asyncio.get_running_loop(), b""
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(_BODY_S):
            while not body_is_complete(answer, body):
                data = await loop.sock_recv(sock, MAX_BODY)
                if not data:
                    break
                body += data
    return body


def _said(answer: Answer, body: bytes, secrets: Iterable[str]) -> str:
    words = without_secrets(body_words(answer, body), secrets)
    return f"; it says: {words}" if words else ""


def _retry_after(answer: Answer) -> float | None:
    return read_retry_after(answer.get("retry-after"), now=time.time(), date=answer.get("date"))
