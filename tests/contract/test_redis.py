"""redis and rediss keep the contract of streams on a real server: channels, streams, consumer groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.contract.peers import ProxiedPeer, ScriptedPeer
from tests.contract.stream_contract import StreamContract, closing
from tests.servers.redis import Redis
from tests.support.certs import Certs
from tests.support.redis_side import RedisSide
from trunkline.actors.driver import Overflow
from trunkline.testing.faultproxy import FaultProxy


class ChannelPeer(ProxiedPeer):
    """What is read is another channel than what is written, so that nobody reads what he wrote himself."""

    def __init__(self, server: Redis, *, certs: Certs | None = None) -> None:
        name = server.unique("peer")
        self._read, self._written = f"{name}.read", f"{name}.written"
        self._proxy = FaultProxy(server.ports["tls"] if certs else server.port)
        self._side = RedisSide(server.port)
        self._side.watch(self._written)
        scheme = "rediss" if certs else "redis"
        self.address = f"{scheme}://{self._proxy.address}?channel={self._read}&write_channel={self._written}"
        self.options = {"reconnect": False, **({"cafile": str(certs.ca)} if certs else {})}

    def send(self, data: str | bytes) -> None:
        self._side.publish(self._read, data)

    def received(self) -> bytes:
        return b"".join(self._side.seen[self._written])

    def wait_links(self, count: int) -> None:
        """A link is two connections: one that reads, and one for everything else."""
        super().wait_links(2 * count)

    def close(self) -> None:
        self._proxy.stop()
        self._side.close()


class StreamPeer(ChannelPeer):
    """The same with streams."""

    def __init__(self, server: Redis, *, group: bool) -> None:
        super().__init__(server)
        where = f"stream={self._read}&write_stream={self._written}" + ("&group=g" if group else "")
        self.address = f"redis://{self._proxy.address}/0?{where}"

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
    overflow: ClassVar[Overflow] = Overflow.BACK_PRESSURE

    @pytest.fixture
    def peer(self, redis_server: Redis) -> Iterator[ScriptedPeer]:
        yield from closing(StreamPeer(redis_server, group=False))


class TestRedisGroup(StreamContract):
    overflow: ClassVar[Overflow] = Overflow.BACK_PRESSURE

    @pytest.fixture
    def peer(self, redis_server: Redis) -> Iterator[ScriptedPeer]:
        yield from closing(StreamPeer(redis_server, group=True))
