"""A scripted WebSocket exchange on the local machine, for tests.

    with Exchange() as exchange, connect(exchange.url) as feed:
        exchange.say('{"price": 1}')                # waits for a client, then sends
        assert feed.read(5000) == '{"price": 1}'
        feed.write('{"op": "subscribe"}')
        assert exchange.wait_written(1) == ['{"op": "subscribe"}']
        exchange.cut()                              # the link is lost
        exchange.wait_clients(1)                    # with reconnect=true the program is back

The exchange sends `greeting` to every new client, and `answer` computes the replies to a client's
message. `cut` and `close_clients` end the present links. `refuse` rejects new handshakes until
`heal`. Every call returns after its effect. Every wait has a timeout in seconds. After the timeout
the wait raises an AssertionError with the state that the exchange had then.

The websockets library speaks the protocol (`pip install 'trunkline[testing]'`). An exchange is a
single thread with its own asyncio loop; `stop` ends the thread and closes every socket. For faults
below WebSocket (a refused connection, vanishing bytes) put a `FaultProxy` in front of `port`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from trunkline.testing.loopthread import CALL_S, LoopThread, News

__all__ = ["Answer", "Client", "Exchange"]

Message = str | bytes
Answer = Callable[[Message], Message | Iterable[Message] | None]
"""Computes the replies to a client's message: a message, several messages, or None for no reply."""

_HANDSHAKE_S = 2.0
"""Seconds that a client has for its handshake."""
_LOOK_S = 0.05
"""Seconds between two looks at the remaining tasks while the exchange shuts down."""
_CLOSE_S = 1.0
"""Seconds that a client has to answer a close frame.

After that time the exchange ends the link anyway.
"""


class Client:
    """A link of an exchange, made after the handshake.

    The object stays readable after the link has ended.
    """

    def __init__(self, exchange: Exchange, ws: ServerConnection, number: int) -> None:
        self._exchange = exchange
        self._ws = ws
        self.number = number
        """0 for the exchange's first client, 1 for the next."""
        self.written: list[Message] = []
        """The messages that this client has written: text as str, binary as bytes."""
        self.is_open = False
        """False until the greeting was sent, and False again after the link has ended."""
        self._ended = asyncio.Event()

    @property
    def path(self) -> str:
        """The path and query of the handshake: `/ws?streams=a`."""
        return self._request.path

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the handshake. Lookups ignore the case of header names."""
        return self._request.headers

    @property
    def close_code(self) -> int | None:
        """The code with which the link ended, 1006 if without a close frame; None while the link is
        open."""
        return self._ws.close_code

    def say(self, *messages: Message, timeout: float = CALL_S) -> None:
        """Send messages to this client alone.

        A client whose link has ended gets nothing; the call then returns without an error.
        AssertionError when the client does not take the messages within `timeout` seconds.
        """
        self._exchange._send_to([self], messages, timeout)

    def cut(self) -> None:
        """Lose this link without a close frame. Returns when the link has ended."""
        self._exchange._end_links([self], None)

    def close(self, code: int = 1001, reason: str = "") -> None:
        """End this link by a close frame with `code` and `reason`.

        Returns when the link has ended.
        """
        self._exchange._end_links([self], (code, reason))

    @property
    def _request(self) -> Request:
        assert self._ws.request is not None, "a client is made after its handshake"
        return self._ws.request

    def __repr__(self) -> str:
        state = "open" if self.is_open else "ended"
        return f"Client({self.number}, {self.path}, {state}, {len(self.written)} written)"


class Exchange:
    """A WebSocket server on `127.0.0.1:<port>` that a test scripts; the module's text has an
    example.

    `greeting`: messages that each new client gets first.
    `answer`: computes the replies to a client's message, see `Answer`. The function runs on the
        exchange's thread, must return at once, and may not call the exchange. `stop` raises its
        first exception.
    `subprotocols`: the names that a handshake may agree on.
    `tls`: a server's SSL context; with a context, `url` begins with `wss://`.
    """

    def __init__(
        self,
        *,
        greeting: Iterable[Message] = (),
        answer: Answer | None = None,
        subprotocols: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.greeting: list[Message] = _checked(greeting)
        """A test may change the greeting at any time. Later clients get the new greeting."""
        self.answer = answer
        """A test may change the function at any time."""
        self.clients: list[Client] = []
        """All links since the start, in the order of their handshakes."""
        self.written: list[Message] = []
        """The messages of all clients, in the order of arrival."""
        self.failures: list[Exception] = []
        """The exceptions that `answer` raised."""
        self._handshakes = 0
        self._refusal: tuple[int, Mapping[str, str]] | None = None
        self._subprotocols = [Subprotocol(name) for name in subprotocols] or None
        self._tls = tls
        self._server: Server | None = None
        self._connections: list[ServerConnection] = []
        """All connections since the start, including those without a handshake.

        `_shut_down` aborts every connection, because the server's own close would wait for an open
        handshake.
        """
        self._news = News()
        self._thread = LoopThread("exchange")
        try:
            self.port: int = self._thread.run(self._listen)
        except BaseException:
            self._thread.stop()
            raise

    # Looking at the exchange.

    @property
    def url(self) -> str:
        """The address to dial: `ws://127.0.0.1:<port>`."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    @property
    def live(self) -> list[Client]:
        """The clients whose links are open now."""
        return [client for client in self.clients if client.is_open]

    @property
    def handshakes(self) -> int:
        """The number of handshakes since the start, including refused handshakes."""
        return self._handshakes

    def wait_clients(self, count: int, timeout: float = CALL_S) -> list[Client]:
        """Wait until exactly `count` links are open, for at most `timeout` seconds; returns their
        clients."""
        self._wait(lambda: len(self.live) == count, f"{count} open links", timeout)
        return self.live

    def wait_handshakes(self, count: int, timeout: float = CALL_S) -> None:
        """Wait until the exchange has seen `count` handshakes in total, including refused
        handshakes."""
        self._wait(lambda: self._handshakes >= count, f"{count} handshakes", timeout)

    def wait_written(self, count: int, timeout: float = CALL_S) -> list[Message]:
        """Wait until the clients have written at least `count` messages in total; returns all
        messages of clients."""
        self._wait(lambda: len(self.written) >= count, f"{count} messages of clients", timeout)
        return list(self.written)

    # Acting on the clients.

    def say(self, *messages: Message, timeout: float = CALL_S) -> None:
        """Send the messages, in order, to every open link; without an open link, wait for a client
        first.

        AssertionError when no client comes, or a client does not take the messages, within
        `timeout` seconds.
        """
        self._wait(lambda: bool(self.live), "client to say something to", timeout)
        self._send_to(self.live, messages, timeout)

    def cut(self) -> None:
        """Lose every link without a close frame, as a crash does.

        The exchange still accepts new links.
        """
        self._end_links(self.live, None)

    def close_clients(self, code: int = 1001, reason: str = "") -> None:
        """End every link by a close frame with this code. The exchange still accepts new links."""
        self._end_links(self.live, (code, reason))

    def refuse(self, status: int = 503, headers: Mapping[str, str] | None = None) -> None:
        """Answer new handshakes with this HTTP status until `heal`; the present links stay.

        `headers` belong to the answer, for example `{"Retry-After": "1"}`.
        """
        self._refusal = (status, dict(headers or {}))

    def heal(self) -> None:
        """Accept new links again."""
        self._refusal = None

    # Life

    def stop(self) -> None:
        """Lose all links, close the port and end the thread; then raise the first exception of
        `answer`. Idempotent."""
        if self._thread.is_stopped:
            return
        try:
            self._thread.run(self._shut_down)
        finally:
            self._thread.stop()
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Exchange({self.url}, {len(self.live)} of {len(self.clients)} links open)"

    def _send_to(
        self, clients: Sequence[Client], messages: Iterable[Message], timeout: float = CALL_S
    ) -> None:
        """Send the messages to these clients; see `say`."""
        texts = _checked(messages)
        self._thread.run(lambda: _send_all(clients, texts), timeout)

    def _end_links(self, clients: Sequence[Client], close: tuple[int, str] | None) -> None:
        """End the links of these clients.

        `close` is the code and reason of a close frame; None: no close frame.
        """

        async def end_all() -> None:
            await asyncio.gather(*(_end(client, close) for client in clients))

        self._thread.run(end_all)

    # From here on every method except `_wait` runs on the exchange's thread.

    def _wait(self, happened: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `happened()` is true, on the caller's thread.

        AssertionError describes the exchange's state.
        """
        self._news.wait(
            happened,
            timeout,
            lambda: (
                f"no {what} in {timeout} s: {self!r}, {self._handshakes} handshakes, "
                f"{len(self.written)} messages written, the last {self.written[-3:]!r}"
            ),
        )

    async def _listen(self) -> int:
        """Start the server on a free port; returns the port."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            ssl=self._tls,
            subprotocols=self._subprotocols,
            process_request=self._admit,
            create_connection=self._noting_connections(),
            open_timeout=_HANDSHAKE_S,
            close_timeout=_CLOSE_S,
            ping_interval=None,
            max_size=None,
            logger=_silent_logger(),
        )
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def _shut_down(self) -> None:
        """Runs until every other task of the loop has ended.

        New connections may appear meanwhile.
        """
        assert self._server is not None
        self._server.close()
        # A freshly accepted connection has no transport yet. The connection gets its transport
        # while its task runs, and the loop below aborts the transport at the next look.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for ws in self._connections:
                if hasattr(ws, "transport"):
                    ws.transport.abort()
            await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)

    def _noting_connections(self) -> type[ServerConnection]:
        """A subclass of the library's connection that notes each instance before its handshake."""
        connections = self._connections

        class Noted(ServerConnection):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                connections.append(self)

        return Noted

    def _admit(self, ws: ServerConnection, request: Request) -> Response | None:
        """Count the handshake; returns the refusal, or None to accept the handshake."""
        self._news.tell(self._count_handshake)
        if self._refusal is None:
            return None
        status, headers = self._refusal
        response = ws.respond(status, "refused by the test\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def _count_handshake(self) -> None:
        """Runs under the lock of `News`."""
        self._handshakes += 1

    async def _serve(self, ws: ServerConnection) -> None:
        """Serve a link: send the greeting, then answer messages until the link ends."""
        client = Client(self, ws, len(self.clients))
        self._news.tell(partial(self.clients.append, client))
        # `tell` makes each change under the lock of `_wait`: a waiting test never sees half of a
        # change.
        try:
            with contextlib.suppress(ConnectionClosed):
                await _send(client, self.greeting)
                self._news.tell(lambda: setattr(client, "is_open", True))
                async for message in ws:
                    self._news.tell(partial(self._note, client, message))
                    await _send(client, self._answers(message))
        finally:
            self._news.tell(lambda: setattr(client, "is_open", False))
            client._ended.set()

    def _note(self, client: Client, message: Message) -> None:
        """Note a client's message. Runs under the lock of `News`."""
        client.written.append(message)
        self.written.append(message)

    def _answers(self, message: Message) -> list[Message]:
        """The replies of `answer` to a message.

        An exception is kept in `failures`, for `stop` to raise.
        """
        if self.answer is None:
            return []
        try:
            answer = self.answer(message)
            if answer is None:
                return []
            return _checked([answer] if isinstance(answer, (str, bytes)) else answer)
        except Exception as error:
            self.failures.append(error)
            return []


async def _send(client: Client, messages: Iterable[Message]) -> None:
    """Send messages to a client, one after the other."""
    for message in messages:
        await client._ws.send(message)


async def _send_all(clients: Sequence[Client], messages: Sequence[Message]) -> None:
    """Send messages to several clients at the same time, so that a slow client does not delay the
    others."""

    async def send_to(client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _send(client, messages)

    await asyncio.gather(*(send_to(client) for client in clients))


async def _end(client: Client, close: tuple[int, str] | None) -> None:
    """End a client's link and wait until `_serve` has noted the end."""
    if close is None:
        client._ws.transport.abort()
    else:
        await client._ws.close(*close)
    await client._ended.wait()


def _checked(messages: Iterable[Message]) -> list[Message]:
    """The messages as a list; TypeError for a message that is neither str nor bytes."""
    found: list[Any] = list(messages)
    for message in found:
        if not isinstance(message, (str, bytes)):
            raise TypeError(
                f"an exchange says str or bytes, not {type(message).__name__}: use json.dumps"
            )
    return found


def _silent_logger() -> logging.Logger:
    """A logger that prints nothing: failed handshakes are the very subject of the tests."""
    logger = logging.getLogger("trunkline.testing.exchange")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
