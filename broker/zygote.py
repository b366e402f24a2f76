"""The template process that workers are forked from.

A new interpreter with its imports takes 170 ms and 30 MB; a fork of one that has imported
everything and opened nothing takes 3 ms and shares its memory. So the broker forks this process at its
very start, before it has a ZeroMQ context or a thread; here the worker's modules are imported, and
from here every worker is forked. It never opens a socket of its own but the pair to the broker.

It speaks length-prefixed msgpack: broker -> zygote `{spec}`; zygote -> broker `["started", key, pid]`,
`["failed", key, why]`, `["ended", pid, status]`. When the broker is gone, so is the zygote (its last service
is to remove the folder of a broker that was killed and that nobody follows); workers stay. Should the
zygote be killed, the broker starts another, as a new interpreter, for it has threads by then.
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
"""What a service manager sends to all processes of a service, and a terminal to all that it started."""


def forks() -> bool:
    """Whether workers are forked (else each is a new interpreter). TRUNKLINE_SPAWN=fork|exec decides;
    the default is fork where the system's libraries allow it, which macOS's do not."""
    given = os.environ.get("TRUNKLINE_SPAWN", "")
    if given not in ("", "fork", "exec"):
        raise BrokerGone(f"TRUNKLINE_SPAWN={given}: workers are started by fork or by exec")
    return given != "exec" if given else sys.platform != "darwin"


def _send(sock: socket.socket, value: Any) -> None:
    data = msgpack.packb(value, use_bin_type=True)
    sock.sendall(struct.pack("!I", len(data)) + data)


def _messages(data: bytearray) -> Iterator[Any]:
    """The whole messages at the start of `data`, which are removed from it."""
    while len(data) >= 4:
        (size,) = struct.unpack_from("!I", data)
        if len(data) < 4 + size:
            return
        body = bytes(data[4 : 4 + size])
        del data[: 4 + size]
        yield msgpack.unpackb(body, raw=False, strict_map_key=False)


def _event(word: str, key: Any, value: Any) -> SpawnerEvent:
    """A message of the zygote as the router knows it."""
    if word == "ended":
        return Ended(int(key), int(value))
    if word == "started":
        return Started(str(key), int(value))
    return Refused(str(key), str(value))


class Zygote:
    """The broker's end, a `Spawner`. Create it before the broker has any other thread, or a context."""

    def __init__(self, entry: str, preload: list[str], address: str = "") -> None:
        self._entry, self._preload, self._address = entry, preload, address
        forks()  # a wrong TRUNKLINE_SPAWN is told here
        self._sock, theirs = socket.socketpair()
        self._data = bytearray()
        self.pid = os.fork()
        if self.pid == 0:
            self._sock.close()
            _main(theirs, entry, preload, address)
        theirs.close()
        self._ended = False
        self._sock.setblocking(False)

    def restart(self) -> None:
        """Another one in place of one that is gone."""
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
        process.returncode = 0  # it is reaped by `close` or by the broker
        self._sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def start(self, key: str, spec: dict[str, Any]) -> None:
        """Ask for a worker; `started` or `failed` with the same key answers. When the zygote is gone nothing
        does: `events` tells."""
        self._sock.settimeout(ORDER_S)
        try:
            _send(self._sock, {"key": key, "spec": spec})
        except OSError:
            self.kill()  # it may have read half of the order: never more from this one
        finally:
            self._sock.setblocking(False)

    def events(self) -> list[SpawnerEvent] | None:
        """What happened since the last call; None when the zygote is gone."""
        try:
            while chunk := self._sock.recv(65536):
                self._data += chunk
            return None
        except BlockingIOError:
            return [_event(*message) for message in _messages(self._data)]
        except OSError:
            return None

    def has_ended(self, pid: int) -> None:
        """The broker has awaited a child of its own; the id of one that was may come to mean another."""
        self._ended = self._ended or pid == self.pid

    def close(self, *, stays: bool = False) -> None:
        """End the zygote; it is a child of ours, so its end is awaited. `stays`: it ends by itself, when it
        has seen to the folder that the broker leaves to programs which are to start the next one."""
        self._sock.close()
        if stays:
            return
        self.kill()
        if not self._ended:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def kill(self) -> None:
        """It is gone, or hangs; `events` tells its end."""
        if not self._ended:
            with contextlib.suppress(
                ProcessLookupError
            ):  # a child that is not awaited keeps its id
                os.kill(self.pid, signal.SIGKILL)


def _main(sock: socket.socket, entry: str, preload: list[str], address: str) -> NoReturn:
    """The zygote's life."""
    status = 0
    try:
        # The broker's lock above all: a zygote or worker that held it would keep a dead broker "alive".
        os.closerange(3, sock.fileno())
        os.closerange(sock.fileno() + 1, 4096)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in _OF_A_GROUP:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, _outlive_the_broker)
        run: Callable[[dict[str, Any]], None] | None = None
        if forks():
            for name in preload:
                with contextlib.suppress(ImportError):
                    import_module(name)
            module, _, name = entry.partition(":")
            run = getattr(import_module(module), name)
            gc.collect()
            gc.freeze()  # the collector must not write into pages that all workers share
        _serve(sock, entry, run)
        _after(address)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        os._exit(status)


def _serve(sock: socket.socket, entry: str, run: Callable[[dict[str, Any]], None] | None) -> None:
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
            except ConnectionError:  # the broker was killed before it had read all that we said
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
    try:
        pid = _fork(run, order["spec"], (sock, *wake)) if run else _exec(entry, order["spec"])
    except (
        OSError
    ) as error:  # no memory, or too many processes: this connection's trouble, not everyone's
        why = NO_THREAD if error.errno == errno.EAGAIN else error.strerror or str(error)
        _send(sock, ["failed", order["key"], why])
        return
    children[pid] = True
    _send(sock, ["started", order["key"], pid])


def _outlive_the_broker(*_: object) -> None:
    """The zygote's handler of SIGTERM and SIGHUP does nothing: the end of the broker ends the zygote.

    A zygote that a signal ended could not remove the folder that the broker leaves to it. A handler, unlike
    SIG_IGN, is not inherited by new interpreters.
    """


def _after(address: str) -> None:
    """The broker is gone, and its folder may be ours to remove: nobody else knows of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that end meanwhile become no zombies
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if address:
        see_to_folder(address)


def _reap(sock: socket.socket, children: dict[int, Any]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if children.pop(pid, None):
            with contextlib.suppress(OSError):
                _send(sock, ["ended", pid, os.waitstatus_to_exitcode(status)])


def _fork(
    run: Callable[[dict[str, Any]], None], spec: dict[str, Any], close: tuple[Any, ...]
) -> int:
    # A signal that comes meanwhile ends the worker, whose copy of the zygote's handler would swallow it.
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
    """A worker in a new interpreter; the spec goes through a pipe, for it holds secrets."""
    process = subprocess.Popen(
        command("trunkline.broker.single", entry), stdin=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(msgpack.packb(spec, use_bin_type=True))
    pid = process.pid
    process.returncode = 0  # it is reaped by us, not by subprocess
    return pid


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])), sys.argv[3], sys.argv[4:], sys.argv[2])
