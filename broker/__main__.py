"""`python -m trunkline.broker`: one broker process, as the first Dial or `trunkline broker` starts
it."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.broker.place import see_to_folder
from trunkline.broker.process import ending_signals
from trunkline.broker.succession import await_place
from trunkline.errors import BrokerGone
from trunkline.system.limits import NO_THREAD
from trunkline.system.processes import is_alive
from trunkline.wire import endpoint

if TYPE_CHECKING:
    from trunkline.broker.router import Broker

WORKER = "trunkline.actors.process.worker:main"
PRELOAD = ["trunkline.actors.process.preload"]


def _detach(ready_fd: int) -> None:
    """Detach from the starter's session and process tree, so the starter need not reap the broker.

    A starter with process id 1 inherits the broker and has to reap it, so the starter is told the
    process id.
    """
    if pid := os.fork():
        with contextlib.suppress(OSError):  # the starter is gone
            os.write(ready_fd, f"{endpoint.PID_WORD} {pid}\n".encode())
        os._exit(0)
    os.setsid()


def _log_to(folder: Path) -> None:
    """Send standard output and errors to the broker's log; standard input reads nothing."""
    fd = os.open(folder / endpoint.LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)


def _raise_file_limit() -> None:
    """Raise the limit on file descriptors: a peer needs one, and the usual 1024 are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _ToldToEnd(BaseException):
    """An ending signal came while the broker starts; `Broker.run` handles later ones."""


def _end_the_start(*_: object) -> None:
    raise _ToldToEnd


def main(argv: list[str] | None = None) -> int:
    """Run a broker. Returns the exit status: 0 after a good end, 2 on failure, 3 when one runs
    there."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.broker", description=__doc__)
    parser.add_argument(
        "--address", default=None, help="ipc:///folder/broker.sock; a new one by default"
    )
    parser.add_argument(
        "--persistent",
        action="store_true",
        help="do not end with the last client; wait for the end of one that is there already",
    )
    parser.add_argument(
        "--ready-fd", type=int, default=None, help="write there how it went, and detach"
    )
    parser.add_argument(
        "--starter", type=int, default=None, help="process that will be the first client"
    )
    options = parser.parse_args(argv)
    address: str = options.address or endpoint.new_address()
    for number in ending_signals():
        signal.signal(number, _end_the_start)
    try:
        return _start(address, options)
    except _ToldToEnd:
        for number in ending_signals():  # a second signal must not break off the clean-up
            signal.signal(number, signal.SIG_IGN)
        _say(options.ready_fd, "refused it was told to end while it started")
        folder = endpoint.folder_of(address)
        if endpoint.holder(folder) == os.getpid():
            awaited = options.starter is not None and is_alive(options.starter)
            endpoint.remove_folder(folder, awaited=awaited)
            if awaited:
                os.closerange(3, 4096)  # above all the lock: the starter is to start another broker
                see_to_folder(address)
        else:
            os.closerange(
                3, 4096
            )  # The lock may have been taken just now, and not name our process id yet.
            endpoint.tidy(folder)
            with contextlib.suppress(OSError):  # the folder was made, and not locked yet
                folder.rmdir()
        return 0


def _start(address: str, options: argparse.Namespace) -> int:
    """Take the place at `address` and serve there. Returns the exit status."""
    try:
        if options.ready_fd is not None:
            _detach(options.ready_fd)
        folder = endpoint.folder_of(address)
        lock = endpoint.claim(folder)
        if lock is None and options.persistent and options.ready_fd is None:
            lock = await_place(folder, address, lambda line: _say(None, f"waits {line}"))
            if lock is None:
                return 0  # SIGTERM has ended the wait
    except (BrokerGone, OSError) as error:
        _say(options.ready_fd, f"refused {_in_words(error, address)}")
        return 2
    if lock is None:
        _say(options.ready_fd, f"busy there is one already at {address}")
        return 3
    return _serve(address, folder, options)


def _say(ready_fd: int | None, text: str) -> None:
    """Write one line to the starter; without a starter, to the terminal."""
    if ready_fd is not None:
        with contextlib.suppress(OSError):  # the starter is gone
            os.write(ready_fd, f"{text}\n".encode())
        os.close(ready_fd)
    elif text.startswith("ready"):
        print(text, flush=True)
    else:
        print(f"trunkline broker: {text.partition(' ')[2]}", file=sys.stderr)


def _in_words(error: Exception, address: str) -> str:
    """Say why no broker could be set up, and how to mend it."""
    if isinstance(error, BrokerGone):
        return str(error)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if getattr(error, "errno", None) == errno.EAGAIN:
        return NO_THREAD
    if getattr(error, "errno", None) in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return f"{why}: too many processes or open files, or too little memory (`ulimit -a`)"
    folder = endpoint.folder_of(address)
    return f"its folder {folder} cannot be used ({why}); set TRUNKLINE_RUNTIME to another one"


def _serve(address: str, folder: Path, options: argparse.Namespace) -> int:
    """Set a broker up, tell the starter, and serve to the end. Returns the exit status."""
    try:
        broker = _set_up(address, folder, options)
    except Exception as error:
        if options.ready_fd is not None or not isinstance(error, (BrokerGone, OSError)):
            traceback.print_exc()  # into the log
        _say(options.ready_fd, f"refused {_in_words(error, address)}")
        endpoint.remove_folder(folder)
        return 2
    try:
        broker.run(lambda: _say(options.ready_fd, f"ready {address}"))
    finally:
        if broker.place.folder_is_ours:
            endpoint.remove_folder(folder, awaited=broker.ended_early)
    return 0


def _set_up(address: str, folder: Path, options: argparse.Namespace) -> Broker:
    """Make the zygote and the broker, in this order: the fork comes before any thread."""
    from trunkline.broker.zygote import Zygote

    if options.ready_fd is not None:
        os.chdir("/")
        _log_to(folder)
    _raise_file_limit()
    zygote = Zygote(WORKER, PRELOAD, address)
    try:
        endpoint.sweep()
        from trunkline.broker.router import Broker

        return Broker(address, zygote, persistent=options.persistent, starter=options.starter)
    except BaseException:
        zygote.close()
        raise


if __name__ == "__main__":
    sys.exit(main())
