"""Where the demo's servers live: a folder, who they run as, their ports, and the guard that ends them all."""

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
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin")
# Below what systems use for outgoing connections: while a server is restarted nobody else may get its port,
# and a client that tries to reach it may not reach itself.
_PORTS = range(20_000, 32_000)
_untried = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))


class Place:
    """A folder for all, with one for each server; removed by the guard, with every process started here."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trunkline-demo-", dir=_readable_folder()))
        self.folder.chmod(0o711)  # servers of another user pass through to their own
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
        """A folder that is ours alone."""
        made = self.folder / name
        made.mkdir(mode=0o700)
        return made

    def start(
        self, command: Sequence[str | Path], folder: Path, environ: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """A program that serves: as nobody where we are root, in its folder, its words in `server.log`."""
        # Nothing else of our environment: it may hold secrets, and settings of the machine's own servers.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM])
        given = {
            "PATH": path,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
            **environ,
        }
        with (
            (folder / "server.log").open("ab") as log,
            later(),
        ):  # not between its start and the guard's knowing
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
        """Nothing of it runs when this returns; `first` is how it is asked."""
        with later():
            _signal_group(process, first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            _signal_group(process, signal.SIGKILL)
            process.wait()
            self._tell_guard(f"-{process.pid}")

    def close(self) -> None:
        """The guard removes the folder and ends."""
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
        assert self._guard.stdin
        with contextlib.suppress(OSError):  # somebody killed it; we end them ourselves
            self._guard.stdin.write(line + "\n")
            self._guard.stdin.flush()


@contextlib.contextmanager
def making_place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        with later():
            place = Place()
            stack.callback(uninterrupted(place.close))
        yield place


def own(path: Path) -> None:
    """Give a file or a folder to who servers run as."""
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", _group_of_nobody())


def find(program: str, folders: Sequence[str] = ()) -> str | None:
    """The path of a program in these folders, on PATH or in the system's; None where it is nowhere."""
    places = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), *_SYSTEM])
    return shutil.which(program, path=places)


def free_port() -> int:
    """A port that nobody has now and that no outgoing connection gets. Given once, for who is to have it may
    not have started yet."""
    for number in _untried:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, number))
            return number
    raise Failed(f"none of the ports {_PORTS.start} to {_PORTS.stop} is free")


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _user_of_servers() -> dict[str, Any]:
    """Who a server runs as, for `Popen`."""
    return (
        {"user": "nobody", "group": _group_of_nobody(), "extra_groups": []}
        if os.geteuid() == 0
        else {}
    )


def _group_of_nobody() -> int:
    return pwd.getpwnam("nobody").pw_gid


def _readable_folder() -> str | None:
    """The folder for temporary files; where others cannot get into it and servers run as others, another."""
    usual = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() != 0:
        return None
    places = [usual, Path("/tmp"), Path("/var/tmp")]
    return next((str(place) for place in places if _open_to_all(place)), None)


def _open_to_all(folder: Path) -> bool:
    return folder.is_dir() and all(
        each.stat().st_mode & 0o001 for each in (folder, *folder.parents)
    )
