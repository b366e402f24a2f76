"""redis and rediss keep the contract of streams on a real server: channels, streams, consumer groups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.redis import Redis
from tests.support.certs import Certs
from tests.support.redis_side import RedisSide
from trunkline.testing.contracts import ProxiedPeer, ScriptedPeer, StreamContract, closing
from trunkline.testing.faultproxy import FaultProxy


class ChannelPeer(ProxiedPeer):
    """What is read is another channel than what is written, so that nobody reads what he wrote himself."""

    def __init__(self, server: Redis, *, certs: Certs | None = None) -> None:
        name = server.unique("peer")
        self._read, self._written = f"{name}.read", f"{name}.written"
        self.proxy = FaultProxy(server.ports["tls"] if certs else server.port)
        self._side = RedisSide(server.port)
        self._side.watch(self._written)
        scheme = "rediss" if certs else "redis"
        self.address = (
            f"{scheme}://{self.proxy.address}?channel={self._read}&write_channel={self._written}"
        )
        self.options = {"reconnect": False, **({"cafile": str(certs.ca)} if certs else {})}

    def send(self, data: str | bytes) -> None:
        self._side.publish(self._read, data)

    def received(self) -> bytes:
        return b"".join(self._side.seen[self._written])

    def wait_links(self, count: int) -> None:
        """A link is two connections: one that reads, and one for everything else."""
        super().wait_links(2 * count)

    def close(self) -> None:
        self.proxy.stop()
        self._side.close()


class StreamPeer(ChannelPeer):
    """The same with streams."""

    def __init__(self, server: Redis, *, group: bool) -> None:
        super().__init__(server)
        where = f"stream={self._read}&write_stream={self._written}" + ("&group=g" if group else "")
        self.address = f"redis://{self.proxy.address}/0?{where}"

    def send(self, data: str | bytes) -> None:
        self._side.add(self._read, data)

    def received(self) -> bytes:
        return b"".join(fields[b"data"] for _, fields in self._side.entries(self._written))


class TestRedisChannels(StreamContract):
    @pytest.fixture
    def peer(self, redis_server: Redis) -> Iterator[ScriptedPeer]:
        yield from closing(ChannelPeer(redis_server))


class TestRedissChannels(StreamContract):
    @pytest.fixture
    def peer(self, redis_server: Redis, certs: Certs) -> Iterator[ScriptedPeer]:
        yield from closing(ChannelPeer(redis_server, certs=certs))


class TestRedisStream(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, redis_server: Redis) -> Iterator[ScriptedPeer]:
        yield from closing(StreamPeer(redis_server, group=False))


class TestRedisGroup(StreamContract):
    drops_oldest = False

    @pytest.fixture
    def peer(self, redis_server: Redis) -> Iterator[ScriptedPeer]:
        yield from closing(StreamPeer(redis_server, group=True))
