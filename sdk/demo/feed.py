"""The demo's exchange: a market feed that behaves like a real exchange, and keeps a ledger of its
messages.

After a subscription the feed sends binary frames of gzipped JSON. The feed sends `{"ping": ms}` and
demands a `{"pong": ms}` within seconds; it sends protocol pings; it loses links without a closing
handshake. The messages of a link are numbered (`n`). The ticks of the market are numbered (`seq`),
with or without a link.

All private methods run on the server's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from trunkline.demo.certificate import Certificate
from trunkline.demo.ledger import Ledger
from trunkline.demo.wsserver import Peer, WsServer

__all__ = ["SYMBOLS", "Feed"]

PRICES = {
    "BTCUSDT": 64000.0, "ETHUSDT": 3400.0, "SOLUSDT": 150.0, "BNBUSDT": 580.0, "XRPUSDT": 0.52,
    "ADAUSDT": 0.45, "DOGEUSDT": 0.12, "AVAXUSDT": 28.0, "LINKUSDT": 14.0, "DOTUSDT": 6.2, "LTCUSDT": 74.0,
    "TRXUSDT": 0.13,
}  # fmt: skip
SYMBOLS = tuple(PRICES)
RATE = 200
"""Ticks per second of the whole market."""
TURN_S = 0.02
"""Seconds between two turns of the market."""
DYING_S = 0.15
"""Seconds that a dying link swallows messages before it is aborted."""
HEARTBEAT_S = 1.0
"""Seconds between two heartbeats."""
PATIENCE_S = 8.0
"""Seconds without an answer to a heartbeat, after which a client is dropped."""


@dataclass(slots=True, eq=False)
class Session:
    """A subscribed link."""

    peer: Peer
    number: int
    sent: int = 0
    dead: bool = False
    """The link swallows messages, and the client does not know yet."""
    answered: float = field(default_factory=time.monotonic)


class Feed:
    """The exchange, in a thread of its own."""

    def __init__(self, certificate: Certificate | None, seed: int) -> None:
        self.ledger = Ledger()
        self.subscribed = threading.Event()
        """Set when the first client has subscribed."""
        self._random = random.Random(seed)
        self._prices = dict(PRICES)
        self._sessions: set[Session] = set()
        self._over = False
        context = certificate.server_context() if certificate else None
        self.server = WsServer(self._serve_peer, context, self._run_market)

    def drop(self) -> None:
        """Lose every link: it swallows messages first, and is aborted after DYING_S seconds."""
        self.server.call(self._drop_links)

    def finish(self) -> None:
        """Send no more ticks. Present and later clients are told the end."""
        self.server.call(self._finish_feed)

    def _drop_links(self) -> None:
        """Let every link swallow messages, and abort the links later."""
        for session in list(self._sessions):
            session.dead = True
            asyncio.get_running_loop().call_later(DYING_S, self._lose_link, session)

    def _lose_link(self, session: Session) -> None:
        self._sessions.discard(session)
        session.peer.abort()

    def _finish_feed(self) -> None:
        """Tell every client the end.

        `_over` makes later clients hear the end too.
        """
        self._over = True
        for session in list(self._sessions):
            self._send_message(session, {"end": len(self.ledger.ticks)})

    async def _serve_peer(self, peer: Peer) -> None:
        """Take a client's messages until its link ends."""
        session: Session | None = None
        try:
            async for text in peer.messages():
                with contextlib.suppress(ValueError):
                    session = self._hear_message(peer, session, json.loads(text))
        finally:
            self.ledger.protocol_pongs += peer.pongs
            if session is not None:
                self._sessions.discard(session)

    def _hear_message(
        self, peer: Peer, session: Session | None, said: dict[str, Any]
    ) -> Session | None:
        """Take a client's message; returns the link's session, once the client has subscribed."""
        if session is None and said.get("sub") == "tickers":
            session = Session(peer, len(self.ledger.sent) + 1)
            self.ledger.sent[session.number] = 0
            self._sessions.add(session)
            self._send_message(session, {"subbed": "tickers"})
            self.subscribed.set()
            if self._over:
                self._send_message(session, {"end": len(self.ledger.ticks)})
        elif session is not None and "pong" in said:
            self.ledger.pongs += 1
            session.answered = time.monotonic()
        return session

    def _send_message(self, session: Session, content: dict[str, Any]) -> None:
        """Send a message and count it.

        A dead link's messages count as sent: they are lost with the link.
        """
        session.sent += 1
        text = json.dumps({"link": session.number, "n": session.sent, **content})
        if session.dead or session.peer.send(gzip.compress(text.encode(), 1)):
            self.ledger.sent[session.number] = session.sent
        else:
            self._sessions.discard(session)

    async def _run_market(self) -> None:
        """Make ticks and heartbeats until the server ends.

        The first subscription starts the market.
        """
        started, beaten = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(TURN_S)
            now = time.monotonic()
            # Clients stop reading at the end, and an unread message cannot be accounted for.
            if self._over:
                continue
            if now - beaten >= HEARTBEAT_S:
                beaten = now
                self._beat_hearts(now)
            if not self.subscribed.is_set():
                started = now
            else:
                for _ in range(int((now - started) * RATE) - len(self.ledger.ticks)):
                    self._make_tick()

    def _make_tick(self) -> None:
        """Make a tick and send it on every link. Without a link, the tick counts as unheard."""
        symbol = self._random.choice(SYMBOLS)
        price = self._prices[symbol] = self._prices[symbol] * (1 + self._random.gauss(0, 0.0004))
        shown, seq = round(price, 6), len(self.ledger.ticks) + 1
        self.ledger.ticks[seq] = (symbol, shown)
        self.ledger.unheard += not self._sessions
        content = {"seq": seq, "s": symbol, "p": shown, "q": round(self._random.expovariate(1), 4)}
        for session in list(self._sessions):
            self._send_message(session, content)

    def _beat_hearts(self, now: float) -> None:
        """Drop clients that did not answer in time; send a heartbeat and a protocol ping to the
        others."""
        for session in list(self._sessions):
            if now - session.answered > PATIENCE_S:
                self._lose_link(session)
                continue
            self.ledger.heartbeats += 1
            self.ledger.pings += session.peer.ping()
            self._send_message(session, {"ping": int(time.time() * 1000)})
