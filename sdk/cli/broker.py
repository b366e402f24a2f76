"""`trunkline broker`: a broker in the foreground, for several programs to share."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import sys
from typing import TextIO

from trunkline.cli import FAILED, OK, Failed
from trunkline.cli.texts import command_parser
from trunkline.errors import BrokerGone
from trunkline.wire import endpoint


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "broker",
        "Run a broker that does not end with its last client. Programs that have its address in\n"
        "TRUNKLINE_BROKER dial through it, and can hand each other connections by fd().",
        "trunkline broker\ntrunkline broker --address ipc:///run/user/1000/shared/broker.sock",
        "Ctrl-C, SIGTERM or SIGHUP ends it in good order, and every connection with it: exit code 0.\n"
        "Where a program has started a broker at the same address meanwhile, it waits for the end of\n"
        "that one and then takes over.\n",
    )
    made.add_argument(
        "--address", metavar="A", help="ipc:///FOLDER/broker.sock; a new one by default"
    )
    return made


def run(options: argparse.Namespace) -> int:
    """Run a broker until it is ended; returns the exit code."""
    address = options.address or endpoint.new_address()
    try:
        endpoint.folder_of(address)
    # The error names a variable, but the address came from an option.
    except BrokerGone as error:
        if not options.address:
            raise
        named = str(error).replace(endpoint.ENV, "--address")
        raise Failed(named.replace(f"set {endpoint.ROOT_ENV} to", "give in --address")) from None
    # The broker runs in this very process: ending the command ends the broker.
    from trunkline.broker.__main__ import main

    with contextlib.redirect_stdout(_Announcer(sys.stdout)):
        return FAILED if main(["--persistent", "--address", address]) else OK


class _Announcer(io.TextIOBase):
    """Translates the broker's line for programs (`ready ADDRESS`) into lines for people."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            word, _, address = line.partition(" ")
            self._stream.write(_ready_text(address) if word == "ready" else line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _ready_text(address: str) -> str:
    return (
        f"broker ready at {address}; Ctrl-C ends it. Programs that are to share it need:\n"
        f"export {endpoint.ENV}={shlex.quote(address)}\n"
    )
