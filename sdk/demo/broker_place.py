"""The place of the demo's servers: a folder, a user, free ports, and a guard process that ends them
all."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.cli import Failed
from trunkline.demo.signals import later, uninterrupted

__all__ = ["HOST", "Place", "find", "free_port", "making_place"]

HOST = "127.0.0.1"
END_S = 15.0
"""Seconds that the guard has to remove the folder and end."""
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin")
"""Folders of programs that may be missing from PATH."""
# These ports lie below the range of outgoing connections. While a server restarts, no other program
# gets its port, and a client that dials the port cannot connect to itself.
_PORTS = range(20_000, 32_000)
_untried = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))


class Place:
    """The demo's folder, with a folder for each server.

    The guard ends every process started here, and removes the folder.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trunkline-demo-", dir=_readable_folder()))
        # Servers of another user must pass through to their own folders.
        self.folder.chmod(0o711)
        command = [
            sys.executable,
            "-I",
            str(Path(__file__).with_name("broker_guard.py")),
            str(self.folder),
        ]
        self._guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._guard.stdout
        if self._guard.stdout.readline() != "ready\n":
            shutil.rmtree(self.folder, ignore_errors=True)
            raise Failed(f"{sys.executable} cannot be run; `trunkline doctor` may tell why")

    def private(self, name: str) -> Path:
        """Make a folder that only our user can enter."""
        made = self.folder / name
        made.mkdir(mode=0o700)
        return made

    def start(
        self, command: Sequence[str | Path], folder: Path, environ: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a server in its folder, with its output in `server.log`; where we are root, as the
        user nobody."""
        # No other variable of our environment is passed on: it may hold secrets, or settings of
        # other servers.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM])
        given = {
            "PATH": path,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            **environ,
        }
        # A signal must not come between the start of the process and the note to the guard.
        with (
            (folder / "server.log").open("ab") as log,
            later(),
        ):
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_user_of_servers(),
            )
            self._tell_guard(f"+{process.pid}")
        return process

    def end(
        self, process: subprocess.Popen[bytes], first: signal.Signals, patience_s: float
    ) -> None:
        """End a process and its group. `first` is the signal to begin with; SIGKILL follows after
        `patience_s` seconds.

        No process of the group runs when the call returns.
        """
        with later():
            _signal_group(process, first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            _signal_group(process, signal.SIGKILL)
            process.wait()
            self._tell_guard(f"-{process.pid}")

    def close(self) -> None:
        """Let the guard remove the folder and end."""
        assert self._guard.stdin
        assert self._guard.stdout
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(END_S)
        self._guard.kill()
        self._guard.wait()
        self._guard.stdout.close()

    def _tell_guard(self, line: str) -> None:
        """Tell the guard of a process: `+pid` or `-pid`."""
        assert self._guard.stdin
        # The guard may have been killed. The demo itself ends the servers then.
        with contextlib.suppress(OSError):
            self._guard.stdin.write(line + "\n")
            self._guard.stdin.flush()


@contextlib.contextmanager
def making_place() -> Iterator[Place]:
    """Make a place inside the block; at the end the guard removes it."""
    with contextlib.ExitStack() as stack:
        with later():
            place = Place()
            stack.callback(uninterrupted(place.close))
        yield place


def own(path: Path) -> None:
    """Give a file or folder to the user that the servers run as."""
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", _group_of_nobody())


def find(program: str, folders: Sequence[str] = ()) -> str | None:
    """The path of a program in `folders`, on PATH or in the system's folders; None where the
    program is missing."""
    places = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), *_SYSTEM])
    return shutil.which(program, path=places)


def free_port() -> int:
    """A port that is free now and outside the range of outgoing connections.

    Every port is given only once, because its server may not have started yet.
    """
    for number in _untried:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, number))
            return number
    raise Failed(f"none of the ports {_PORTS.start} to {_PORTS.stop} is free")


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process group, if the group still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _user_of_servers() -> dict[str, Any]:
    """The arguments of `Popen` for the servers' user."""
    return (
        {"user": "nobody", "group": _group_of_nobody(), "extra_groups": []}
        if os.geteuid() == 0
        else {}
    )


def _group_of_nobody() -> int:
    return pwd.getpwnam("nobody").pw_gid


def _readable_folder() -> str | None:
    """The folder for temporary files; None: the usual folder.

    Where we are root, the servers' user must be able to enter the folder.
    """
    usual = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() != 0:
        return None
    places = [usual, Path("/tmp"), Path("/var/tmp")]
    return next((str(place) for place in places if _open_to_all(place)), None)


def _open_to_all(folder: Path) -> bool:
    """Whether every user can enter the folder and its parents."""
    return folder.is_dir() and all(
        each.stat().st_mode & 0o001 for each in (folder, *folder.parents)
    )
