"""What the broker asks of the thing that starts its workers.

The zygote is the spawner of every real broker (see `trunkline.broker.zygote`). Another engine has to offer
these methods and nothing else; the router knows no more than they say.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

__all__ = ["Ended", "Refused", "Spawner", "SpawnerEvent", "Started"]


class Started(NamedTuple):
    """A worker process runs. It has yet to register at the router."""

    key: str
    """The key of the order that asked for the worker."""
    pid: int


class Refused(NamedTuple):
    """No process could be made for an order."""

    key: str
    """The key of the order that asked for the worker."""
    why: str
    """The reason, as text that goes into the error that users see."""


class Ended(NamedTuple):
    """A worker process of this spawner has ended."""

    pid: int
    status: int
    """Its exit status; the negative number of the signal that killed it."""


SpawnerEvent = Started | Refused | Ended


class Spawner(Protocol):
    """A process that starts workers and sees them end. All methods are called from the router's thread."""

    pid: int
    """The process id of the spawner; another one after `restart`."""

    def fileno(self) -> int:
        """A file descriptor that becomes readable when `events` has something to tell. It may be another one
        after `restart`."""

    def start(self, key: str, spec: dict[str, Any]) -> None:
        """Order a worker. `Started` or `Refused` with the same `key` follows, unless the spawner ends before.
        `spec`: what the worker is started with; it may hold secrets. Raises nothing when the spawner is
        gone: `events` tells that."""

    def events(self) -> list[SpawnerEvent] | None:
        """The events since the last call, oldest first, without waiting; None when the spawner is gone."""

    def restart(self) -> None:
        """Start another spawner in place of one that is gone. Workers of the former one go on, but their ends
        are not told any more, and its unanswered orders are lost."""

    def has_ended(self, pid: int) -> None:
        """Take note that the broker has reaped a child process of this id, perhaps the spawner itself."""

    def kill(self) -> None:
        """End the spawner at once, workers excepted; `events` returns None afterwards."""

    def close(self, *, stays: bool = False) -> None:
        """Release all resources. `stays`: the spawner process is left to end by itself, because it has yet to
        look after the folder that the broker leaves to programs that start the next broker."""
