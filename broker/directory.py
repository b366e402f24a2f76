"""The broker's tables: the connections, their holders and workers, and the client processes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any

from trunkline.broker.changes import HolderChanges
from trunkline.broker.lifecycle import Life
from trunkline.broker.process import Watch
from trunkline.wire.envelope import CONNECTION_ID_BYTES
from trunkline.wire.state import State

__all__ = ["Client", "Connection", "Directory", "Opening"]

ENDED_KEPT = 1024


@dataclass(slots=True)
class Client:
    """A process that uses Trunkline, known by the routing id of its control socket."""

    id: bytes
    pid: int
    watch: Watch
    heard: float = 0.0
    """When the client last sent a message, in monotonic seconds."""
    look_at: float = 0.0
    """When the broker next tests the socket of a silent client."""
    cut_since: float | None = None
    """When the broker first found the client's socket gone; None while the socket is there."""


@dataclass(slots=True)
class Opening:
    """A Dial that has not been answered yet."""

    holder: bytes
    control: bytes
    request_id: int
    deadline: float
    former_name: bytes = b""
    """The name of the Dial's object in the connection that was lost with the previous broker."""


@dataclass(slots=True)
class Connection:
    """A dialled connection as the broker sees it: an opaque address, holders and users."""

    id: bytes
    number: int
    spec: dict[str, Any]
    """The arguments of the workers. They hold secrets and are never shown."""
    restart: bool
    linger_s: float
    handle: int | None = None
    """Set once `fd()` was called: the connection then outlives its last holder."""
    holders: dict[bytes, bytes] = field(default_factory=dict)
    """Stream socket -> control socket of its process."""
    changes: HolderChanges = field(default_factory=HolderChanges)
    users: set[bytes] = field(default_factory=set)
    """Control sockets of the living processes that have ever held the connection."""
    expected: list[int] = field(default_factory=list)
    """Process ids of programs that used the connection under the previous broker. They may
    return."""
    ghosts: set[bytes] = field(default_factory=set)
    """Holders known to the worker from the previous broker, and not attached again yet."""
    opening: Opening | None = None
    joining: list[Opening] = field(default_factory=list)
    """Dials of the same name (see `joins`) that wait for the first Dial."""
    former_incarnation: InitVar[int] = 0
    """The number of the connection's worker under the previous broker; 0 for none."""
    life: Life = field(init=False)
    """The phase and the state of the connection, and the rules for the next phase."""
    worker: bytes | None = None
    """Routing id of the present worker; None while no worker runs."""
    watch: Watch | None = None
    pid: int = 0
    heard: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)
    """The figures that the worker, or the ledger of a crashed worker, has told last."""
    bequest: dict[str, Any] = field(default_factory=dict)
    """Values from the worker for its successor. The broker does not interpret them."""
    had: dict[bytes, int] = field(default_factory=dict)
    """The number of messages given to each holder by crashed workers, where known."""
    former: bytes = b""
    """The id of the lost connection that this connection replaces; b"" for none.

    The former connection was lost with the previous broker. The first link of the replacement may
    take long.
    """
    former_names: dict[bytes, bytes] = field(default_factory=dict)
    """Holder -> former name, for the holders that have dialled `former` anew."""
    has_opened: bool = False
    """A worker of this connection has had a link."""
    inherits: bool = False
    """The figures continue those of a worker that was lost with the previous broker."""
    crashed_at: float | None = None
    """When the worker crashed; None once another worker has opened the connection."""
    adopted_at: float = 0.0
    lonely_since: float | None = None
    inflight: dict[bytes, bytes] = field(default_factory=dict)
    """Request socket -> header of a request that the worker has yet to answer."""
    reason: str | None = None
    """Why the connection ended, for its remaining holders."""

    def __post_init__(self, former_incarnation: int) -> None:
        self.life = Life(self.restart, former_incarnation)

    @property
    def state(self) -> State:
        """The state that users see."""
        return self.life.state

    def figures(self) -> dict[str, Any]:
        """The figures with the present state, as holders and the next worker get them."""
        return {**self.stats, "state": self.state.value}

    @property
    def closing(self) -> float | None:
        """When a worker that has not ended is killed; None while the connection is wanted."""
        return self.life.closing_at

    @property
    def incarnation(self) -> int:
        """The number of the last worker; 0 before the first."""
        return self.life.incarnation

    def had_by_former_names(self) -> dict[bytes, int]:
        """Return `had` by the names of the holders under the previous broker.

        An object that dials again says the name of that time, never a name from a failed attempt.
        """
        return {self.former_names.get(holder, holder): count for holder, count in self.had.items()}

    @property
    def joins(self) -> list[str]:
        """The name by which further Dials find this connection, and the parameters of the first
        Dial.

        A database in memory has a name. Otherwise both texts are "", and each Dial opens a
        connection.
        """
        return self.spec.get("joins") or ["", ""]

    @property
    def serving(self) -> int:
        """The incarnation of the present worker, or of the next one while no worker runs."""
        return self.incarnation + (self.worker is None)

    def listeners(self) -> set[bytes]:
        """Control sockets of the programs that hear news: of holders, or without holders, of
        users."""
        return set(self.holders.values()) or set(self.users)

    def note_news(self, stats: Any, now: float) -> None:
        """Take in the figures that the worker has reported at `now`.

        `stats`: the figures, and among them `bequest`. Raises ValueError where `stats` is no dict.
        """
        if not isinstance(stats, dict):
            raise ValueError("no figures")
        self.heard = now
        bequest = stats.pop("bequest", None)
        if isinstance(bequest, dict):
            self.bequest = bequest
        self.stats = stats
        if (reported := stats.get("state")) in list(State):
            self.life.note_report(State(reported))

    def all_opening(self) -> list[Opening]:
        """The Dials that have not been answered yet, oldest first."""
        return [*([] if self.opening is None else [self.opening]), *self.joining]

    def record(self) -> dict[str, Any]:
        """The facts for a new broker. The worker keeps them."""
        return {
            "id": self.id,
            "number": self.number,
            "spec": self.spec,
            "restart": self.restart,
            "linger_s": self.linger_s,
            "handle": self.handle,
            "former": self.former,
        }

    @property
    def kept(self) -> bool:
        """Whether the connection may stay without a holder: it has a handle and a living user."""
        return self.handle is not None and bool(self.users)

    def has_future(self) -> bool:
        """Whether a worker runs, is starting, or will be started."""
        return self.closing is None and (
            self.life.restart_at is not None or self.worker is not None
        )

    def shown(self) -> dict[str, Any]:
        """The row of `trunkline ps`, without secrets."""
        return {
            **self.stats,
            "id": str(self.number),
            "pid": self.pid,
            "incarnation": self.incarnation,
            "state": self.state.value,
            "holders": len(self.holders),
            "shared": self.handle is not None,
            "crashes": self.life.crashes.total,
            "responsive": time.monotonic() - self.heard < 3.5 if self.worker else True,
            "reason": self.reason,
        }


class Directory:
    """The connections and clients, by each of their names."""

    def __init__(self) -> None:
        self.connections: dict[bytes, Connection] = {}
        self.by_worker: dict[bytes, Connection] = {}
        self.by_handle: dict[int, Connection] = {}
        self.clients: dict[bytes, Client] = {}
        self._number = 0
        self._ended: dict[bytes | int, str] = {}
        """Why recent connections ended, by id and by handle: their holders may ask later."""

    def new_id(self) -> bytes:
        return secrets.token_bytes(CONNECTION_ID_BYTES)

    def number_from(self, last: int) -> None:
        """Begin numbers behind `last`: no number of the previous broker is given again."""
        self._number = max(self._number, last)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def add(self, connection: Connection) -> None:
        """Add a connection under its id and its handle."""
        self.connections[connection.id] = connection
        self._number = max(self._number, connection.number)
        if connection.handle is not None:
            self.by_handle[connection.handle] = connection

    def name(self, connection: Connection) -> int:
        """Return the connection's handle, made at the first call: 62 random bits, not to be
        guessed."""
        if connection.handle is None:
            connection.handle = secrets.randbits(62) | (1 << 62)
            self.by_handle[connection.handle] = connection
        return connection.handle

    def remove(self, connection: Connection) -> None:
        """Remove a connection from all tables, and remember why it ended."""
        self.connections.pop(connection.id, None)
        if connection.handle is not None:
            self.by_handle.pop(connection.handle, None)
        if connection.reason:
            for name in (connection.id, connection.handle):
                if name is not None:
                    self._ended[name] = connection.reason
        while len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        self.set_worker(connection, None)

    def why_ended(self, name: bytes | int) -> str:
        """Return `: REASON` for a recently ended connection, by id or handle; else ""."""
        reason = self._ended.get(name)
        return f": {reason}" if reason else ""

    def set_worker(self, connection: Connection, worker: bytes | None) -> None:
        """Set or remove the present worker of a connection."""
        if connection.worker is not None:
            self.by_worker.pop(connection.worker, None)
        connection.worker = worker
        if worker is not None:
            self.by_worker[worker] = connection

    def joinable(self, name: str) -> Connection | None:
        """The connection for a Dial of this name to join; None where the Dial has to open one."""
        found = (c for c in self.connections.values() if c.joins[0] == name and c.closing is None)
        return next((c for c in found if c.state is not State.FAILED), None) if name else None

    def heir_of(self, former: bytes) -> Connection | None:
        """The living connection in the place of the lost connection `former`; None without one."""
        found = self._heirs_of(former)
        return next((c for c in found if c.closing is None and c.state is not State.FAILED), None)

    def is_heir_ending(self, former: bytes) -> bool:
        """Whether a replacement of `former` is about to end, with its last figures yet to come."""
        return any(c.closing is not None and c.has_opened for c in self._heirs_of(former))

    def _heirs_of(self, former: bytes) -> list[Connection]:
        """All connections that have replaced the lost connection `former`, living or ending."""
        return [c for c in self.connections.values() if former and c.former == former]

    def held_by(self, holder: bytes) -> Connection | None:
        """The connection that this object holds, or held under the previous broker."""
        return next((c for c in self if holder in c.holders or holder in c.ghosts), None)

    def user_pids(self, connection: Connection) -> list[int]:
        """Process ids of the living programs that use a connection.

        The worker keeps the ids. Where the broker is killed, the worker waits while a program of
        these lives.
        """
        known = self.clients
        return sorted({known[control].pid for control in connection.users if control in known})

    def by_number(self, number: str) -> Connection | None:
        """The connection with this number in `trunkline ps`; None without one."""
        return next((c for c in self.connections.values() if str(c.number) == number), None)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.connections.values()))
