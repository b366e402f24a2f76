"""What the processes of one test run have in common: a folder, certificates, and the keeper of the servers.

The process that was started as pytest makes the folder and holds a lock in it for as long as it lives; xdist
workers find the folder in their environment. The keeper is started by whoever needs it first, and ends, with
all servers and the folder, when that lock is free: when pytest has ended, however it did.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from tests.servers.base import OWNER, RUN, Server, StartFailed, Unavailable
from tests.support.certs import Certs, Pair, make_certs
from tests.support.leaks import MARKER
from trunkline.deadline import Deadline

__all__ = ["Run", "lock_in"]

_ROOT = Path(__file__).parents[2]
_START_S = 20.0
_ANSWER_S = 130.0
_END_S = 30.0
_LOOK_S = 0.02

S = TypeVar("S", bound=Server)


class Run:
    """One test run, as one of its processes sees it."""

    def __init__(self, folder: Path, alive: int | None = None) -> None:
        self.folder = folder
        self._alive = alive
        """Descriptor of the lock, in the process that the run ends with."""

    @classmethod
    def begin(cls) -> Run:
        """A new run, which ends with this process. Its folder's path is short: sockets are made in it."""
        folder = Path(tempfile.mkdtemp(prefix="tl-servers-")).resolve()
        folder.chmod(0o755)  # servers run as somebody else
        alive = os.open(folder / "alive", os.O_RDWR | os.O_CREAT, 0o600)
        # Of this process, not of the descriptor: what it forks does not keep the run alive.
        fcntl.lockf(alive, fcntl.LOCK_EX)
        return cls(folder, alive)

    @classmethod
    def join(cls) -> Run:
        """The run that this process was started in, as an xdist worker."""
        return cls(Path(os.environ[RUN]))

    def end(self) -> None:
        """Stop all servers and remove the folder. Nothing in a worker: the run goes on without it."""
        if self._alive is None:
            return
        deadline = Deadline(_END_S)
        if (self.folder / "keeper.sock").exists():
            with contextlib.suppress(OSError, EOFError):
                self._ask({"op": "end"}, _END_S)
            while (self.folder / "keeper.sock").exists() and not deadline.expired():
                Event().wait(_LOOK_S)
        os.close(self._alive)
        self._alive = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def certs(self) -> Certs:
        """The run's certificates: made by who needs them first."""
        at = self.folder / "certs"
        with lock_in(self.folder, "certs"):
            if not at.exists():
                fresh = self.folder / "certs.new"
                fresh.mkdir()
                make_certs(fresh)
                fresh.rename(at)
        names = ("server", "wrong_host", "expired", "client", "stranger")
        return Certs(
            at / "ca.pem", *(Pair(at / f"{name}.pem", at / f"{name}.key") for name in names)
        )

    # the shared servers

    def begin_servers(self, names: Iterable[str]) -> None:
        """Have these started in the background."""
        names = list(names)
        if names:
            self._keeper()
            self._ask({"op": "begin", "names": names})

    def server(self, name: str) -> Server:
        """The running shared server of this name. Unavailable or StartFailed when there is none."""
        from tests.servers.shared import KINDS

        self._keeper()
        answer = self._told({"op": "start", "name": name})
        kind = KINDS[answer["kind"]]

        def control(op: str) -> None:
            if not name.startswith("private_"):
                raise AssertionError(
                    f"{name} is shared by all tests: take a private one (tests/servers)"
                )
            self._told({"op": op, "name": name})

        return kind(Path(answer["folder"]), self.certs(), ports=answer["ports"], control=control)

    def status(self) -> list[str]:
        """A line about each shared server there was in this run."""
        if not (self.folder / "keeper.sock").exists():
            return []
        with contextlib.suppress(AssertionError):
            return list(self._told({"op": "status"})["lines"])
        return []

    # a test's own

    def private(self, kind: type[S], **settings: Any) -> S:
        """A server for one test, not started yet: `with run.private(Nats, token="t") as server`."""
        self._keeper()  # it is what ends the server if this process is killed
        folder = self.folder / f"{kind.__name__.lower()}-{uuid.uuid4().hex[:8]}"
        return kind(folder, self.certs(), **settings)

    # inside

    def _keeper(self) -> None:
        if (self.folder / "keeper.sock").exists():
            return
        with lock_in(self.folder, "keeper"):
            if (self.folder / "keeper.sock").exists():
                return
            # not the number of a worker either: its ports are its own
            ours = (
                *(MARKER, OWNER, "TRUNKLINE_RUNTIME", "TRUNKLINE_BROKER"),
                *("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER"),
            )
            environ = {name: value for name, value in os.environ.items() if name not in ours}
            # It detaches itself when it listens, so that it is nobody's child.
            with (self.folder / "keeper.log").open("ab") as log:
                code = subprocess.run(
                    [sys.executable, "-m", "tests.servers.keeper", str(self.folder)],
                    cwd=_ROOT,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_START_S,
                    check=False,
                ).returncode
            if code:
                raise StartFailed("the keeper of the servers failed:\n" + self._said())

    def _told(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._ask(request)
        except (OSError, EOFError) as error:
            raise StartFailed(
                f"the keeper of the servers is gone ({error}):\n{self._said()}"
            ) from None
        if "missing" in answer:
            raise Unavailable(answer["missing"])
        if "failed" in answer:
            raise StartFailed(answer["failed"])
        return answer

    def _ask(self, request: dict[str, Any], seconds: float = _ANSWER_S) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rwb") as lines:
            sock.settimeout(seconds)
            sock.connect(str(self.folder / "keeper.sock"))
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            line = lines.readline()
        if not line:
            raise EOFError("no answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "keeper.log").read_text()[-2000:]
        return ""


@contextlib.contextmanager
def lock_in(folder: Path, name: str, seconds: float = 100.0) -> Iterator[None]:
    """Only one process of the run at a time; TimeoutError when the others keep it too long."""
    deadline, pause = Deadline(seconds), Event()
    with (folder / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if deadline.expired():
                    raise TimeoutError(
                        f"{name} was in use by other tests for {seconds:g} s"
                    ) from None
            pause.wait(_LOOK_S)
        yield
