"""The other side of a Redis connection: what other programs publish, add and see.

with RedisSide(server.port) as side:
    side.watch("answers")             # side.seen["answers"] fills up
    side.publish("prices", "1.0")     # on the server when this returns
    side.add("orders", "buy", side="b")
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from typing import Any

import redis

__all__ = ["RedisSide"]


class RedisSide:
    """A redis-py client, and a thread for what `watch` reads. `client` is for anything else."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.client = redis.Redis(host="127.0.0.1", port=port, protocol=2, **settings)
        self.seen: dict[str, list[bytes]] = defaultdict(list)
        """By channel, what `watch` saw."""
        self._pubsub = self.client.pubsub()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RedisSide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def publish(self, channel: str, *messages: str | bytes) -> None:
        for message in messages:
            self.client.publish(channel, message)

    def add(self, stream: str, *messages: str | bytes, **headers: str | bytes) -> list[str]:
        """Add entries; their ids."""
        return [
            self.client.xadd(stream, {**headers, "data": message}).decode() for message in messages
        ]

    def entries(self, stream: str) -> list[tuple[str, dict[bytes, bytes]]]:
        return [(number.decode(), fields) for number, fields in self.client.xrange(stream)]

    def pending(self, stream: str, group: str) -> int:
        return int(self.client.xpending(stream, group)["pending"])

    def watch(self, channel: str) -> None:
        """The subscription is in force when this returns."""
        self._pubsub.subscribe(channel)
        assert self._pubsub.get_message(timeout=10)
        self._thread = threading.Thread(target=self._read, name="redis-side", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(redis.ConnectionError, OSError, ValueError):
            for message in self._pubsub.listen():
                if message["type"] == "message":
                    self.seen[message["channel"].decode()].append(message["data"])

    def close(self) -> None:
        with contextlib.suppress(redis.ConnectionError, OSError):
            self._pubsub.unsubscribe()  # the end of what `listen` waits for
        if self._thread is not None:
            self._thread.join(10)
        self._pubsub.close()
        self.client.close()
