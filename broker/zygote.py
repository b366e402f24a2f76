"""The template process, from which workers are forked.

A new interpreter with its imports takes 170 ms and 30 MB. A fork of an interpreter with complete
imports and nothing opened takes 3 ms and shares the memory. So the broker forks the zygote at the
very start, before the broker has a ZeroMQ context or a thread. The zygote imports the workers'
modules and forks every worker. Its only socket is the socket pair to the broker.

Broker and zygote exchange length-prefixed msgpack. Broker -> zygote: `{key, spec}`. Zygote ->
broker: `["started", key, pid]`, `["failed", key, why]`, `["ended", pid, status]`.

The zygote ends after the broker; workers stay. Before its end, the zygote removes the folder of a
killed broker without a successor. If the zygote is killed, the broker starts another as a new
interpreter, because the broker has threads by then and cannot fork safely.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NoReturn

import msgpack

from trunkline.broker.place import see_to_folder
from trunkline.broker.spawner import Ended, Refused, SpawnerEvent, Started
from trunkline.errors import BrokerGone
from trunkline.system.interpreter import command, environment
from trunkline.system.limits import NO_THREAD

__all__ = ["Zygote", "forks"]


ORDER_S = 5.0
_OF_A_GROUP = (signal.SIGTERM, signal.SIGHUP)
"""Signals for a whole group: a service manager sends SIGTERM, a closed terminal SIGHUP."""


def forks() -> bool:
    """Whether workers are forked; False: each worker is a new interpreter.

    TRUNKLINE_SPAWN=fork|exec decides. The default is fork, except on macOS, where system libraries
    do not survive a fork. Raises BrokerGone for an unknown value.
    """
    given = os.environ.get("TRUNKLINE_SPAWN", "")
    if given not in ("", "fork", "exec"):
        raise BrokerGone(f"TRUNKLINE_SPAWN={given}: workers are started by fork or by exec")
    return given != "exec" if given else sys.platform != "darwin"


def _send(sock: socket.socket, value: Any) -> None:
    data = msgpack.packb(value, use_bin_type=True)
    sock.sendall(struct.pack("!I", len(data)) + data)


def _messages(data: bytearray) -> Iterator[Any]:
    """Yield the complete messages at the start of `data`, and remove them from `data`."""
    while len(data) >= 4:
        (size,) = struct.unpack_from("!I", data)
        if len(data) < 4 + size:
            return
        body = bytes(data[4 : 4 + size])
        del data[: 4 + size]
        yield msgpack.unpackb(body, raw=False, strict_map_key=False)


def _event(word: str, key: Any, value: Any) -> SpawnerEvent:
    """Turn a message of the zygote into an event for the router."""
    if word == "ended":
        return Ended(int(key), int(value))
    if word == "started":
        return Started(str(key), int(value))
    return Refused(str(key), str(value))


class Zygote:
    """The broker's end of the zygote, a `Spawner`.

    Create it before the broker has a second thread or a ZeroMQ context: the constructor forks.
    """

    def __init__(self, entry: str, preload: list[str], address: str = "") -> None:
        self._entry, self._preload, self._address = entry, preload, address
        forks()  # a wrong TRUNKLINE_SPAWN is an error of the broker's start
        self._sock, theirs = socket.socketpair()
        self._data = bytearray()
        self.pid = os.fork()
        if self.pid == 0:
            # The child keeps only its own end of the pair, so the end of the broker closes the
            # pair.
            self._sock.close()
            _main(theirs, entry, preload, address)
        theirs.close()
        self._ended = False
        self._sock.setblocking(False)

    def restart(self) -> None:
        """Start another zygote in place of a lost one, as a new interpreter."""
        self.close()
        self._sock, theirs = socket.socketpair()
        self._data.clear()
        arguments = [str(theirs.fileno()), self._address, self._entry, *self._preload]
        with theirs:
            process = subprocess.Popen(
                command("trunkline.broker.zygote", *arguments),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment(),
            )
        self.pid = process.pid
        self._ended = False
        process.returncode = 0  # `close` or the broker's loop reaps the process
        self._sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def start(self, key: str, spec: dict[str, Any]) -> None:
        """Order a worker. `Started` or `Refused` with the same key answers.

        Where the zygote is gone, no answer follows; `events` returns None then.
        """
        # The socket is blocking for this one send. A zygote that has not taken the order after
        # ORDER_S seconds counts as hung.
        self._sock.settimeout(ORDER_S)
        try:
            _send(self._sock, {"key": key, "spec": spec})
        except OSError:
            # The zygote may have read half of the order, so the stream of orders is broken.
            self.kill()
        finally:
            self._sock.setblocking(False)

    def events(self) -> list[SpawnerEvent] | None:
        """Return the events since the last call; None when the zygote is gone."""
        try:
            while chunk := self._sock.recv(65536):
                self._data += chunk
            return None
        except BlockingIOError:
            return [_event(*message) for message in _messages(self._data)]
        except OSError:
            return None

    def has_ended(self, pid: int) -> None:
        """Note that the broker has reaped its child `pid`.

        Afterwards the system may give the id of the zygote to an unrelated process, so the id is
        not used any more.
        """
        self._ended = self._ended or pid == self.pid

    def close(self, *, stays: bool = False) -> None:
        """End the zygote and reap it.

        `stays`: the zygote ends by itself, after it has looked after the folder for the programs
        about to start the next broker.
        """
        self._sock.close()
        if stays:
            return
        self.kill()
        if not self._ended:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def kill(self) -> None:
        """Kill the zygote, unless its end is known; `events` tells its end."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):  # a child keeps its id until it is reaped
                os.kill(self.pid, signal.SIGKILL)


def _main(sock: socket.socket, entry: str, preload: list[str], address: str) -> NoReturn:
    """The whole life of the zygote's process; never returns."""
    status = 0
    try:
        # Above all, close the broker's lock: a zygote or worker with an open lock would keep a dead
        # broker "alive".
        os.closerange(3, sock.fileno())
        os.closerange(sock.fileno() + 1, 4096)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in _OF_A_GROUP:
            # a signal ignored from the start (`nohup`) stays ignored
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _outlive_the_broker)
        run: Callable[[dict[str, Any]], None] | None = None
        if forks():
            for name in preload:
                with contextlib.suppress(ImportError):
                    import_module(name)
            module, _, name = entry.partition(":")
            run = getattr(import_module(module), name)
            gc.collect()
            gc.freeze()  # the garbage collector must not write into pages shared with all workers
        _serve(sock, entry, run)
        _after(address)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        os._exit(status)


def _serve(sock: socket.socket, entry: str, run: Callable[[dict[str, Any]], None] | None) -> None:
    """Carry out orders and report the ends of workers, until the broker closes the socket pair."""
    # SIGCHLD writes a byte into this pipe. Without the pipe, a child's end between `_reap` and
    # `select` would stay unseen until the next order.
    wake_r, wake_w = os.pipe()
    sources: list[socket.socket | int] = [sock, wake_r]
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    data = bytearray()
    children: dict[int, Any] = {}
    while True:
        readable, _, _ = select.select(sources, [], [])
        if wake_r in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_r, 4096)
            _reap(sock, children)
        if sock in readable:
            try:
                chunk = sock.recv(65536)
            except ConnectionError:  # the broker was killed before it had read all events
                return
            if not chunk:
                return
            data += chunk
            for order in _messages(data):
                _carry_out(sock, (wake_r, wake_w), entry, run, order, children)


def _carry_out(
    sock: socket.socket,
    wake: tuple[int, int],
    entry: str,
    run: Callable[[dict[str, Any]], None] | None,
    order: dict[str, Any],
    children: dict[int, Any],
) -> None:
    """Start the worker of one order, and tell the broker the result."""
    try:
        pid = _fork(run, order["spec"], (sock, *wake)) if run else _exec(entry, order["spec"])
    except (OSError, BrokerGone) as error:
        # No memory, too many processes, or no interpreter: a failure of this connection alone.
        _tell(sock, ["failed", order["key"], _reason_of(error)])
        return
    children[pid] = True
    _tell(sock, ["started", order["key"], pid])


def _reason_of(error: OSError | BrokerGone) -> str:
    """Why a worker could not be started, in words."""
    if isinstance(error, BrokerGone):
        return str(error)
    return NO_THREAD if error.errno == errno.EAGAIN else error.strerror or str(error)


def _tell(sock: socket.socket, message: list[Any]) -> None:
    """Tell the broker a result. A broker that was killed meanwhile shows by the end of the socket."""
    with contextlib.suppress(OSError):
        _send(sock, message)


def _outlive_the_broker(*_: object) -> None:
    """The zygote's handler of SIGTERM and SIGHUP. Does nothing: the broker's end ends the zygote.

    The zygote has to survive these signals to remove the broker's folder. A handler, unlike
    SIG_IGN, is not inherited by new interpreters.
    """


def _after(address: str) -> None:
    """Look after the folder of an ended broker. Without a successor, only the zygote knows of
    it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that end meanwhile become no zombies
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if address:
        see_to_folder(address)


def _reap(sock: socket.socket, children: dict[int, Any]) -> None:
    """Reap all ended children, and tell the broker the ends of workers."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if children.pop(pid, None):
            _tell(sock, ["ended", pid, os.waitstatus_to_exitcode(status)])


def _fork(
    run: Callable[[dict[str, Any]], None], spec: dict[str, Any], close: tuple[Any, ...]
) -> int:
    """Fork a worker. Returns its process id in the zygote; never returns in the worker."""
    # The two signals are blocked from here until the worker has its own handlers. A signal in
    # between would reach the worker's copy of the zygote's handler, which ignores it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _OF_A_GROUP)
    try:
        pid = os.fork()
        if pid == 0:
            for number in _OF_A_GROUP:
                if signal.getsignal(number) == _outlive_the_broker:
                    signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_A_GROUP)
    if pid:
        return pid
    status = 1
    try:
        # The worker drops the zygote's wake-up pipe and its end of the socket pair: only the zygote
        # may hold these file descriptors.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in close:
            os.close(each if isinstance(each, int) else each.detach())
        gc.enable()
        run(spec)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _exec(entry: str, spec: dict[str, Any]) -> int:
    """Start a worker in a new interpreter. Returns its process id.

    The spec goes through a pipe, because arguments and environment are visible and the spec holds
    secrets.
    """
    process = subprocess.Popen(
        command("trunkline.broker.single", entry), stdin=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(msgpack.packb(spec, use_bin_type=True))
    pid = process.pid
    process.returncode = 0  # `_reap` reaps the process, not `subprocess`
    return pid


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])), sys.argv[3], sys.argv[4:], sys.argv[2])
