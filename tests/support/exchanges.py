"""Local servers that speak as the exchanges of the examples do, over TLS, each on a port of its own choice.

    with OkxPublic(authority) as okx:
        ... a program started with environment(authority, okx) dials wss://ws.okx.com:8443/ws/v5/public
        okx.wait_subscribed(1)
        okx.tick()                          # message 1, to every subscriber
        okx.drop_all()

Market data is sent when a test says `tick()`, and numbered from 1 over the server's life, whoever
listens; `received` is what clients sent. Nothing here times a test.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import os
import ssl
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import trustme
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from tests.support.servers import WsServer
from tests.support.sockets import Peer, SocketServer

__all__ = [
    "Authority",
    "BinanceTicker",
    "Exchange",
    "HuobiPublic",
    "OkxPrivate",
    "OkxPublic",
    "WebPage",
    "environment",
]

_NAMES_FOLDER = Path(__file__).with_name("names")


class Authority:
    """Certificates for names that are not ours, from an authority that only the test's programs trust."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "exchanges-ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def context(self, host: str) -> ssl.SSLContext:
        """For a server that passes for `host`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(host).configure_cert(context)
        return context


class Exchange(WsServer, ABC):
    """What the exchanges have in common: a place in the world, subscribers and numbered messages."""

    place: ClassVar[str]
    """`host:port` as the examples write it."""
    path: ClassVar[str]
    """The only path that is answered; all others are a 404."""

    def __init__(self, authority: Authority) -> None:
        self.number = 0
        """The number of the last message sent."""
        self._subscribers: set[ServerConnection] = set()
        tls = authority.context(self.place.partition(":")[0])
        super().__init__(self._serve_one, tls=tls, on_request=self._route)

    def __enter__(self) -> Self:
        return self

    def tick(self) -> int:
        """Send the next numbered message to every subscriber; its number."""
        self.number += 1
        data = self.encode(self.market_data(self.number))
        for ws in list(self._subscribers):
            with contextlib.suppress(ConnectionClosed):
                ws.send(data)
        return self.number

    def wait_subscribed(self, count: int, timeout: float = 20.0) -> None:
        """Wait until exactly `count` connections are subscribed."""
        self._wait(lambda: len(self._subscribers) == count, f"{count} subscribers", timeout)

    def wait_message(self, text: str, timeout: float = 20.0) -> None:
        """Wait until a client has sent a message that holds `text`."""
        self._wait(
            lambda: any(text in str(message) for message in self.received), repr(text), timeout
        )

    def encode(self, message: object) -> str | bytes:
        """A message as this exchange puts it into a frame."""
        return message if isinstance(message, str) else json.dumps(message)

    @abstractmethod
    def market_data(self, number: int) -> object:
        """The exchange's message of this number."""

    def answer(self, ws: ServerConnection, message: str) -> None:
        """React to what a client sent."""

    def subscribe(self, ws: ServerConnection) -> None:
        self._turn(self._subscribers.add, ws)

    def opened(self, ws: ServerConnection) -> None:
        """React to a new client."""

    def closed(self, ws: ServerConnection) -> None:
        """Forget a client."""
        self._turn(self._subscribers.discard, ws)

    def reply(self, ws: ServerConnection, message: object) -> None:
        ws.send(self.encode(message))

    def _serve_one(self, ws: ServerConnection) -> None:
        try:
            self.opened(ws)
            for message in ws:
                self.answer(ws, message if isinstance(message, str) else message.decode())
        finally:
            self.closed(ws)

    def _route(self, ws: ServerConnection, request: Request) -> Response | None:
        return None if request.path == self.path else ws.respond(404, f"no {request.path} here\n")


class BinanceTicker(Exchange):
    """The all-market ticker: a JSON array in a text frame, to whoever connects. The last price `c` is
    the message's number."""

    place = "stream.binance.com:9443"
    path = "/ws/!ticker@arr"
    symbols: ClassVar[tuple[str, ...]] = ("BTCUSDT", "ETHUSDT", "BNBBTC")

    def opened(self, ws: ServerConnection) -> None:
        self.subscribe(ws)

    def market_data(self, number: int) -> object:
        now = int(time.time() * 1000)
        prices = {
            "h": "99.1",
            "l": "90.2",
            "b": "95.3",
            "a": "95.4",
            "c": f"{number}.5",
            "q": "12345.6",
        }
        return [{"e": "24hrTicker", "E": now, "s": symbol, **prices} for symbol in self.symbols]


class OkxPublic(Exchange):
    """Tickers after a subscription; every frame is binary, raw DEFLATE; `ping` is answered with `pong`."""

    place = "ws.okx.com:8443"
    path = "/ws/v5/public"

    def encode(self, message: object) -> bytes:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(str(super().encode(message)).encode()) + packer.flush()

    def answer(self, ws: ServerConnection, message: str) -> None:
        if message == "ping":
            self.reply(ws, "pong")
            return
        request = _json(message)
        if request.get("op") != "subscribe":
            self.reply(
                ws, {"event": "error", "code": "60012", "msg": f"Illegal request: {message}"}
            )
            return
        self.subscribe(ws)
        self.reply(ws, {"event": "subscribe", "arg": request["args"][0]})

    def market_data(self, number: int) -> object:
        ticker = {"instId": "BTC-USDT", "last": f"{number}.5", "ts": str(int(time.time() * 1000))}
        return {"arg": {"channel": "tickers", "instId": "BTC-USDT"}, "data": [ticker]}


class HuobiPublic(Exchange):
    """Market detail after a subscription; every frame is binary, gzip. A client that leaves two pings
    without their pong is thrown out."""

    place = "api.huobi.pro:443"
    path = "/ws"

    def __init__(self, authority: Authority) -> None:
        self.pongs: list[int] = []
        """The pings that were answered, in order."""
        self.thrown_out = 0
        self._unanswered: dict[ServerConnection, list[int]] = {}
        self._last_ping = 1_492_420_473_027
        super().__init__(authority)

    def encode(self, message: object) -> bytes:
        return gzip.compress(str(super().encode(message)).encode())

    def ping(self) -> int:
        """Ping every client, throw out those that owe two pongs already; the number they must answer."""
        self._last_ping += 5000
        for ws, unanswered in list(self._unanswered.items()):
            if len(unanswered) >= 2:
                self.thrown_out += 1
                ws.close(1000, "ping check expired")
                continue
            unanswered.append(self._last_ping)
            with contextlib.suppress(ConnectionClosed):
                self.reply(ws, {"ping": self._last_ping})
        return self._last_ping

    def wait_pong(self, number: int, timeout: float = 20.0) -> None:
        self._wait(lambda: number in self.pongs, f"pong {number}", timeout)

    def opened(self, ws: ServerConnection) -> None:
        self._unanswered[ws] = []

    def closed(self, ws: ServerConnection) -> None:
        self._unanswered.pop(ws, None)
        super().closed(ws)

    def answer(self, ws: ServerConnection, message: str) -> None:
        request = _json(message)
        if "pong" in request:
            self._take_pong(ws, request["pong"])
        elif "sub" in request:
            self.subscribe(ws)
            names = {"id": request.get("id"), "subbed": request["sub"]}
            self.reply(ws, {**names, "status": "ok", "ts": int(time.time() * 1000)})
        else:
            self.reply(ws, {"status": "error", "err-code": "bad-request", "err-msg": message})

    def market_data(self, number: int) -> object:
        detail = {"id": number, "close": number + 0.5, "open": 90.5}
        return {"ch": "market.btcusdt.detail", "ts": int(time.time() * 1000), "tick": detail}

    def _take_pong(self, ws: ServerConnection, number: int) -> None:
        if number in self._unanswered.get(ws, ()):
            self._unanswered[ws].remove(number)
            self._turn(self.pongs.append, number)


class OkxPrivate(Exchange):
    """Positions after a login with a right signature; text frames, not compressed."""

    place = "ws.okx.com:8443"
    path = "/ws/v5/private"

    def __init__(self, authority: Authority, accounts: Mapping[str, tuple[str, str]]) -> None:
        self._accounts = accounts
        """Access key: (secret key, passphrase)."""
        self._logged_in: set[ServerConnection] = set()
        self.logins = 0
        super().__init__(authority)

    def wait_logins(self, count: int, timeout: float = 20.0) -> None:
        self._wait(lambda: self.logins >= count, f"{count} logins", timeout)

    def closed(self, ws: ServerConnection) -> None:
        self._logged_in.discard(ws)
        super().closed(ws)

    def answer(self, ws: ServerConnection, message: str) -> None:
        request = _json(message)
        if message == "ping":
            self.reply(ws, "pong")
        elif request.get("op") == "login":
            self._login(ws, request["args"][0])
        elif request.get("op") == "subscribe" and ws in self._logged_in:
            self.subscribe(ws)
            self.reply(ws, {"event": "subscribe", "arg": request["args"][0]})
        elif request.get("op") == "subscribe":
            self.reply(ws, {"event": "error", "code": "60011", "msg": "Please log in"})
        else:
            self.reply(
                ws, {"event": "error", "code": "60012", "msg": f"Illegal request: {message}"}
            )

    def market_data(self, number: int) -> object:
        position = {"instId": "BTC-USDT-SWAP", "posId": str(number), "pos": "1"}
        return {"arg": {"channel": "positions", "instType": "ANY"}, "data": [position]}

    def _login(self, ws: ServerConnection, given: Mapping[str, str]) -> None:
        problem = self._problem(given)
        if problem is None:
            self._logged_in.add(ws)
            self._turn(lambda _: setattr(self, "logins", self.logins + 1), None)
            self.reply(ws, {"event": "login", "code": "0", "msg": ""})
        else:
            code, text = problem
            self.reply(ws, {"event": "error", "code": code, "msg": text})

    def _problem(self, given: Mapping[str, str]) -> tuple[str, str] | None:
        """Why a login is refused, None when it is right."""
        if given["apiKey"] not in self._accounts:
            return "60005", "Invalid apiKey"
        secret, passphrase = self._accounts[given["apiKey"]]
        if abs(time.time() - float(given["timestamp"])) > 30:
            return "60006", "Timestamp request expired"
        text = f"{given['timestamp']}GET/users/self/verify".encode()
        right = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(right, given["sign"]):
            return "60007", "Invalid sign"
        return None if given["passphrase"] == passphrase else ("60024", "Wrong passphrase")


class WebPage(SocketServer):
    """An HTTPS server that answers any request with one page and closes."""

    place = "www.baidu.com:443"
    body = "<html>it works: 百度</html>"

    def __init__(self, authority: Authority) -> None:
        self.requests: list[bytes] = []
        self._served = threading.Lock()
        super().__init__(self._answer, tls=authority.context(self.place.partition(":")[0]))

    def __enter__(self) -> Self:
        return self

    def _answer(self, peer: Peer) -> None:
        # The example ends its lines with \n alone, as lenient servers accept.
        while b"\n\n" not in peer.received and b"\r\n\r\n" not in peer.received:
            if not peer.read():
                return
        with self._served:
            self.requests.append(peer.received)
        body = self.body.encode()
        peer.send(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )


def environment(authority: Authority, *servers: Exchange | WebPage) -> dict[str, str]:
    """This process's environment, changed so that a program started with it finds the servers under their
    places and trusts their certificates; nothing else of the world exists for it."""
    names = {server.place: server.port for server in servers}
    paths = [str(_NAMES_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {
        "PYTHONPATH": os.pathsep.join(paths),
        "SSL_CERT_FILE": str(authority.file),
        "TRUNKLINE_TEST_NAMES": json.dumps(names),
    }
    return {**os.environ, **changed}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
