"""Who is there: the connections, their holders and workers, and the client processes."""

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
    """A process that dials; known by the routing id of its control socket."""

    id: bytes
    pid: int
    watch: Watch
    heard: float = 0.0
    """When it last said something."""
    look_at: float = 0.0
    """When to look next whether its socket is still there, while it says nothing."""
    cut_since: float | None = None
    """Since when its socket is not there any more."""


@dataclass(slots=True)
class Opening:
    """A Dial that has not been answered yet."""

    holder: bytes
    control: bytes
    request_id: int
    deadline: float
    former_name: bytes = b""
    """What its object was called in the connection that was lost with the broker before this one."""


@dataclass(slots=True)
class Connection:
    """One dialled connection as the broker sees it: an address that is opaque to it, and its people."""

    id: bytes
    number: int
    spec: dict[str, Any]
    """What its workers are started with; holds secrets, never shown."""
    restart: bool
    linger_s: float
    handle: int | None = None
    """Set once `fd()` was called: the connection then outlives its last holder."""
    holders: dict[bytes, bytes] = field(default_factory=dict)
    """Stream socket -> control socket of its process."""
    changes: HolderChanges = field(default_factory=HolderChanges)
    users: set[bytes] = field(default_factory=set)
    """Control sockets of all processes that ever held it and still live."""
    expected: list[int] = field(default_factory=list)
    """Processes that used it under the broker before this one: they may come back."""
    ghosts: set[bytes] = field(default_factory=set)
    """Holders its worker knows from the broker before this one, that have not come back (yet)."""
    opening: Opening | None = None
    joining: list[Opening] = field(default_factory=list)
    """Dials of the same name (see `joins`) that wait for the first one."""
    former_incarnation: InitVar[int] = 0
    """The number of the worker that it had under the broker before this one; 0 for none."""
    life: Life = field(init=False)
    """Its phase, its state, and what is to happen next."""
    worker: bytes | None = None
    """Routing id of the present worker; None while there is none."""
    watch: Watch | None = None
    pid: int = 0
    heard: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)
    """Its figures, as its worker or the ledger of a crashed one has told them last."""
    bequest: dict[str, Any] = field(default_factory=dict)
    """What the next worker is to know, as the present one says: nothing to us."""
    had: dict[bytes, int] = field(default_factory=dict)
    """Messages that each holder was given by the workers that have crashed, where that is known."""
    former: bytes = b""
    """The id of the connection whose place it takes, which was lost with the broker before this one; b"" for
    none. Its first link may take its time."""
    former_names: dict[bytes, bytes] = field(default_factory=dict)
    """Holder -> its name under the broker before this one, for those that have dialled `former` anew."""
    has_opened: bool = False
    """One of its workers has had a link."""
    inherits: bool = False
    """Its figures go on from those of a worker that was lost with the broker before this one."""
    crashed_at: float | None = None
    """When its worker crashed; None once another one has opened it."""
    adopted_at: float = 0.0
    lonely_since: float | None = None
    inflight: dict[bytes, bytes] = field(default_factory=dict)
    """Request socket -> header of the request its worker has yet to answer."""
    reason: str | None = None
    """Why it ended, for those who still hold it."""

    def __post_init__(self, former_incarnation: int) -> None:
        self.life = Life(self.restart, former_incarnation)

    @property
    def state(self) -> State:
        """The state that users see."""
        return self.life.state

    def figures(self) -> dict[str, Any]:
        """Its figures with the present state, as they are told to holders and to the next worker."""
        return {**self.stats, "state": self.state.value}

    @property
    def closing(self) -> float | None:
        """When the worker is killed if it has not ended by then; None while the connection is wanted."""
        return self.life.closing_at

    @property
    def incarnation(self) -> int:
        """The number of its last worker; 0 before the first."""
        return self.life.incarnation

    def had_by_former_names(self) -> dict[bytes, int]:
        """`had`, by the names that the holders had under the broker before this one. An object that dials
        once more says that name, whatever its last attempt was called."""
        return {self.former_names.get(holder, holder): count for holder, count in self.had.items()}

    @property
    def joins(self) -> list[str]:
        """A name by which another Dial finds this connection instead of opening one of its own, and what it
        was dialled with; both "" where each Dial has its own. A database in memory has such a name."""
        return self.spec.get("joins") or ["", ""]

    @property
    def serving(self) -> int:
        """The incarnation of the worker that serves the holders; of the next one while there is none."""
        return self.incarnation + (self.worker is None)

    def listeners(self) -> set[bytes]:
        """The control sockets of the programs that are told news: of its holders, or else of its users."""
        return set(self.holders.values()) or set(self.users)

    def note_news(self, stats: Any, now: float) -> None:
        """Its worker has reported at `now`. `stats`: the figures, and among them `bequest`. ValueError where
        they are no figures."""
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
        """The Dials that have not been answered yet, the first of them first."""
        return [*([] if self.opening is None else [self.opening]), *self.joining]

    def record(self) -> dict[str, Any]:
        """What a new broker has to know. Kept by the worker."""
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
        """It has a handle, and a process that used it lives: it stays for a while without a holder."""
        return self.handle is not None and bool(self.users)

    def has_future(self) -> bool:
        """Whether a worker is starting, or will be."""
        return self.closing is None and (
            self.life.restart_at is not None or self.worker is not None
        )

    def shown(self) -> dict[str, Any]:
        """The row of `trunkline ps`; no secret."""
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
    """All connections and clients, by every name they go by."""

    def __init__(self) -> None:
        self.connections: dict[bytes, Connection] = {}
        self.by_worker: dict[bytes, Connection] = {}
        self.by_handle: dict[int, Connection] = {}
        self.clients: dict[bytes, Client] = {}
        self._number = 0
        self._ended: dict[bytes | int, str] = {}
        """Why the connections that ended last did, by id and by handle: their holders may ask later."""

    def new_id(self) -> bytes:
        return secrets.token_bytes(CONNECTION_ID_BYTES)

    def number_from(self, last: int) -> None:
        """Give no number again that the broker before this one has given."""
        self._number = max(self._number, last)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def add(self, connection: Connection) -> None:
        self.connections[connection.id] = connection
        self._number = max(self._number, connection.number)
        if connection.handle is not None:
            self.by_handle[connection.handle] = connection

    def name(self, connection: Connection) -> int:
        """The connection's handle; made at the first call. Cannot be guessed: 62 random bits."""
        if connection.handle is None:
            connection.handle = secrets.randbits(62) | (1 << 62)
            self.by_handle[connection.handle] = connection
        return connection.handle

    def remove(self, connection: Connection) -> None:
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
        """`: REASON` of a connection that ended lately, by its id or handle; else ""."""
        reason = self._ended.get(name)
        return f": {reason}" if reason else ""

    def set_worker(self, connection: Connection, worker: bytes | None) -> None:
        if connection.worker is not None:
            self.by_worker.pop(connection.worker, None)
        connection.worker = worker
        if worker is not None:
            self.by_worker[worker] = connection

    def joinable(self, name: str) -> Connection | None:
        """The connection that a Dial of this name joins."""
        found = (c for c in self.connections.values() if c.joins[0] == name and c.closing is None)
        return next((c for c in found if c.state is not State.FAILED), None) if name else None

    def heir_of(self, former: bytes) -> Connection | None:
        """The connection that has taken the place of one that was lost with its broker."""
        found = self._heirs_of(former)
        return next((c for c in found if c.closing is None and c.state is not State.FAILED), None)

    def is_heir_ending(self, former: bytes) -> bool:
        """Whether such a connection is about to end, so that its last figures are yet to come."""
        return any(c.closing is not None and c.has_opened for c in self._heirs_of(former))

    def _heirs_of(self, former: bytes) -> list[Connection]:
        return [c for c in self.connections.values() if former and c.former == former]

    def held_by(self, holder: bytes) -> Connection | None:
        """The connection that this object holds, or held under the broker before this one."""
        return next((c for c in self if holder in c.holders or holder in c.ghosts), None)

    def user_pids(self, connection: Connection) -> list[int]:
        """The living processes that use a connection. Its worker keeps them, to know which ones to wait for
        where the broker is killed."""
        known = self.clients
        return sorted({known[control].pid for control in connection.users if control in known})

    def by_number(self, number: str) -> Connection | None:
        return next((c for c in self.connections.values() if str(c.number) == number), None)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.connections.values()))
