"""tcp, tls, unix and udp keep the contract of streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.peers import SocketPeer, UdpPeer, UnixPeer
from tests.support.certs import Certs
from trunkline.testing.contracts import ScriptedPeer, StreamContract, closing


class _Bytes(StreamContract):
    lost = None
    drops_oldest = False
    byte_stream = True


class TestTcp(_Bytes):
    @pytest.fixture
    def peer(self) -> Iterator[ScriptedPeer]:
        yield from closing(SocketPeer())


class TestTls(_Bytes):
    @pytest.fixture
    def peer(self, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(SocketPeer(certs))


class TestUnix(_Bytes):
    @pytest.fixture
    def peer(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedPeer]:
        yield from closing(UnixPeer(Path(tmp_path_factory.mktemp("u"))))


class TestUdp(StreamContract):
    lost = None
    links = False

    @pytest.fixture
    def peer(self) -> Iterator[ScriptedPeer]:
        yield from closing(UdpPeer())
