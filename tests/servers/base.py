"""A real server as a process in a folder of its own: made, started, found ready, frozen, stopped."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, TypeVar

import psutil

from tests.support.certs import Certs
from tests.support.leaks import MARKER
from tests.support.stopping import stop
from trunkline.deadline import Deadline

__all__ = ["HOST", "OWNER", "RUN", "Server", "StartFailed", "Unavailable", "find", "port"]

HOST = "127.0.0.1"
RUN = "TRUNKLINE_TEST_RUN"
"""In the environment of a test run's processes: the run's folder."""
OWNER = "TRUNKLINE_TEST_SERVER_OF"
"""In the environment of servers, and of nothing else: the same, by which the keeper finds them all."""

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin", "/opt/homebrew/sbin")
_LOOK_S = 0.02
_STOP_S = 15.0
_LOG_LINES = 25
# Below what systems use for outgoing connections: while a server is down nobody else may get its port, and a
# client that tries to reach it may not reach itself.
_PORTS = range(20_000, 32_000)

S = TypeVar("S", bound="Server")


class Unavailable(Exception):
    """The server cannot be had on this machine; the text says what to install."""


class StartFailed(AssertionError):
    """The server is there and did not become ready; the text has its last words."""


class Server(ABC):
    """See the module. `with Server(...)` starts and stops it.

    `control` is given to those that look at a server of another process: it carries out start, stop, kill,
    freeze and thaw there.
    """

    title: ClassVar[str]
    """As people call it."""
    program: ClassVar[str]
    install: ClassVar[str]
    """The sentence's end: "install ..."."""
    folders: ClassVar[tuple[str, ...]] = ()
    """Where the program may be beside PATH."""
    port_names: ClassVar[tuple[str, ...]] = ("main",)
    ready_s: ClassVar[float] = 30.0
    unprivileged: ClassVar[bool] = True
    """Runs as nobody where we are root: some servers refuse root, and none needs it."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(
        self,
        folder: Path,
        certs: Certs,
        *,
        ports: Mapping[str, int] | None = None,
        control: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self.certs = certs
        self.ports = dict(ports) if ports else {name: port() for name in self.port_names}
        self._control = control
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    # what each one says of itself

    def prepare(self) -> None:  # noqa: B027  (nothing to prepare is fine)
        """Write what the server reads at its start into `folder`; once."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The program, absolute, and its arguments."""

    def environment(self) -> dict[str, str]:
        """What the server's environment has beside PATH, HOME and LANG."""
        return {}

    @abstractmethod
    def greets(self) -> bool:
        """Whether a client could log in now. OSError and EOFError mean no, too."""

    @classmethod
    def available(cls) -> str:
        """The program's path; Unavailable when there is none."""
        return find(cls.program, cls.title, cls.install, cls.folders)

    # what all can do

    @property
    def port(self) -> int:
        """The plain port, the first of `port_names`."""
        return self.ports[self.port_names[0]]

    @property
    def address(self) -> str:
        """host:port of the plain port."""
        return f"{HOST}:{self.port}"

    @property
    def kind(self) -> str:
        """What it really is, for the run's summary."""
        return self.title

    @staticmethod
    def unique(name: str = "t") -> str:
        """A name nobody else uses on a shared server."""
        return f"{name}-{uuid.uuid4().hex[:12]}"

    @property
    def pid(self) -> int:
        """The server's process; only where it was started."""
        assert self._process is not None, f"{self.title} was not started by this process"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has said so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "server.log").read_text(errors="replace")
        return ""

    def running(self) -> bool:
        """Whether its process lives; of another process's server: whether it greets."""
        if self._control:
            with contextlib.suppress(OSError, EOFError):
                return self.greets()
            return False
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, on the same ports and data as before, and wait until it is ready."""
        if self._control:
            return self._control("start")
        assert not self.running(), f"{self.title} runs already"
        self.available()
        if not self._prepared:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own(self.folder)
            self.prepare()
            self._prepared = True
        self._process = self.spawn(self.command())
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise
        return None

    def stop(self) -> None:
        """Ask it to end and wait for that; by force after 15 s. Nothing when it has ended."""
        if self._control:
            return self._control("stop")
        if self.running():
            family = self._family()
            self._signal(self.stop_signal)
            self.thaw()
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process
                self._process.wait(_STOP_S)
            _end(family)
        return self._reap()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._control:
            return self._control("kill")
        if self.running():
            _end(self._family())
        return self._reap()

    def restart(self) -> None:
        """Stop it and start it again, on the same ports and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the server's connections stay and nothing answers."""
        if self._control:
            return self._control("freeze")
        frozen: set[int] = set()
        # again and again, for one of them may have started another meanwhile
        while new := {process.pid for process in self._family()} - frozen:
            stop(*new)
            frozen |= new
        return None

    def thaw(self) -> None:
        """SIGCONT, the end of `freeze`."""
        if self._control:
            return self._control("thaw")
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        return None

    def recover(self) -> None:
        """Whatever was done to it: running and thawed."""
        if self._control:
            return self._control("recover")
        if self.running():
            self.thaw()
            with contextlib.suppress(OSError, EOFError):
                if self.greets():
                    return None
            self.kill()
        return self.start()

    def __enter__(self: S) -> S:
        try:
            self.start()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def discard(self) -> None:
        """End it for good and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # for the modules of the servers

    def spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start a program as who runs servers, in the folder, with its output in `server.log`."""
        environ = {
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM]),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "LANG": "C.UTF-8",
            OWNER: os.environ.get(RUN, ""),
            # By this a test that leaves it is found; the shared ones have none.
            **{name: os.environ[name] for name in (MARKER,) if name in os.environ},
            **self.environment(),
        }
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **(_nobody() if self.unprivileged else {}),
            )

    def run(self, command: Sequence[str | Path], seconds: float = 60.0) -> None:
        """A program that ends by itself, as `spawn`; StartFailed when it fails."""
        process = self.spawn(command)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -9
        if code:
            raise StartFailed(
                f"{Path(command[0]).name} failed (exit {code}); its last words:\n{self._tail()}"
            )

    def write(self, name: str, text: str) -> Path:
        """A file in the folder that only the server's user reads."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return self._own(path)

    def copy_certs(self) -> None:
        """ca.pem, server.pem and server.key in the folder: the originals may be out of its reach."""
        for source in (self.certs.ca, self.certs.server.cert, self.certs.server.key):
            self.write(source.name, source.read_text())

    # inside

    def _own(self, path: Path) -> Path:
        """Give a file or folder, not what is in it, to the user that the server runs as."""
        if self.unprivileged and os.geteuid() == 0:
            shutil.chown(path, "nobody", _nogroup())
        return path

    def _wait_ready(self) -> None:
        assert self._process
        deadline, pause = Deadline(self.ready_s), Event()
        while True:
            with contextlib.suppress(OSError, EOFError):
                if self.greets():
                    return
            code = self._process.poll()
            if code is not None:
                raise StartFailed(
                    f"{self.title} ended at its start (exit {code}); its last words:\n{self._tail()}"
                )
            if deadline.expired():
                raise StartFailed(
                    f"{self.title} was not ready in {self.ready_s:g} s; its last words:\n{self._tail()}"
                )
            pause.wait(_LOOK_S)

    def _tail(self) -> str:
        return "\n".join(self.log.splitlines()[-_LOG_LINES:]) or "(none)"

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            mother = psutil.Process(self._process.pid)
            return [mother, *mother.children(recursive=True)]
        return []

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(_STOP_S)
            self._process = None


def _end(family: list[psutil.Process]) -> None:
    """Nothing of a server is left, its helpers either."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, _STOP_S)


def find(program: str, title: str, install: str, folders: Sequence[str] = ()) -> str:
    """The path of a program on PATH, in the system's folders or in these; Unavailable when it is nowhere."""
    places = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), *_SYSTEM])
    found = shutil.which(program, path=places)
    if found is None:
        raise Unavailable(
            f"{title} is not installed ({program}): {install}, or run scripts/setup test as root"
        )
    return found


def port() -> int:
    """A port that nobody has now and that no outgoing connection gets. It is given once: the server that it
    is for may not have started yet, or may be stopped for a while."""
    for number in islice(_own_ports(), len(_PORTS)):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, number))
            return number
    raise AssertionError(f"no free port among {_PORTS}")


@cache
def _own_ports() -> Iterator[int]:
    """The ports of this process, in no order: each worker of pytest-xdist has its own, and the keeper."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    which = int(worker) + 1 if worker.isdecimal() else 0
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")) + 1
    mine = _PORTS[which::parts]
    return cycle(random.SystemRandom().sample(mine, len(mine)))


def _nobody() -> dict[str, Any]:
    """Who a server runs as, for `Popen`."""
    return {"user": "nobody", "group": _nogroup(), "extra_groups": []} if os.geteuid() == 0 else {}


def _nogroup() -> int:
    return pwd.getpwnam("nobody").pw_gid


def exchange(number: int, data: bytes, most: int = 4096, seconds: float = 2.0) -> bytes:
    """The first bytes that a server on the port answers to this; EOFError when it just ends."""
    with socket.create_connection((HOST, number), seconds) as sock:
        if data:
            sock.sendall(data)
        return receive(sock, most)


def receive(sock: socket.socket, most: int = 4096) -> bytes:
    """Some bytes; EOFError when the other side has ended."""
    got = sock.recv(most)
    if not got:
        raise EOFError
    return got


def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes; EOFError when the other side ends before."""
    got = b""
    while len(got) < count:
        got += receive(sock, count - len(got))
    return got


def framed(text: bytes, size: str = ">H") -> bytes:
    """Bytes with their length in front."""
    return struct.pack(size, len(text)) + text
