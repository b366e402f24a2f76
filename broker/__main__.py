"""`python -m trunkline.broker`: one broker process, as the first Dial or `trunkline broker` starts it."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path

from trunkline import runtime
from trunkline.errors import BrokerGone

WORKER = "trunkline.actors.worker:main"
PRELOAD = ["trunkline.actors.preload"]


def _detach() -> None:
    """Leave the starter's session and be nobody's child, so that it never has to wait for us."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _log_to(folder: Path) -> None:
    fd = os.open(folder / "broker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.close(null)


def _raise_file_limit() -> None:
    """Each peer is a file descriptor; the usual soft limit of 1024 is no protection here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trunkline.broker", description=__doc__)
    parser.add_argument("--address", default=None, help="ipc:///folder/broker.sock; a new one by default")
    parser.add_argument("--persistent", action="store_true", help="do not end with the last client")
    parser.add_argument("--ready-fd", type=int, default=None, help="write a line there when ready, detach")
    options = parser.parse_args(argv)
    address: str = options.address or runtime.new_address()
    try:
        folder = runtime.folder_of(address)
        if options.ready_fd is not None:
            _detach()
        runtime.make_folder(folder)
        lock = runtime.lock(folder)
    except (BrokerGone, OSError) as error:
        print(f"trunkline broker: {error}", file=sys.stderr)
        return 2
    if lock is None:
        print(f"trunkline broker: there is one already at {address}", file=sys.stderr)
        return 3
    return _serve(address, folder, options)


def _serve(address: str, folder: Path, options: argparse.Namespace) -> int:
    from trunkline.broker.zygote import Zygote

    os.umask(0o077)
    runtime.sweep()
    if options.ready_fd is not None:
        os.chdir("/")
        _log_to(folder)
    _raise_file_limit()
    zygote = Zygote(WORKER, PRELOAD)
    from trunkline.broker.router import Broker

    broker = Broker(address, zygote, persistent=options.persistent)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    else:
        print(f"ready {address}", flush=True)
    try:
        broker.run()
    finally:
        runtime.remove_folder(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
