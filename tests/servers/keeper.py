"""The process that a run's shared servers are children of: `python -m tests.servers.keeper RUN_FOLDER`.

It is asked through `keeper.sock` in the run's folder, one line of JSON each way:

    {"op": "begin", "names": [...]}    start them in the background
    {"op": "start", "name": ...}       the same, and wait: {"kind": ..., "folder": ..., "ports": {...}}
    {"op": "stop"}, "kill", "freeze", "thaw", "recover", with a "name"
    {"op": "status"}, {"op": "end"}

It detaches itself and lives until it is told to end, or gets SIGTERM, or nobody holds the lock `alive` any
more: then pytest is gone. At its end it stops all servers, kills whatever else was started as a server of
this run (a killed test's own ones), and removes the folder.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.servers.base import OWNER, RUN, Server, StartFailed, Unavailable
from tests.servers.run import Run
from tests.servers.shared import SHARED

_LOOK_S = 0.1


class Keeper:
    """The shared servers of one run, each started at most once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._ending = False
        self._begun: dict[str, Future[Server]] = {}
        self._busy = {name: threading.Lock() for name in SHARED}
        self._took: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(len(SHARED))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        if op == "begin":
            for name in request["names"]:
                self._begin(name)
        elif op == "status":
            return {"lines": [self._status(name) for name in sorted(self._begun)]}
        elif op == "end":
            self.end()
        else:
            server = self._begin(request["name"]).result()
            with self._busy[request["name"]]:
                if op != "start" or not server.running():
                    getattr(server, op)()
            return {
                "kind": type(server).__name__,
                "folder": str(server.folder),
                "ports": server.ports,
            }
        return {}

    def end(self) -> None:
        """Stop everything, in parallel. Only once."""
        with self._lock:
            if self._ending:
                return
            self._ending = True  # from here on no start begins
            begun = list(self._begun.values())
        ready = [future.result() for future in begun if _succeeded(future)]
        with ThreadPoolExecutor(len(ready) + 1) as pool:
            for server in ready:
                pool.submit(server.discard)
        self._sweep()
        # What was starting fails now; it may have come to its next program meanwhile.
        while concurrent.futures.wait(begun, _LOOK_S).not_done:
            self._sweep()
        self._sweep()
        shutil.rmtree(self.run.folder, ignore_errors=True)
        self.ended.set()

    def _begin(self, name: str) -> Future[Server]:
        with self._lock:
            if self._ending:
                raise StartFailed("the test run ends")
            if name not in self._begun:
                self._begun[name] = self._pool.submit(self._start, name)
            return self._begun[name]

    def _start(self, name: str) -> Server:
        if name.startswith("private_"):  # few tests wait for it, and two at once take the double
            with self._lock:
                shared = self._begun.get(name.removeprefix("private_"))
            concurrent.futures.wait([shared] if shared else [])
        if self._ending:
            raise StartFailed("the test run ends")
        began = time.monotonic()
        kind = _first_available(SHARED[name])
        server = kind(self.run.folder / name, self.run.certs())
        server.start()
        self._took[name] = time.monotonic() - began
        return server

    def _status(self, name: str) -> str:
        future = self._begun[name]
        if not future.done():
            return f"{name}: still starting"
        if error := future.exception():
            return f"{name}: {str(error).splitlines()[0]}"
        return f"{name}: {future.result().kind}, ready in {self._took[name]:.1f} s"

    def _sweep(self) -> None:
        """Kill what is left of the servers that processes of this run have started."""
        wanted = str(self.run.folder)
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(OWNER) == wanted:
                    process.kill()
                    left.append(process)
        psutil.wait_procs(left, 10)  # ours are reaped by those who started them


def _succeeded(future: Future[Server]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _first_available(kinds: tuple[type[Server], ...]) -> type[Server]:
    missing = []
    for kind in kinds:
        try:
            kind.available()
        except Unavailable as error:
            missing.append(error)
        else:
            return kind
    raise missing[0]


def _serve(keeper: Keeper, sock: socket.socket) -> None:
    with sock, sock.makefile("rwb") as lines, contextlib.suppress(OSError):
        try:
            answer = keeper.answer(json.loads(lines.readline()))
        except Unavailable as error:
            answer = {"missing": str(error)}
        except StartFailed as error:
            answer = {"failed": str(error)}
        except BaseException:
            answer = {"failed": traceback.format_exc()}
        lines.write(json.dumps(answer).encode() + b"\n")
        lines.flush()
        sock.shutdown(socket.SHUT_RDWR)


def _wait_for_end(keeper: Keeper) -> None:
    """Nobody holds the lock: pytest has ended without a word."""
    with contextlib.suppress(OSError), (keeper.run.folder / "alive").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
    keeper.end()


def _accept(keeper: Keeper, listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(keeper, sock), daemon=True).start()


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ[RUN] = str(folder)
    listener = socket.socket(socket.AF_UNIX)
    starting = folder / "keeper.starting"
    listener.bind(str(starting))
    listener.listen(64)
    starting.rename(folder / "keeper.sock")  # there when who started us goes on
    if os.fork():
        os._exit(0)
    os.setsid()
    keeper = Keeper(Run(folder))
    signal.signal(
        signal.SIGTERM, lambda *_: threading.Thread(target=keeper.end, daemon=True).start()
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_end, args=(keeper,), daemon=True).start()
    threading.Thread(target=_accept, args=(keeper, listener), daemon=True).start()
    keeper.ended.wait()
    os._exit(0)  # nobody waits for threads that still answer


if __name__ == "__main__":
    main()
