"""The engine that is always available: websocket-client's frame reader in a thread of its own.

The thread only reads, and hands messages to the event loop in batches. The event loop writes,
without blocking. Both use one `SharedSocket`, which lets only one of them into OpenSSL at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import deque
from typing import Any

import websocket
from websocket._abnf import ABNF

from trunkline.actors.drivers.ws.handshake import (
    BODY_S,
    ended_early,
    has_body_to_read,
    judge,
    new_key,
    no_websocket,
    request_bytes,
)
from trunkline.actors.drivers.ws.link import CLOSE_S, Link, Owner, gone, tls_failure
from trunkline.actors.drivers.ws.messages import (
    BINARY,
    CLOSE,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    Assembler,
    Close,
    Ping,
    Pong,
    Violation,
    close_payload,
    loss,
)
from trunkline.actors.drivers.ws.request import Target
from trunkline.actors.drivers.ws.socket import FrameReader, SharedSocket
from trunkline.actors.net import dialer, tls
from trunkline.actors.net.http_answer import Answer, AnswerReader, Malformed, body_is_complete
from trunkline.actors.net.liveness import Traffic
from trunkline.actors.net.socket_traffic import socket_traffic
from trunkline.deadline import Deadline
from trunkline.errors import DialError

__all__ = ["ClientLink"]

_READ = 128 * 1024
_MAX_BATCH = 512
_MAX_PONGS = 64
"""How many pings may wait for their answer. Beyond, only the newest pings are answered."""
_MAX_BATCHES = 16
"""How many batches may be on their way to the event loop. The reading thread then waits: back
pressure.
"""
_BROKEN_OFF = "the link broke without a closing handshake"


class ClientLink(Link):
    """One link by websocket-client.

    The thread runs `_handshake` and later `_read_all`; all public methods are called on the event
    loop.
    """

    def __init__(self, owner: Owner, max_size: int, *, strict_text: bool = True) -> None:
        super().__init__(owner, max_size, strict_text=strict_text)
        self._loop = asyncio.get_running_loop()
        self._socket: SharedSocket | None = None
        self._client: Any = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
        self._assembler = Assembler(max_size, strict_text=strict_text)
        self._batch: list[str | bytes] = []
        """Messages for the next hand-over. Only the reading thread uses the list."""
        self._in_flight = threading.Semaphore(_MAX_BATCHES)
        """Acquired by the reading thread for each batch, released by the event loop."""
        self._may_read = threading.Event()
        """Cleared by `pause`; the reading thread waits for it before it reads on."""
        self._may_read.set()
        self._sending = asyncio.Lock()
        """Held while a message or control frames are written, so that frames are never mixed."""
        self._ready = asyncio.Event()
        """Set when the socket may take more bytes, and at the end of the link."""
        self._control: dict[int, bytes] = {}
        """A ping and a close frame that wait for the socket, the newest of each kind."""
        self._pongs: deque[bytes] = deque(maxlen=_MAX_PONGS)
        """Pongs waiting for the socket. RFC 6455, 5.5.3 allows to leave older pongs out. So a peer
        that never reads cannot make them pile up.
        """
        self._closing = False
        self._unsent = 0
        """How many bytes of the message being written the socket has not taken yet."""
        self._cause: BaseException | None = None
        """Why the link ends, where the peer, the protocol or this side has given a reason."""
        self._pings_lock = threading.Lock()
        """Guards `_pings`, which both threads change."""
        self._pings: deque[bytes] = deque(maxlen=_MAX_PONGS)
        """Payloads of pings without an answer, the newest ones."""
        self._busy: asyncio.Future[None] | None = None
        """The handshake, later the reading, that runs in the thread."""

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
        """Make the handshake in a thread, then read in a thread until the end.

        The thread goes on when the caller is cancelled; `close` hangs up the socket and waits for
        the thread.
        """
        if deflate:
            self.owner.warn(
                "enableCompression needs picows (pip install 'trunkline[fast]'); going on without"
            )
        self._socket = SharedSocket(sock)
        self._busy = asyncio.ensure_future(
            self._in_thread(lambda: self._handshake(target, deadline, context, hostname))
        )
        self._busy.add_done_callback(_look_at)
        await asyncio.shield(self._busy)
        self._busy = asyncio.ensure_future(self._in_thread(self._read_all))
        self._busy.add_done_callback(self._ended)

    async def send(self, data: str | bytes, deadline: Deadline) -> int:
        """Send one message; return its size in bytes, or 0 when the deadline came first.

        Messages are written one at a time. Waiting control frames follow behind the message.
        """
        payload = data.encode() if isinstance(data, str) else data
        frame = ABNF.create_frame(payload, TEXT if isinstance(data, str) else BINARY).format()
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self._sending.acquire()
        except TimeoutError:
            return 0
        try:
            self._alive()
            return len(payload) if await self._write(frame, deadline) else 0
        finally:
            self._sending.release()
            self._flush_control()

    def traffic(self) -> Traffic:
        """Return the kernel's figures for the socket; without them, the bytes that the reader has
        consumed.
        """
        sock = self._socket
        if sock is None:
            return Traffic(self.heard)
        fd = sock.fileno()
        found = socket_traffic(fd, self._unsent, Traffic(sock.consumed))
        return found._replace(data=sock.consumed - self.control_bytes)

    def ping(self) -> None:
        self._send_control(PING, b"")

    async def close(self, code: int = NORMAL) -> None:
        """Close with a handshake, then by hanging up. Either way the reading thread gets `CLOSE_S`
        seconds.
        """
        if self._socket is None:
            return
        self._may_read.set()
        if self._client.connected and not self._closing:
            self._send_close(close_payload(code))
        elif not self._client.connected:
            self._socket.hang_up()
        await self._wait_for_thread(CLOSE_S)
        self._socket.hang_up()
        await self._wait_for_thread(CLOSE_S)
        self._socket.close()

    def abort(self, reason: BaseException) -> None:
        """Hang up the socket: the reading thread wakes up and ends the link."""
        self._cause = reason
        self._closing = True
        self._may_read.set()
        if self._socket is not None:
            self._socket.hang_up()

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    # Run in the thread.

    def _handshake(
        self, target: Target, deadline: Deadline, context: ssl.SSLContext | None, hostname: str
    ) -> None:
        """Start TLS and make the opening handshake. Blocks; raises Redirect or DialError."""
        assert self._socket is not None
        try:
            if context is not None:
                self._socket.start_tls(context, hostname)
        except OSError as error:
            raise tls.explain(error, target.host, target.port) from None
        self.secured = context is not None
        key = new_key()
        answer = self._exchange(request_bytes(target, key, deflate=False), target)
        body = b""
        if has_body_to_read(answer):
            body = self._read_body(answer, Deadline(min(BODY_S, deadline.left() / 2)))
        judge(answer, body, target, key, offered=False)
        self._socket.unread(answer.rest)
        self._client.sock = self._socket
        self._client.frame_buffer = FrameReader(self._client._recv, self._assembler)
        self._client.connected = True
        self._socket.before_wait = self._flush

    def _exchange(self, request: bytes, target: Target) -> Answer:
        """Send the request and return the head of the final answer."""
        assert self._socket is not None
        reader = AnswerReader()
        try:
            with contextlib.suppress(OSError):  # closed: earlier bytes may tell why
                self._socket.send(request)
            while True:
                data = self._socket.recv(_READ)
                if not data:
                    raise ended_early(target, begun=reader.begun)
                if (answer := reader.feed(data)) is not None:
                    return answer
        except Malformed as error:
            raise no_websocket(target, error) from None
        except DialError:
            raise
        except OSError as error:
            raise ended_early(target, begun=reader.begun, error=error) from None

    def _read_body(self, answer: Answer, limit: Deadline) -> bytes:
        """Return the part of a refusal's body that comes within the limit."""
        assert self._socket is not None
        body = answer.rest
        with contextlib.suppress(OSError):  # TimeoutError is an OSError
            while not body_is_complete(answer, body) and limit.left() > 0:
                data = self._socket.recv(_READ, limit.left())
                if not data:
                    break
                body += data
        return body

    def _read_all(self) -> None:
        """Read frames to the end of the link. Returns normally and raises nothing."""
        reading = True
        while reading:
            try:
                reading = self._read_one()
            except Violation as violation:
                self._fail(violation)
                reading = False
            except websocket.WebSocketProtocolException as error:
                self._fail(Violation(PROTOCOL_ERROR, str(error).lower()))
                reading = False
            except (OSError, websocket.WebSocketException) as error:
                self._cause = self._cause or tls_failure(error)
                reading = False
        self._flush()
        self._drain()

    def _read_one(self) -> bool:
        """Read one frame and handle its event; False after a close frame."""
        frame = self._client.recv_frame()
        rsv = frame.rsv1 << 2 | frame.rsv2 << 1 | frame.rsv3
        event = self._assembler.feed(frame.opcode, bool(frame.fin), rsv, frame.data)
        if isinstance(event, Ping | Pong):
            self.control_bytes += len(event.payload) + 2
        if isinstance(event, str | bytes):
            self._batch.append(event)
            if len(self._batch) >= _MAX_BATCH:
                self._flush()
        elif isinstance(event, Close):
            self._flush()
            self._loop.call_soon_threadsafe(self._take_close, event)
        elif isinstance(event, Ping):
            self._note_ping(event)
        return not isinstance(event, Close)

    def _note_ping(self, event: Ping) -> None:
        """Tell the event loop of a ping, once for all pings that come before it looks.

        A flood of pings would otherwise fill the loop's queue.
        """
        with self._pings_lock:
            told = bool(self._pings)
            self._pings.append(event.payload)
        if not told:
            self._loop.call_soon_threadsafe(self._answer_pings)

    def _flush(self) -> None:
        """Hand the batch to the event loop. Waits while too many batches are on their way, or
        reading is paused.
        """
        if self._batch:
            batch, self._batch = self._batch, []
            self._in_flight.acquire()
            self._loop.call_soon_threadsafe(self._deliver, batch)
        if not self._may_read.is_set():
            self._may_read.wait()

    def _fail(self, violation: Violation) -> None:
        self._flush()
        self._loop.call_soon_threadsafe(self._take_violation, violation)

    def _drain(self) -> None:
        """Wait for the peer to close after the last frame.

        `close` or a timer ends the wait otherwise.
        """
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while self._socket.recv(_READ):
                pass

    # Run on the event loop.

    def _deliver(self, batch: list[str | bytes]) -> None:
        self._in_flight.release()
        self.owner.delivered(batch)

    def _take_close(self, event: Close) -> None:
        """Answer the peer's close frame, which is the reason of the end."""
        if not self._closing:
            self._cause = loss(event)
            self._send_close(close_payload(event.code))

    def _answer_pings(self) -> None:
        """Answer the pings that have come since the last call."""
        with self._pings_lock:
            pings = list(self._pings)
            self._pings.clear()
        if pings and not self._closing and self._client.connected:
            self._pongs.extend(ABNF.create_frame(ping, PONG).format() for ping in pings)
            self._flush_control()

    def _take_violation(self, violation: Violation) -> None:
        """Close the link after the peer has broken the protocol."""
        if not self._closing:
            self._cause = violation.cause
            self._send_close(close_payload(violation.code))

    def _send_close(self, payload: bytes) -> None:
        """Send the close frame, and hang up after `CLOSE_S` seconds in any case."""
        self._send_control(CLOSE, payload)
        self._closing = True
        assert self._socket is not None
        self._loop.call_later(CLOSE_S, self._socket.hang_up)

    def _send_control(self, opcode: int, payload: bytes) -> None:
        """Keep a control frame, and send it as soon as no message is being written."""
        if not self._closing and self._client.connected:
            self._control[opcode] = ABNF.create_frame(payload, opcode).format()
            self._flush_control()

    def _flush_control(self) -> None:
        """Send the waiting control frames, whole and between messages.

        A link that takes only a part of the bytes within `CLOSE_S` is broken off. Frames of which
        nothing goes out in time are dropped.
        """
        if self._sending.locked() or self._socket is None:
            return
        # The close frame must be the last frame.
        closing = self._control.pop(CLOSE, b"")
        frames = b"".join((*self._pongs, *self._control.values(), closing))
        self._pongs.clear()
        self._control.clear()
        if frames:
            self._loop.create_task(self._write_control(frames))

    async def _write_control(self, frames: bytes) -> None:
        async with self._sending:
            with contextlib.suppress(OSError):
                await self._write(frames, Deadline(CLOSE_S))

    async def _write(self, data: bytes, deadline: Deadline) -> bool:
        """Write all of `data`; return False when nothing went out by the deadline.

        A frame that went out in part ends the link, because the rest must not follow after the
        deadline.
        """
        assert self._socket is not None
        if self._socket.fileno() < 0:  # closed while this write waited for its turn
            raise gone(self._cause)
        if not self._socket.can_write() and not await self._writable(deadline):
            return False
        rest = memoryview(data)
        try:
            while True:
                try:
                    rest = rest[self._socket.try_send(rest) :]
                except OSError:
                    raise gone(self._cause) from None
                if not rest:
                    return True
                self._unsent = len(rest)
                if not await self._writable(deadline):
                    break
        finally:
            self._unsent = 0
        if len(rest) < len(data) or self._socket.half_sent:
            self.abort(ConnectionError("the peer took only half a message in time; broken off"))
            raise gone(self._cause)
        return False

    async def _writable(self, deadline: Deadline) -> bool:
        """Wait until the socket takes bytes; False when the deadline came first."""
        assert self._socket is not None
        self._ready.clear()
        self._loop.add_writer(self._socket.fileno(), self._ready.set)
        try:
            async with asyncio.timeout(deadline.timeout()):
                await self._ready.wait()
        except TimeoutError:
            return False
        finally:
            self._unwatch()
        return True

    def _unwatch(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket.fileno())

    def _alive(self) -> None:
        if self._closing or self._busy is None or self._busy.done():
            raise gone(self._cause)

    def _ended(self, busy: asyncio.Future[None]) -> None:
        """Report the end of the link, after the reading thread has ended."""
        self._ready.set()
        if self._socket is not None:
            self._unwatch()
            self._socket.close()
        if not busy.cancelled() and (error := busy.exception()) is not None:
            self._cause = self._cause or error
        self.owner.ended(self._cause or ConnectionError(_BROKEN_OFF))

    async def _in_thread(self, work: Any) -> None:
        await dialer.run_in_thread(work, "trunkline-ws")

    async def _wait_for_thread(self, seconds: float) -> None:
        if self._busy is not None and not self._busy.done():
            await asyncio.wait([self._busy], timeout=seconds)


def _look_at(busy: asyncio.Future[None]) -> None:
    """Mark the error of a handshake as seen: its caller may have left before it failed."""
    if not busy.cancelled():
        busy.exception()
