"""Finding all brokers of this user, in any runtime folder, and workers whose broker is dead.

A service without XDG_RUNTIME_DIR and a login shell with XDG_RUNTIME_DIR use different runtime
folders, so a single folder never shows all brokers. The search covers the folders of every possible
environment of this user, and the unix sockets of this user's processes. A broker counts only when
its folder is private to this user, its lock is held, and a process of this user serves the socket.
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
"""The names of worker processes begin with these letters."""
CONFIRM_S = 3.0
"""Seconds without a broker after which a worker counts as left over. Clients of a killed broker
start another broker within a second or two, and the end of a worker takes a moment."""
LOOK_S = 0.1
"""Seconds between two looks at such workers."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The brokers named by the environment.

    These are the broker of TRUNKLINE_BROKER, and the brokers in the folder of TRUNKLINE_RUNTIME.
    Without both variables, all brokers of this user are meant.
    """

    broker: str | None
    folder: Path | None

    @classmethod
    def of_environment(cls) -> Scope:
        """Read the variables of this process."""
        given = os.environ.get(endpoint.ROOT_ENV)
        return cls(os.environ.get(endpoint.ENV) or None, Path(given).absolute() if given else None)

    def variables(self) -> list[str]:
        """The names of the set variables."""
        return [endpoint.ENV] * (self.broker is not None) + [endpoint.ROOT_ENV] * (
            self.folder is not None
        )

    def holds(self, address: str) -> bool:
        """Whether the environment names the broker at `address`."""
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
    """A living broker."""

    address: str
    pid: int | None
    """The process behind the broker's socket. 0 where the system does not tell, None for a socket
    with a full queue."""


def find_brokers() -> tuple[list[Found], list[str]]:
    """Find all living brokers of this user.

    Returns the brokers, first those named by the environment, and a sentence for each unusable
    place that the environment names or that looks like a broker's.
    """
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
        except FileNotFoundError:  # the broker ended between two looks
            continue
    scope = Scope.of_environment()
    return sorted(found.values(), key=lambda each: not scope.holds(each.address)), troubles


def _candidates(named: str | None) -> Iterator[str]:
    """Every possible address of a broker of this user.

    First the named address, then the known folders (the oldest first), then the sockets of this
    user's processes.
    """
    if named:
        yield named
    folders = [folder for root in endpoint.roots() for folder in _broker_folders(root)]
    for folder in sorted(folders, key=_age_of):
        if (folder / "lock").exists():
            yield f"ipc://{folder / endpoint.SOCKET}"
    yield from (f"ipc://{path}" for path in _served_broker_sockets())


def _broker_folders(root: Path) -> list[Path]:
    """The folders of brokers in a runtime folder. BrokerGone when this process's own cannot be
    read."""
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
    """The time of the folder's last change, for sorting; 0 when the folder is gone."""
    try:
        return folder.lstat().st_mtime
    except OSError:
        return 0.0


def _served_broker_sockets() -> Iterator[str]:
    """The sockets of brokers listed by the system, as paths usable from this process."""
    processes = list_own_processes()
    served = find_served_sockets(_BROKER_SOCKET, processes)
    yield from (socket.path for socket in served)
    elsewhere = [each for each in processes if each.path_from_here("/") != "/"]
    by_inode = {socket.inode: socket.path for socket in served}
    for process in elsewhere:
        for inode in process.socket_inodes() & by_inode.keys():
            yield process.path_from_here(by_inode[inode])


def _checked(address: str, folder: Path) -> Found:
    """A living broker and the process behind its socket. BrokerGone for the process of another
    user."""
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
    """Whether the folder of an address belongs to this user. Other users' folders are no concern of
    ours."""
    try:
        return Path(address.removeprefix("ipc://")).parent.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder."""
    if one == other:
        return True
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def find_stale_folders() -> list[Path]:
    """The folders of killed brokers, in all runtime folders of this user."""
    return sorted(f for root in endpoint.roots() for f in _broker_folders(root) if _is_stale(f))


def _is_stale(folder: Path) -> bool:
    """Whether a killed broker has left this folder, and no broker holds the folder's lock now."""
    try:
        return (folder / "lock").exists() and not endpoint.alive(
            f"ipc://{folder / endpoint.SOCKET}"
        )
    except (OSError, BrokerGone):
        return False


def find_left_over_workers(known: set[int]) -> list[int]:
    """The process ids of workers without a living broker for `CONFIRM_S` seconds (Linux).

    `known`: workers named by a living broker. A worker of an unknown broker does not count as left
    over, for the worker may be healthy.
    """
    until = time.monotonic() + CONFIRM_S
    left = _without_broker(known)
    while left and time.monotonic() < until:
        time.sleep(LOOK_S)
        left = [pid for pid in _without_broker(known) if pid in left]
    return left


def _without_broker(known: set[int]) -> list[int]:
    """The process ids of workers whose broker is dead just now."""
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
    """The folder of a worker's broker, found by the worker's door or by its mapped ledger."""
    for inode in process.socket_inodes() & doors.keys():
        return Path(process.path_from_here(doors[inode])).parent
    for path in process.mapped_files():
        if _FIGURES.fullmatch(os.path.basename(path)):
            return Path(process.path_from_here(path)).parent
    return None


def _is_broker_dead(folder: Path | None) -> bool:
    """Whether no broker holds the lock of this folder. False for an unknown folder."""
    if folder is None:
        return False
    try:
        return not endpoint.alive(f"ipc://{folder / endpoint.SOCKET}")
    except (OSError, BrokerGone):
        return False
