"""The interface between the broker and a starter of workers.

The zygote is the spawner of every real broker (see `trunkline.broker.zygote`). Another engine has
to offer only these methods; the router relies on nothing else.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

__all__ = ["Ended", "Refused", "Spawner", "SpawnerEvent", "Started"]


class Started(NamedTuple):
    """A worker process runs. It has yet to register with the broker."""

    key: str
    """The key of the order that asked for the worker."""
    pid: int


class Refused(NamedTuple):
    """No process could be made for an order."""

    key: str
    """The key of the order that asked for the worker."""
    why: str
    """The reason, as text for the error that users see."""


class Ended(NamedTuple):
    """A worker process of this spawner has ended."""

    pid: int
    status: int
    """The exit status; the negative number of the signal for a killed worker."""


SpawnerEvent = Started | Refused | Ended


class Spawner(Protocol):
    """A process for starting workers and noticing their ends. The router's thread calls the
    methods."""

    pid: int
    """The process id of the spawner; a new id after `restart`."""

    def fileno(self) -> int:
        """A file descriptor that becomes readable when `events` has something to tell.

        After `restart` it may be another descriptor.
        """

    def start(self, key: str, spec: dict[str, Any]) -> None:
        """Order a worker. `spec`: its arguments, which may hold secrets.

        `Started` or `Refused` with the same `key` follows, unless the spawner ends before. Raises
        no error when the spawner is gone: `events` tells that.
        """

    def events(self) -> list[SpawnerEvent] | None:
        """Return the events since the last call, oldest first, without waiting.

        Returns None when the spawner is gone.
        """

    def restart(self) -> None:
        """Start another spawner in place of a lost one.

        Workers of the former spawner go on, but their ends are not told any more. Unanswered orders
        are lost.
        """

    def has_ended(self, pid: int) -> None:
        """Note that the broker has reaped a child of this id, perhaps the spawner itself."""

    def kill(self) -> None:
        """Kill the spawner, but not its workers. Afterwards `events` returns None."""

    def close(self, *, stays: bool = False) -> None:
        """Release all resources.

        `stays`: the spawner process ends by itself, because it still has to look after the folder
        for the programs about to start the next broker.
        """
