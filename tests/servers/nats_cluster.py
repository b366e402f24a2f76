"""Three nats-servers with JetStream that are one cluster, so that a stream has three copies and a leader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import nats
import nats.errors
from nats.js import errors as js_errors

from tests.servers.base import port
from tests.servers.nats import Nats
from tests.servers.run import Run
from trunkline.deadline import Deadline

__all__ = ["NatsCluster", "nats_cluster"]

_READY_S = 60.0
_LOOK_S = 0.1


class NatsCluster:
    """The servers by name: n0, n1, n2."""

    def __init__(self, servers: dict[str, Nats]) -> None:
        self.servers = servers

    def hosts(self, first: str | None = None) -> str:
        """For an address: all servers, the named one first."""
        names = sorted(self.servers, key=lambda name: (name != first, name))
        return ",".join(self.servers[name].address for name in names)

    async def make_stream(self, name: str, subject: str) -> str:
        """A stream with three copies; the name of its leader. Waits until the cluster can."""
        deadline = Deadline(_READY_S)
        while True:
            with contextlib.suppress(nats.errors.Error, js_errors.Error, OSError):
                client = await self.client()
                try:
                    found = await client.jetstream(timeout=2).add_stream(
                        name=name, subjects=[subject], num_replicas=3
                    )
                    if found.cluster and found.cluster.leader:
                        return found.cluster.leader
                finally:
                    await client.close()
            assert not deadline.expired(), f"the cluster makes no stream in {_READY_S:.0f} s"
            await asyncio.sleep(_LOOK_S)

    async def whole(self, stream: str) -> str:
        """Wait until all three copies of the stream are there and current; the name of its leader."""
        deadline = Deadline(_READY_S)
        while True:
            with contextlib.suppress(nats.errors.Error, js_errors.Error, OSError):
                client = await self.client()
                try:
                    cluster = (await client.jsm(timeout=2).stream_info(stream)).cluster
                finally:
                    await client.close()
                copies = (cluster.replicas or []) if cluster else []
                current = [copy for copy in copies if copy.current and not copy.offline]
                if cluster and cluster.leader and len(current) == 2:
                    return cluster.leader
            assert not deadline.expired(), f"the stream is not whole in {_READY_S:.0f} s"
            await asyncio.sleep(_LOOK_S)

    async def client(self, **options: Any) -> nats.NATS:
        """A nats-py client of the servers that run."""
        running = [
            f"nats://{server.address}" for server in self.servers.values() if server.running()
        ]
        return await nats.connect(running, connect_timeout=2, **options)


@contextlib.contextmanager
def nats_cluster(run: Run) -> Iterator[NatsCluster]:
    """The cluster, started; Unavailable where there is no nats-server."""
    Nats.available()
    ports = {f"n{index}": port() for index in range(3)}
    routes = ", ".join(f'"nats-route://127.0.0.1:{each}"' for each in ports.values())
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                run.private(
                    Nats,
                    jetstream=True,
                    config=f"server_name: {name}\n"
                    f'cluster {{ name: C, listen: "127.0.0.1:{own}", routes: [{routes}] }}',
                )
            )
            for name, own in ports.items()
        }
        yield NatsCluster(servers)
