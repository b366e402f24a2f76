"""Finding all brokers of this user, whatever runtime folder they live in, and workers whose broker
is dead.

A service without XDG_RUNTIME_DIR and a login shell with it use different runtime folders, so one
folder is never the whole picture. Brokers are looked for where any environment of this user would
put them, and among the unix sockets that this user's processes serve. A find counts only when its
folder is private to this user, its lock is held, and a process of this user serves the socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import BrokerGone
from trunkline.proxy.processes import Process, find_served_sockets, list_own_processes, peer_of
from trunkline.wire import endpoint

__all__ = ["Found", "Scope", "find_brokers", "find_left_over_workers", "find_stale_folders"]

_BROKER_SOCKET = re.compile(re.escape(endpoint.SOCKET))
_DOOR = re.compile(r"w-[0-9a-f]+")
_FIGURES = re.compile(r"f-[0-9a-f]+")
_WORKER = "trunk-"
CONFIRM_S = 3.0
"""How long a worker must be seen without a broker before it is called left over: clients of a
broker that was killed start another one within a second or two, and a worker that ends takes a
moment."""
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Scope:
    """The brokers that the environment names: the one of TRUNKLINE_BROKER and those in the folder
    of TRUNKLINE_RUNTIME; all of this user's where neither variable is set."""

    broker: str | None
    folder: Path | None

    @classmethod
    def of_environment(cls) -> Scope:
        given = os.environ.get(endpoint.ROOT_ENV)
        return cls(os.environ.get(endpoint.ENV) or None, Path(given).absolute() if given else None)

    def variables(self) -> list[str]:
        """The variables that are set."""
        return [endpoint.ENV] * (self.broker is not None) + [endpoint.ROOT_ENV] * (
            self.folder is not None
        )

    def holds(self, address: str) -> bool:
        """Whether a broker is one of those that the environment names."""
        if not self.variables():
            return True
        folder = Path(address.removeprefix("ipc://")).parent
        if self.broker is not None and _is_same(
            folder, Path(self.broker.removeprefix("ipc://")).parent
        ):
            return True
        return self.folder is not None and _is_same(folder.parent, self.folder)


@dataclass(frozen=True, slots=True)
class Found:
    """A living broker. `pid` is the process that serves its socket: 0 where the system does not
    tell, None when it could not be reached now (its queue is full)."""

    address: str
    pid: int | None


def find_brokers() -> tuple[list[Found], list[str]]:
    """All living brokers of this user, those first that the environment names, and a sentence for
    each place that is named or looks like a broker's and cannot be used."""
    found: dict[tuple[int, int], Found] = {}
    troubles: list[str] = []
    named = os.environ.get(endpoint.ENV)
    for address in _candidates(named):
        try:
            folder = endpoint.folder_of(address)
            if endpoint.alive(address):
                info = folder.stat()
                if (info.st_dev, info.st_ino) not in found:
                    found[info.st_dev, info.st_ino] = _checked(address, folder)
            elif address == named:
                troubles.append(f"no broker runs at {address} ({endpoint.ENV})")
        except BrokerGone as error:
            if address == named or _is_own(address):
                troubles.append(str(error))
        except FileNotFoundError:  # it ended between two looks
            continue
    scope = Scope.of_environment()
    return sorted(found.values(), key=lambda each: not scope.holds(each.address)), troubles


def _candidates(named: str | None) -> Iterator[str]:
    """Every address where a broker of this user may be: the one that is named, those in known
    folders (the oldest first), those that processes of this user serve."""
    if named:
        yield named
    folders = [folder for root in endpoint.roots() for folder in _broker_folders(root)]
    for folder in sorted(folders, key=_age_of):
        if (folder / "lock").exists():
            yield f"ipc://{folder / endpoint.SOCKET}"
    yield from (f"ipc://{path}" for path in _served_broker_sockets())


def _broker_folders(root: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(root) if entry.name.startswith("b-")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        if root == endpoint.root():
            raise BrokerGone(
                f"{root} cannot be read ({error.strerror}); it should be yours"
            ) from None
        return []


def _age_of(folder: Path) -> float:
    try:
        return folder.lstat().st_mtime
    except OSError:
        return 0.0


def _served_broker_sockets() -> Iterator[str]:
    """The sockets of brokers that the system lists, as paths that work from here."""
    processes = list_own_processes()
    served = find_served_sockets(_BROKER_SOCKET, processes)
    yield from (socket.path for socket in served)
    elsewhere = [each for each in processes if each.path_from_here("/") != "/"]
    by_inode = {socket.inode: socket.path for socket in served}
    for process in elsewhere:
        for inode in process.socket_inodes() & by_inode.keys():
            yield process.path_from_here(by_inode[inode])


def _checked(address: str, folder: Path) -> Found:
    peer = peer_of(folder / endpoint.SOCKET)
    if peer is None:
        return Found(address, None)
    pid, uid = peer
    if uid != os.getuid():
        raise BrokerGone(
            f"the socket of the broker at {address} is served by another user (uid {uid})"
        )
    return Found(address, pid)


def _is_own(address: str) -> bool:
    """Whether the folder of an address belongs to this user: what others have is no concern of
    ours."""
    try:
        return Path(address.removeprefix("ipc://")).parent.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def find_stale_folders() -> list[Path]:
    """The folders of brokers that were killed, in all runtime folders of this user."""
    return sorted(f for root in endpoint.roots() for f in _broker_folders(root) if _is_stale(f))


def _is_stale(folder: Path) -> bool:
    try:
        return (folder / "lock").exists() and not endpoint.alive(
            f"ipc://{folder / endpoint.SOCKET}"
        )
    except (OSError, BrokerGone):
        return False


def find_left_over_workers(known: set[int]) -> list[int]:
    """The process ids of workers whose broker is dead and stays so for some seconds (Linux).

    `known`: workers that a living broker has told. A worker whose broker cannot be told is not
    called left over, for it may be healthy.
    """
    until = time.monotonic() + CONFIRM_S
    left = _without_broker(known)
    while left and time.monotonic() < until:
        time.sleep(LOOK_S)
        left = [pid for pid in _without_broker(known) if pid in left]
    return left


def _without_broker(known: set[int]) -> list[int]:
    workers = [
        p for p in list_own_processes() if p.pid not in known and p.name().startswith(_WORKER)
    ]
    if not workers:
        return []
    doors = {each.inode: each.path for each in find_served_sockets(_DOOR, workers)}
    return sorted(
        process.pid for process in workers if _is_broker_dead(_folder_of_worker(process, doors))
    )


def _folder_of_worker(process: Process, doors: dict[int, str]) -> Path | None:
    """The folder of a worker's broker, by the door that it serves or the figures that it keeps."""
    for inode in process.socket_inodes() & doors.keys():
        return Path(process.path_from_here(doors[inode])).parent
    for path in process.mapped_files():
        if _FIGURES.fullmatch(os.path.basename(path)):
            return Path(process.path_from_here(path)).parent
    return None


def _is_broker_dead(folder: Path | None) -> bool:
    if folder is None:
        return False
    try:
        return not endpoint.alive(f"ipc://{folder / endpoint.SOCKET}")
    except (OSError, BrokerGone):
        return False
