"""The fast engine: picows parses frames in C, and hands each over as it lies in its buffer.

Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from trunkline.actors.driver import PeerClosed
from trunkline.actors.drivers.ws.deflate import Deflate
from trunkline.actors.drivers.ws.handshake import BODY_S, has_body_to_read, judge, request_headers
from trunkline.actors.drivers.ws.link import CLOSE_S, HIGH_WATER, Link, Owner, gone, tls_failure
from trunkline.actors.drivers.ws.messages import (
    CLOSE,
    INVALID_TEXT,
    NORMAL,
    TOO_BIG,
    Assembler,
    Close,
    Ping,
    Pong,
    Violation,
    close_payload,
    loss,
    too_big,
)
from trunkline.actors.drivers.ws.opening import Opening
from trunkline.actors.drivers.ws.request import Target
from trunkline.actors.net import tls
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_traffic import is_carried, socket_traffic, unread_bytes
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["PicowsLink"]

_TYPES = {kind.value: kind for kind in picows.WSMsgType}
_DATA = _TEXT, _BINARY = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY
_FRAME, _TLS_FRAME = 2, 2 + 64
"""The most bytes of a control frame beside its payload, without TLS and in a TLS record of its
own.
"""
_BROKEN_OFF = "the link broke without a closing handshake"


def _quiet_logger() -> logging.Logger:
    """Return a silent logger: picows logs every step, and the driver reports the important ones to
    the user.
    """
    logger = logging.Logger("trunkline.picows", logging.CRITICAL + 1)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_LOGGER = _quiet_logger()


class _Listener(picows.WSListener):
    """Collects the messages of a read of the socket, and hands them over together."""

    def __init__(self, link: PicowsLink, deliver: Callable[[list[str | bytes]], None]) -> None:
        self._link = link
        self._deliver = deliver
        self._batch: list[str | bytes] = []
        self._max_size = link.max_size
        self._assembler = Assembler(link.max_size, strict_text=link.strict_text)
        self.plain = True
        """Whether a whole, uncompressed message may be taken without the assembler: no message is
        in progress, and the link is not being closed.
        """

    def use(self, deflate: Deflate | None) -> None:
        """Use the agreed compression, which is known only after the handshake."""
        self._assembler = Assembler(
            self._link.max_size, deflate, strict_text=self._link.strict_text
        )

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._link.connected(transport, self)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take one frame. The common case, a whole message without compression, bypasses the
        assembler.
        """
        kind = frame.msg_type
        if (
            self.plain
            and kind in _DATA
            and frame.fin
            and frame.payload_size
            <= self._max_size  # picows checks only frames longer than its buffer
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        ):
            try:
                self._batch.append(
                    frame.get_payload_as_utf8_text()
                    if kind is _TEXT
                    else frame.get_payload_as_bytes()
                )
            except UnicodeDecodeError:
                self._take_no_text(frame)
        elif not self._link.closing:
            self._feed(frame)
            self.plain = not (self._assembler.fragmented or self._link.closing)
        if frame.last_in_buffer and self._batch:
            batch, self._batch = self._batch, []
            self._deliver(batch)

    def _take_no_text(self, frame: picows.WSFrame) -> None:
        """Handle a whole text message that is not UTF-8."""
        if not self._link.strict_text:
            self._batch.append(frame.get_payload_as_bytes())
            return
        self._link.violation(Violation(INVALID_TEXT, "a text message that is not UTF-8"))
        self.plain = False

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._link.disconnected()

    def pause_writing(self) -> None:
        self._link.writable.clear()

    def resume_writing(self) -> None:
        self._link.writable.set()
        self._link.answer_ping()

    def _feed(self, frame: picows.WSFrame) -> None:
        """Let the assembler check a frame, and handle its event."""
        rsv = frame.rsv1 << 2 | frame.rsv2 << 1 | frame.rsv3
        try:
            event = self._assembler.feed(
                frame.msg_type.value, bool(frame.fin), rsv, frame.get_payload_as_bytes()
            )
        except Violation as violation:
            self._link.violation(violation)
            return
        if isinstance(event, str | bytes):
            self._batch.append(event)
        elif event is not None:
            self._link.control(event)


class _Engine(WSProtocol):  # type: ignore[misc]
    """picows' protocol, which also reports why its transport has ended."""

    def __init__(self, ended: Callable[[Exception | None], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        super().connection_lost(exc)


def _violation(error: picows.WSProtocolError, max_size: int) -> ConnectionError:
    """Return the fault that picows found in a frame.

    picows does not show the frame: of a wrong close frame only the code or the reason is known.
    """
    code, text = int(error.code), str(error).lower()
    if code == TOO_BIG:
        return too_big(max_size)
    if code == INVALID_TEXT and isinstance(error.__context__, UnicodeDecodeError):
        return PeerClosed(None, error.__context__.object.decode(errors="replace"))
    if found := re.search(r"invalid close code: ([0-9]+)$", text):
        return PeerClosed(int(found[1]), "")
    return Violation(code, text)


class PicowsLink(Link):
    """One link by picows."""

    def __init__(self, owner: Owner, max_size: int, *, strict_text: bool = True) -> None:
        super().__init__(owner, max_size, strict_text=strict_text)
        self.writable = asyncio.Event()
        self.closing = False
        """Whether a close frame was sent. Later frames of the peer are ignored."""
        self._transport: picows.WSTransport | None = None
        self._deflate: Deflate | None = None
        self._gone = asyncio.Event()
        self._cause: BaseException | None = None
        """Why the link ends, where the peer, the protocol or this side has given a reason."""
        self._unanswered_ping: bytes | None = None
        """The newest ping that could not be answered yet, because the peer reads nothing."""
        self._watch: asyncio.Task[None] | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._sock: socket.socket | None = None
        self._secure = False
        self._raw: asyncio.Transport | None = None

    async def connect(
        self,
        sock: socket.socket,
        target: Target,
        deadline: Deadline,
        *,
        context: ssl.SSLContext | None,
        hostname: str,
        deflate: bool,
    ) -> None:
        """Open the transport, write picows' request, read the answer here, and give the transport
        to picows.
        """
        self._sock, self._secure = sock, context is not None
        opening = Opening(target)
        await self._start_transport(opening, sock, target, deadline, context, hostname)
        self.secured = context is not None
        assert opening.transport is not None
        self._raw = opening.transport
        engine = self._make_engine(target, deflate)
        engine.connection_made(self._raw)  # writes the request
        key = engine.transport.request.headers["Sec-WebSocket-Key"]
        answer = await opening.answer()
        body = b""
        if has_body_to_read(answer):
            body = await opening.body(answer, min(BODY_S, deadline.left() / 2))
        self._deflate = judge(answer, body, target, key, offered=deflate)
        opening.hand_over(engine, key, answer.rest)

    async def _start_transport(
        self,
        opening: Opening,
        sock: socket.socket,
        target: Target,
        deadline: Deadline,
        context: ssl.SSLContext | None,
        hostname: str,
    ) -> None:
        """Make `opening` the protocol of the socket, with TLS where a context is given."""
        secure: dict[str, Any] = {"server_hostname": hostname, "ssl": context} if context else {}
        if context and (timeout := deadline.timeout()) is not None:
            # Longer than the caller's own limit, whose error is the clearer report.
            secure["ssl_handshake_timeout"] = timeout + 1
        try:
            await asyncio.get_running_loop().create_connection(lambda: opening, sock=sock, **secure)
        except OSError as error:
            if context and isinstance(error, ssl.SSLError | ConnectionError):
                raise tls.explain(error, target.host, target.port) from None
            raise DialError(
                f"{target.peer} broke the connection in the handshake: {error}"
            ) from None

    def _make_engine(self, target: Target, deflate: bool) -> Any:
        """Return picows' protocol. Its own pings and pongs are off: `Link` sends them."""
        return _Engine(
            self.transport_lost,
            host_port=target.host_header,
            ws_path=target.resource,
            is_client_side=True,
            ws_listener_factory=lambda *_: _Listener(self, self.owner.delivered),
            logger=_LOGGER,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=10,
            auto_ping_reply_timeout=10,
            auto_ping_strategy=picows.WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,
            max_frame_size=self.max_size,
            extra_headers=request_headers(target, deflate=deflate),
            read_buffer_init_size=16 * 1024,
        )

    def would_wait(self, size: int) -> bool:
        return size > HIGH_WATER or not self.writable.is_set()

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Send one message; return its size in bytes, or 0 when the deadline came first."""
        while not self.writable.is_set():
            try:
                async with asyncio.timeout(deadline.timeout()):
                    await self.writable.wait()
            except TimeoutError:
                return 0
        transport = self._transport
        if transport is None or self.closing or transport.is_disconnected:
            raise gone(self._cause)
        payload = data.encode() if isinstance(data, str) else data
        kind = _TEXT if isinstance(data, str) else _BINARY
        packed = self._deflate.deflate(payload) if self._deflate else None
        if packed is None:
            transport.send(kind, payload)
        else:
            transport.send(kind, packed, rsv1=True)
        return len(payload)

    def traffic(self) -> Traffic:
        """Return the kernel's figures for the socket, with the data bytes where they can be told
        apart.
        """
        transport, unsent = self._transport, 0
        gone = transport is None or transport.is_disconnected
        fd = -1 if gone or self._sock is None else self._sock.fileno()
        if transport is not None and not gone:
            unsent = transport.underlying_transport.get_write_buffer_size()
        found = socket_traffic(fd, unsent, Traffic(self.heard))
        if fd < 0 or is_carried(fd):
            return found._replace(data=None)
        # The kernel may still hold control frames, which are not counted yet.
        return found._replace(data=found.received - unread_bytes(fd) - self.control_bytes)

    def ping(self) -> None:
        if self._transport is not None and not self.closing and self.writable.is_set():
            self._transport.send_ping(b"")

    async def close(self, code: int = NORMAL) -> None:
        """Close with a handshake, and without one after `CLOSE_S` seconds."""
        if self._transport is None:
            self._hang_up()
            if self._raw is not None:
                self._raw.abort()
            return
        if not self.closing:
            self._send_close(close_payload(code))
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._gone.wait()
        except TimeoutError:
            pass
        finally:
            self._transport.disconnect(graceful=False)  # no effect where the link has ended
        if self._watch is not None:
            await asyncio.wait([self._watch], timeout=CLOSE_S)

    def abort(self, reason: BaseException) -> None:
        """Disconnect at once; `_wait_for_end` then reports the reason."""
        self._cause = reason
        self.closing = True
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.resume_reading()

    # Reports of the listener.

    def connected(self, transport: picows.WSTransport, listener: _Listener) -> None:
        """Note that the handshake is done.

        Called before the first frame, so the extension is known in time.
        """
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=HIGH_WATER)
        self.writable.set()
        self._watch = asyncio.ensure_future(self._wait_for_end(transport))
        listener.use(self._deflate)

    def control(self, event: Ping | Pong | Close) -> None:
        """Handle a control frame."""
        self.heard += 1
        if not isinstance(event, Close):
            self.control_bytes += len(event.payload) + (_TLS_FRAME if self._secure else _FRAME)
        if isinstance(event, Close):
            self._cause = loss(event)
            self._send_close(close_payload(event.code))
        elif isinstance(event, Ping):
            self._unanswered_ping = event.payload
            if self.writable.is_set():
                self.answer_ping()

    def answer_ping(self) -> None:
        """Answer the newest ping.

        Older pings need no answer (RFC 6455, 5.5.3) and are not queued.
        """
        payload, self._unanswered_ping = self._unanswered_ping, None
        if payload is not None and self._transport is not None and not self.closing:
            self._transport.send_pong(payload)

    def violation(self, violation: Violation) -> None:
        """Close the link after the peer has broken the protocol."""
        if not self.closing:
            self._cause = violation.cause
            self._send_close(close_payload(violation.code))

    def disconnected(self) -> None:
        self._gone.set()
        self.writable.set()  # senders wake up and find the link gone

    def transport_lost(self, error: Exception | None) -> None:
        """Note why the transport below has ended: picows itself does not tell."""
        self._cause = self._cause or tls_failure(error)

    def _hang_up(self) -> None:
        """End a handshake in progress.

        The transport owns the socket, and closes it after this shutdown.
        """
        if self._sock is not None and self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _send_close(self, payload: bytes) -> None:
        """Send a close frame, and disconnect after `CLOSE_S` seconds in any case."""
        self.closing = True
        assert self._transport is not None
        # `send_close` cannot send a close frame without a code.
        self._transport.send(_TYPES[CLOSE], payload)
        self._give_up = asyncio.get_running_loop().call_later(
            CLOSE_S, self._transport.disconnect, False
        )

    async def _wait_for_end(self, transport: picows.WSTransport) -> None:
        """Wait for the end of picows' transport, and report it. Runs as a task."""
        try:
            await transport.wait_disconnected()
        except picows.WSProtocolError as error:
            # After a close frame the peer's words stay the reason, whatever follows.
            self._cause = self._cause or _violation(error, self.max_size)
        except Exception as error:
            self._cause = self._cause or error
        finally:
            if self._give_up is not None:
                self._give_up.cancel()
        self.disconnected()
        self.owner.ended(self._cause or ConnectionError(_BROKEN_OFF))
