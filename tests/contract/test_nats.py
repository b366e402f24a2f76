"""nats, tls+nats and JetStream keep the contract of streams, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers.nats import Nats
from tests.support.certs import Certs
from tests.support.nats_side import NatsSide
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing
from trunkline.testing.faultproxy import FaultProxy

Start = Callable[..., Nats]


class NatsPeer(ProxiedPeer):
    """What is read is another subject than what is written, so that nobody reads what he wrote himself."""

    def __init__(self, server: Nats, *, certs: Certs | None = None) -> None:
        name = server.unique("peer")
        self._read, self._written = f"{name}.read", f"{name}.written"
        self.proxy = FaultProxy(server.port)
        login = {"tls": certs.client_context()} if certs else {}
        self._side = NatsSide(f"nats://localhost:{server.port}", **login)
        scheme = "tls+nats" if certs else "nats"
        self.address = (
            f"{scheme}://{self.proxy.address}?topic={self._read}&write_topic={self._written}"
        )
        self.options = {"reconnect": False, **({"cafile": str(certs.ca)} if certs else {})}
        self._side.watch(self._written)

    def send(self, data: str | bytes) -> None:
        self._side.publish(self._read, data)

    def received(self) -> bytes:
        return b"".join(self._side.seen[self._written])

    def close(self) -> None:
        self.proxy.stop()
        self._side.close()


class JetStreamPeer(NatsPeer):
    """The same subjects in a stream of their own."""

    def __init__(self, server: Nats, *, durable: bool) -> None:
        super().__init__(server)
        self._stream = server.unique("S")
        self._side.stream(self._stream, self._read, self._written)
        self.options |= {"stream": self._stream} | ({"durable": "reader"} if durable else {})

    def send(self, data: str | bytes) -> None:
        self._side.store(self._read, data)

    def close(self) -> None:
        self._side.delete_stream(self._stream)
        super().close()


class TestNats(StreamContract):
    @pytest.fixture
    def peer(self, nats_server: Nats) -> Iterator[ScriptedPeer]:
        yield from closing(NatsPeer(nats_server))


class TestTlsNats(StreamContract):
    @pytest.fixture
    def peer(self, start_nats: Start, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(NatsPeer(start_nats(tls=True), certs=certs))


class TestJetStream(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, jetstream: Nats) -> Iterator[ScriptedPeer]:
        yield from closing(JetStreamPeer(jetstream, durable=True))


class TestJetStreamWithoutDurable(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, jetstream: Nats) -> Iterator[ScriptedPeer]:
        yield from closing(JetStreamPeer(jetstream, durable=False))
