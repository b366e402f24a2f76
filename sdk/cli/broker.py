"""`trunkline broker`: a broker in the foreground, for several programs to share."""

from __future__ import annotations

import argparse
import os
import shlex

from trunkline import runtime
from trunkline.cli import OK, Failed
from trunkline.cli.texts import command_parser


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "broker",
        "Run a broker that does not end with its last client. Programs that have its address in\n"
        "TRUNKLINE_BROKER dial through it, and can hand each other connections by fd().",
        "trunkline broker\ntrunkline broker --address ipc:///run/user/1000/shared/broker.sock",
        "Ctrl-C or SIGTERM ends it in good order, and every connection with it: exit code 0.\n",
    )
    made.add_argument("--address", metavar="A", help="ipc:///FOLDER/broker.sock; a new one by default")
    return made


def run(options: argparse.Namespace) -> int:
    address = options.address or runtime.new_address()
    folder = runtime.folder_of(address)
    lock = None
    try:
        runtime.make_folder(folder)
        lock = runtime.lock(folder)
    except OSError as error:
        raise Failed(f"no broker can be started in {folder}: {error.strerror}") from None
    if lock is None:
        raise Failed(f"there is a broker already at {address}")
    _serve(address)
    return OK


def _serve(address: str) -> None:
    # The zygote is forked before anything here has a thread or a ZeroMQ context.
    from trunkline.broker.__main__ import PRELOAD, WORKER, _raise_file_limit
    from trunkline.broker.zygote import Zygote

    os.umask(0o077)
    runtime.sweep()
    _raise_file_limit()
    zygote = Zygote(WORKER, PRELOAD)
    from trunkline.broker.router import Broker

    broker = Broker(address, zygote, persistent=True)
    print(f"broker ready at {address}; Ctrl-C ends it. Programs that are to share it need:")
    print(f"export {runtime.ENV}={shlex.quote(address)}", flush=True)
    try:
        broker.run()
    finally:
        runtime.remove_folder(runtime.folder_of(address))
