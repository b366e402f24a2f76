"""Processes of this user and their unix sockets, as the operating system lists them.

Linux lists both under /proc. Elsewhere (macOS) `lsof` lists the sockets, and workers cannot be
found. Processes in another PID namespace (a container's) are left out: their process ids mean
nothing here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Process",
    "Served",
    "find_served_sockets",
    "list_own_processes",
    "parse_lsof",
    "parse_unix_table",
    "peer_of",
    "sockets_by_lsof",
]

PROC = Path("/proc")
_LISTENS = 0x10000
"""The flag __SO_ACCEPTCON in the fourth column of /proc/net/unix."""
_LSOF_S = 5.0
"""Seconds that `lsof` may take."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this user in our PID namespace (Linux). `network` and `mount` are its
    namespaces' names."""

    pid: int
    network: str
    mount: str

    def path_from_here(self, path: str) -> str:
        """A path of that process as this process reaches it.

        The path goes through /proc where that process sees other files (a service with a private
        /tmp).
        """
        return path if self.mount == _namespace("self", "mnt") else f"/proc/{self.pid}/root{path}"

    def socket_inodes(self) -> set[int]:
        """The inodes of the process's open sockets, as /proc/net/unix numbers them."""
        return set(self._sockets())

    def _sockets(self) -> Iterator[int]:
        with contextlib.suppress(OSError):
            for fd in os.scandir(PROC / str(self.pid) / "fd"):
                with contextlib.suppress(OSError, ValueError):
                    target = os.readlink(fd.path)
                    if target.startswith("socket:["):
                        yield int(target[8:-1])

    def name(self) -> str:
        """The process's own name; "" when the process is gone."""
        with contextlib.suppress(OSError):
            return (PROC / str(self.pid) / "comm").read_text(errors="replace").strip()
        return ""

    def mapped_files(self) -> set[str]:
        """The paths of the files mapped into the process's memory, deleted files included."""
        found = set()
        with contextlib.suppress(OSError):
            for line in (PROC / str(self.pid) / "maps").read_text(errors="replace").splitlines():
                columns = line.split(maxsplit=5)
                if len(columns) == 6 and columns[5].startswith("/"):
                    found.add(columns[5].removesuffix(" (deleted)"))
        return found


@dataclass(frozen=True, slots=True)
class Served:
    """A unix socket with a listener. `inode` is 0 where the system does not tell it."""

    path: str
    inode: int


def list_own_processes() -> list[Process]:
    """Every process of this user in our PID namespace. Empty without /proc."""
    ours = _namespace("self", "pid")
    found = []
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _namespace(folder.name, "pid") == ours:
                pid = folder.name
                found.append(Process(int(pid), _namespace(pid, "net"), _namespace(pid, "mnt")))
    return found


def _namespace(pid: str, kind: str) -> str:
    """The name of a namespace of a process, such as `net:[4026531840]`."""
    return os.readlink(PROC / pid / "ns" / kind)


def find_served_sockets(name: re.Pattern[str], processes: Iterable[Process]) -> list[Served]:
    """Every unix socket with a listener whose file name matches `name`, with the path as its owner
    sees it.

    Looks into our network namespace and those of the given processes.
    """
    if not (PROC / "self").exists():
        return [each for each in sockets_by_lsof() if name.fullmatch(os.path.basename(each.path))]
    tables = {process.network: f"{process.pid}/net/unix" for process in processes}
    with contextlib.suppress(OSError):
        tables[_namespace("self", "net")] = "self/net/unix"
    found: dict[Served, None] = {}
    for table in tables.values():
        with contextlib.suppress(OSError):
            text = (PROC / table).read_text(errors="surrogateescape")
            found.update(
                dict.fromkeys(
                    s for s in parse_unix_table(text) if name.fullmatch(os.path.basename(s.path))
                )
            )
    return list(found)


def parse_unix_table(text: str) -> Iterator[Served]:
    """The sockets with a listener and a path in the text of /proc/net/unix."""
    for line in text.splitlines()[1:]:
        columns = line.split(maxsplit=7)
        with contextlib.suppress(ValueError, IndexError):
            if int(columns[3], 16) & _LISTENS and columns[7].startswith("/"):
                yield Served(columns[7], int(columns[6]))


def sockets_by_lsof() -> list[Served]:
    """The unix sockets of this user as `lsof` lists them, for systems without /proc. Empty without
    `lsof`."""
    program = shutil.which("lsof") or shutil.which("lsof", path="/usr/sbin:/usr/bin")
    if program is None:
        return []
    command = [program, "-n", "-P", "-w", "-a", "-U", "-u", str(os.getuid()), "-F", "n"]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LSOF_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return list(parse_lsof(answer.stdout.decode(errors="surrogateescape")))


def parse_lsof(text: str) -> Iterator[Served]:
    """The paths in the output of `lsof -F n`, without repetition. On Linux, `lsof` adds `
    type=STREAM (LISTEN)` to a path."""
    paths = (line[1:].partition(" type=")[0] for line in text.splitlines() if line.startswith("n/"))
    for path in dict.fromkeys(paths):
        yield Served(path, 0)


def peer_of(path: Path) -> tuple[int, int] | None:
    """The process id and the user id of the listener at a unix socket. Process id 0: not known.

    None when no process listens there, or when the listener's queue is full.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
            return _credentials(sock)
        except OSError:
            return None


def _credentials(sock: socket.socket) -> tuple[int, int]:
    """The process id and the user id at the other end of a connected unix socket."""
    if hasattr(socket, "SO_PEERCRED"):
        pid, uid, _ = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        return pid, uid
    # macOS: LOCAL_PEERCRED (1) gives a `struct xucred`: version, uid, ...; LOCAL_PEERPID (2) the
    # process id.
    _, uid = struct.unpack_from("2I", sock.getsockopt(0, 1, 76))
    (pid,) = struct.unpack("i", sock.getsockopt(0, 2, 4))
    return pid, uid
