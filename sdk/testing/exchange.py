"""A WebSocket exchange on this machine, which does what a test tells it to do.

    with Exchange() as exchange, connect(exchange.url) as feed:
        exchange.say('{"price": 1}')                # waits for a client, then sends
        assert feed.read(5000) == '{"price": 1}'
        feed.write('{"op": "subscribe"}')
        assert exchange.wait_written(1) == ['{"op": "subscribe"}']
        exchange.cut()                              # the link is lost
        exchange.wait_clients(1)                    # with reconnect=true the program is back

`greeting` is said to each new client, and `answer` decides what a client's message is answered by. `cut` and
`close_clients` end the links there are, `refuse` turns new ones away until `heal`. Every call returns when it
has taken effect, every wait has a timeout and ends in an AssertionError that says what there was instead.

The protocol is that of the websockets library (`pip install 'trunkline[testing]'`). An exchange is one thread
with an asyncio loop of its own; `stop` ends the thread and closes every socket. For faults below WebSocket
(a connection refused, bytes that vanish) put a `FaultProxy` in front of `port`.
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
"""A client's message: what is said to this client in return (None: nothing)."""

_HANDSHAKE_S = 2.0
_LOOK_S = 0.05
_CLOSE_S = 1.0
"""Seconds that a client has to answer a close frame before its link is ended without that."""


class Client:
    """One link of an exchange, from its handshake on; it stays readable after the link has ended."""

    def __init__(self, exchange: Exchange, ws: ServerConnection, number: int) -> None:
        self._exchange = exchange
        self._ws = ws
        self.number = number
        """0 for the exchange's first client, 1 for the next."""
        self.written: list[Message] = []
        """What this client has written, text as str and binary as bytes."""
        self.is_open = False
        """False before the greeting was said and after the link has ended."""
        self._ended = asyncio.Event()

    @property
    def path(self) -> str:
        """The path and query of the handshake: `/ws?streams=a`."""
        return self._request.path

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the handshake; their names are found in capital and small letters."""
        return self._request.headers

    @property
    def close_code(self) -> int | None:
        """The code by which the link has ended (1006: without a close frame); None while it is open."""
        return self._ws.close_code

    def say(self, *messages: Message, timeout: float = CALL_S) -> None:
        """Send messages to this client alone; AssertionError when it does not take them in `timeout` seconds.

        A client whose link has ended gets nothing, and that is no error.
        """
        self._exchange._send_to([self], messages, timeout)

    def cut(self) -> None:
        """Lose this link without a close frame."""
        self._exchange._end_links([self], None)

    def close(self, code: int = 1001, reason: str = "") -> None:
        """End this link by a close frame."""
        self._exchange._end_links([self], (code, reason))

    @property
    def _request(self) -> Request:
        assert self._ws.request is not None, "a client is made after its handshake"
        return self._ws.request

    def __repr__(self) -> str:
        state = "open" if self.is_open else "ended"
        return f"Client({self.number}, {self.path}, {state}, {len(self.written)} written)"


class Exchange:
    """A WebSocket server on `127.0.0.1:<port>` that a test scripts; see the module's text.

    `greeting`: messages that each new client gets first. `answer`: see `Answer`; it runs on the exchange's
    thread, must return at once, and may not call the exchange; what it raises is raised by `stop`.
    `subprotocols`: those that a handshake may agree on. `tls`: a server's context makes the address a `wss://`.
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
        """May be changed at any time; holds for the clients that come after that."""
        self.answer = answer
        """May be changed at any time."""
        self.clients: list[Client] = []
        """All links since the start, in the order of their handshakes."""
        self.written: list[Message] = []
        """What all clients have written, in the order in which it came."""
        self.failures: list[Exception] = []
        """What `answer` raised."""
        self._handshakes = 0
        self._refusal: tuple[int, Mapping[str, str]] | None = None
        self._subprotocols = [Subprotocol(name) for name in subprotocols] or None
        self._tls = tls
        self._server: Server | None = None
        self._connections: list[ServerConnection] = []
        """All since the start, those without a handshake too: the server itself would wait for them."""
        self._news = News()
        self._thread = LoopThread("exchange")
        try:
            self.port: int = self._thread.run(self._listen)
        except BaseException:
            self._thread.stop()
            raise

    # What a test looks at

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
        """How many handshakes there were since the start, refused ones included."""
        return self._handshakes

    def wait_clients(self, count: int, timeout: float = CALL_S) -> list[Client]:
        """Wait until exactly `count` links are open; their clients."""
        self._wait(lambda: len(self.live) == count, f"{count} open links", timeout)
        return self.live

    def wait_handshakes(self, count: int, timeout: float = CALL_S) -> None:
        """Wait until there were `count` handshakes in all, refused ones included."""
        self._wait(lambda: self._handshakes >= count, f"{count} handshakes", timeout)

    def wait_written(self, count: int, timeout: float = CALL_S) -> list[Message]:
        """Wait until the clients have written `count` messages in all; all messages they have written."""
        self._wait(lambda: len(self.written) >= count, f"{count} messages of clients", timeout)
        return list(self.written)

    # What a test does

    def say(self, *messages: Message, timeout: float = CALL_S) -> None:
        """Send the messages, in order, to every client there is; where there is none, wait for one first.

        AssertionError when no client came, or one did not take the messages, in `timeout` seconds.
        """
        self._wait(lambda: bool(self.live), "client to say something to", timeout)
        self._send_to(self.live, messages, timeout)

    def cut(self) -> None:
        """Lose every link without a close frame, as a crash does. New links are taken."""
        self._end_links(self.live, None)

    def close_clients(self, code: int = 1001, reason: str = "") -> None:
        """End every link by a close frame with this code. New links are taken."""
        self._end_links(self.live, (code, reason))

    def refuse(self, status: int = 503, headers: Mapping[str, str] | None = None) -> None:
        """Answer new handshakes by this HTTP status until `heal`; the links there are stay.

        `headers` are those of the answer, such as `{"Retry-After": "1"}`.
        """
        self._refusal = (status, dict(headers or {}))

    def heal(self) -> None:
        """Take new links again."""
        self._refusal = None

    # Life

    def stop(self) -> None:
        """Lose all links, close the port and end the thread; then raise what `answer` raised. Idempotent."""
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
        """End the links of these clients: by a close frame with code and reason, or without one (None)."""

        async def end_all() -> None:
            await asyncio.gather(*(_end(client, close) for client in clients))

        self._thread.run(end_all)

    # From here on everything but _wait runs on the exchange's thread

    def _wait(self, happened: Callable[[], bool], what: str, timeout: float) -> None:
        self._news.wait(
            happened,
            timeout,
            lambda: (
                f"no {what} in {timeout} s: {self!r}, {self._handshakes} handshakes, "
                f"{len(self.written)} messages written, the last {self.written[-3:]!r}"
            ),
        )

    async def _listen(self) -> int:
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
        assert self._server is not None
        self._server.close()
        # A connection that was just accepted has no transport yet, and gets one while its task runs.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for ws in self._connections:
                if hasattr(ws, "transport"):
                    ws.transport.abort()
            await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)

    def _noting_connections(self) -> type[ServerConnection]:
        connections = self._connections

        class Noted(ServerConnection):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                connections.append(self)

        return Noted

    def _admit(self, ws: ServerConnection, request: Request) -> Response | None:
        self._news.tell(self._count_handshake)
        if self._refusal is None:
            return None
        status, headers = self._refusal
        response = ws.respond(status, "refused by the test\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def _count_handshake(self) -> None:
        self._handshakes += 1

    async def _serve(self, ws: ServerConnection) -> None:
        client = Client(self, ws, len(self.clients))
        self._news.tell(partial(self.clients.append, client))
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
        client.written.append(message)
        self.written.append(message)

    def _answers(self, message: Message) -> list[Message]:
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
    for message in messages:
        await client._ws.send(message)


async def _send_all(clients: Sequence[Client], messages: Sequence[Message]) -> None:
    async def send_to(client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _send(client, messages)

    await asyncio.gather(*(send_to(client) for client in clients))


async def _end(client: Client, close: tuple[int, str] | None) -> None:
    if close is None:
        client._ws.transport.abort()
    else:
        await client._ws.close(*close)
    await client._ended.wait()


def _checked(messages: Iterable[Message]) -> list[Message]:
    """The messages as a list; TypeError for what is neither str nor bytes."""
    found: list[Any] = list(messages)
    for message in found:
        if not isinstance(message, (str, bytes)):
            raise TypeError(
                f"an exchange says str or bytes, not {type(message).__name__}: use json.dumps"
            )
    return found


def _silent_logger() -> logging.Logger:
    """For the websockets library: what goes wrong in a handshake is what the test is about."""
    logger = logging.getLogger("trunkline.testing.exchange")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
