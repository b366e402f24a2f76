"""ws and wss keep the contract of streams, with either engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.peers import WebSocketPeer
from tests.support.certs import Certs
from trunkline.testing.contracts import ScriptedPeer, StreamContract, closing


class TestWs(StreamContract):
    @pytest.fixture
    def peer(self) -> Iterator[ScriptedPeer]:
        yield from closing(WebSocketPeer())


class TestWss(StreamContract):
    @pytest.fixture
    def peer(self, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(WebSocketPeer(certs))


@pytest.mark.own_broker  # workers are forked by the broker and have its environment
class TestWsWithWebsocketClient(TestWs):
    @pytest.fixture(autouse=True)
    def _engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_WS_ENGINE", "websocket-client")


@pytest.mark.own_broker
class TestWssWithWebsocketClient(TestWss):
    @pytest.fixture(autouse=True)
    def _engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNKLINE_WS_ENGINE", "websocket-client")
