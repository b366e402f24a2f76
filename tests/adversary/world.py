"""The real processes of one trial: the program, a second holder, the peer, and the proxy between them.

Each trial has a folder (runtime folder, notes) and a mark of its own, by which whatever it leaves is found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.adversary import backends, processes
from tests.adversary.clock import Clock
from tests.adversary.lockedfile import LockedFile
from tests.adversary.notes import Note, NoteFile
from tests.adversary.steps import Trial
from tests.servers.base import port
from tests.servers.kafka import Kafka, KafkaMock
from tests.support.certs import make_certs
from tests.support.datagramproxy import DatagramProxy
from tests.support.kafka import KafkaProxy
from tests.support.leaks import MARKER, files_in
from tests.support.strategies import heeding_signals
from trunkline.testing.faultproxy import FaultProxy

__all__ = ["Failure", "World"]

_ROOT = Path(__file__).parents[2]
_LOOK = threading.Event()
OPTIONS = "reconnect=true&interval=50&maxInterval=400"


class Failure(Exception):
    """What did not hold; the text says it."""


class World:
    """`with World(trial) as world:`; at its end every process of it is killed and the folder removed."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.folder = Path(tempfile.mkdtemp(prefix="adv-"))  # short: sockets are made in it
        self.runtime = self.folder / "r"
        self.runtime.mkdir(mode=0o700)
        self.mark = uuid.uuid4().hex
        self.clock = Clock(self.folder)
        self.proxy: FaultProxy | DatagramProxy | LockedFile | None = None
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self._notes: dict[str, NoteFile] = {}
        self._peer: subprocess.Popen[bytes] | None = None
        self._where = ""
        self.server = backends.backend(trial.scheme)
        """The real server, where the other end is no peer of ours."""
        if self.server:
            self.server.recover()  # a trial before this one may have left it ended
        self.name = f"adv{self.mark[:12]}"
        self.stopped: set[int] = set()
        self.holed = False
        """Bytes vanish on the link now."""

    # what is looked at

    def notes(self, name: str) -> list[Note]:
        if name not in self._notes:
            self._notes[name] = NoteFile(self.folder / f"{name}.jsonl")
        return self._notes[name].read()

    def holders(self) -> list[str]:
        """Everybody who read: the program and the second holders."""
        return list(self.programs)

    def wait(self, happened: Callable[[], object], what: str, seconds: float) -> None:
        """Failure when it has not become so."""
        end = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > end:
                raise Failure(f"{what}: not within {seconds:g} s")
            _LOOK.wait(0.05)

    def pids(self, target: str) -> list[int]:
        """The living processes that a step means."""
        if target == "server" and self.server:
            return [each.pid for each in self.server._family()]
        if target == "server":
            return [self._peer.pid] if self._peer and self._peer.poll() is None else []
        if target == "program":
            return [
                p.pid for name, p in self.programs.items() if name == "program" and p.poll() is None
            ]
        if target == "second":
            return [
                p.pid for name, p in self.programs.items() if name != "program" and p.poll() is None
            ]
        return processes.pids(self.mark, target)

    # beginning

    def begin(self) -> None:
        """The peer, the proxy before it, and the program, which has dialled."""
        if self.trial.scheme in backends.ADDRESSES:
            backends.prepare(self.trial.scheme, self.name)
            self._place_between()
        else:
            self._start_peer_first()
        self.start_program("program")
        self.wait(lambda: any(n[0] == "dial" for n in self.notes("program")), "the first dial", 60)

    def _start_peer_first(self) -> None:
        scheme = self.trial.scheme
        if scheme == "unix":
            self._where = str(self.folder / "peer.sock")
        else:
            self._where = str(port())
        if scheme == "tls":
            make_certs(self.folder)  # the peer finds server.pem and server.key there
        self.start_server()
        if scheme == "unix":
            self.proxy = FaultProxy(Path(self._where), at=self.folder / "way.sock")
        elif scheme == "udp":
            self.proxy = DatagramProxy(int(self._where))
        else:
            self.proxy = FaultProxy(int(self._where))

    def _place_between(self) -> None:
        """What faults of the link are done to: a proxy before the server, or a lock on the file."""
        if isinstance(self.server, Kafka | KafkaMock):
            self.proxy = KafkaProxy(self.server)
        elif self.server:
            self.proxy = FaultProxy(self.server.port)
        else:
            self.proxy = LockedFile(self.folder / backends.FILE)

    def start_server(self) -> None:
        """Start the peer or the server, at first or after it was killed."""
        if self.server:
            self.server.start()
            return
        if self.trial.scheme in backends.ADDRESSES:
            return
        ready = sum(note[0] == "ready" for note in self.notes("peer"))
        rate, size = self.trial.setting("rate", 100), self.trial.setting("size")
        words = [
            "tests.adversary.peer",
            self.trial.scheme,
            self._where,
            str(self.folder),
            str(rate),
            str(size),
        ]
        self._peer = self._spawn(words, "peer")
        self.wait(
            lambda: sum(note[0] == "ready" for note in self.notes("peer")) > ready,
            "the peer's start",
            60,
        )

    def address(self) -> str:
        scheme = self.trial.scheme
        options = [OPTIONS] if self.trial.setting("reconnect") else ["reconnect=false"]
        if scheme in backends.ADDRESSES:
            assert self.proxy
            at = self.proxy.address
            address = backends.ADDRESSES[scheme].format(at=at, name=self.name, folder=self.folder)
            if scheme == "sqlite3":
                return address  # it has no link that is lost
            return f"{address}|{options[0]}{backends.QUICK.get(scheme, '')}"
        if scheme == "tls":
            options.append(f"cafile={self.folder / 'ca.pem'}")
        assert self.proxy
        return f"{scheme}://{self.proxy.address}|{'&'.join(options)}"

    def start_program(self, name: str, handle: int | None = None) -> None:
        """The program, or a further holder of its handle."""
        config: dict[str, Any] = {
            "folder": str(self.folder),
            "name": name,
            "address": self.address(),
            "handle": handle,
            "form": self.trial.settings.get("form", "dial"),
            "lines": self.trial.scheme in ("tcp", "tls", "unix"),
            "writes": handle is None,
            "scheme": self.trial.scheme,
            "comes_again_s": backends.COMES_AGAIN_S.get(self.trial.scheme, 0),
            "create": ""
            if handle
            else backends.CREATE.get(self.trial.scheme, "").format(name=self.name),
            "insert": f"INSERT INTO {self.name} (n, part) VALUES ({{n}}, {{part}})",
            "select": f"SELECT n FROM {self.name} WHERE n = {{n}}",
            "all": f"SELECT n, part FROM {self.name}",
        }
        self.programs[name] = self._spawn(["tests.adversary.child", json.dumps(config)], name)

    def _spawn(self, words: list[str], name: str) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "TRUNKLINE_RUNTIME": str(self.runtime),
            "TRUNKLINE_BROKER": f"ipc://{self.runtime}/b-trial/broker.sock",
            MARKER: self.mark,
            **self.clock.environment(),
        }
        with heeding_signals(), (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=_ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, name: str, word: str) -> None:
        """A line for a program's standard input; nothing when it is gone."""
        process = self.programs[name]
        with contextlib.suppress(OSError):
            assert process.stdin
            process.stdin.write(f"{word}\n".encode())
            process.stdin.flush()

    def second(self) -> None:
        """A further holder, in a process of its own; nothing where no handle can be had now."""
        before = sum(note[0] == "handle" for note in self.notes("program"))
        self.ask("program", "handle")
        with contextlib.suppress(Failure):
            self.wait(lambda: len(self._handles()) > before, "a handle", 6)
        found = self._handles()[before:]
        if found and found[0][1]:
            self.start_program(f"second{len(self.programs)}", found[0][1])

    def _handles(self) -> list[Note]:
        return [note for note in self.notes("program") if note[0] == "handle"]

    # ending

    def await_end(self, name: str) -> None:
        """The end of a program that got a signal which ends it, stopped or not."""
        process = self.programs[name]
        process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)

    def heal(self) -> None:
        """No fault is left: everything runs, the link passes all."""
        if self.server:
            self.server.recover()
        if self.proxy:
            if self.holed:
                self.proxy.reset()
            self.proxy.heal()
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        if not self.server and not self.pids("server"):
            self.start_server()

    def hush(self) -> None:
        """The peer sends nothing more."""
        if not self._peer:
            return
        self._peer.send_signal(signal.SIGUSR1)
        self.wait(
            lambda: any(note[0] == "quiet" for note in self.notes("peer")), "the peer's end", 20
        )

    def end_peer(self) -> None:
        if self._peer:
            self._peer.kill()
            self._peer.wait(10)

    def left(self) -> list[str]:
        """What there is of processes and of brokers' files."""
        found = [f"process {p.pid} {p.name} {p.command[:120]}" for p in processes.look(self.mark)]
        return found + [f"file {path}" for path in sorted(files_in(self.runtime))]

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        for found in processes.look(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        for process in [*self.programs.values(), *([self._peer] if self._peer else [])]:
            process.wait(10)
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        if self.proxy:
            self.proxy.stop()
        if os.environ.get("TRUNKLINE_ADVERSARY_KEEP"):
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
