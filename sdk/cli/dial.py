"""`trunkline dial`: netcat for every scheme."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from trunkline.cli import Failed
from trunkline.cli.lines import Lines
from trunkline.cli.texts import command_parser, number, seconds
from trunkline.errors import AddressError, BrokerGone, DeadHandle
from trunkline.proxy.connection import Connection
from trunkline.wire import endpoint

ENV = "TRUNKLINE_ADDRESS"
ANSWER_S = 5.0
"""Seconds that a broker has to answer, while several brokers are asked about a handle."""

_EXAMPLES = """\
trunkline dial tcp://127.0.0.1:7000
echo '{"op":"subscribe"}' | trunkline dial 'wss://127.0.0.1:9443/ws|reconnect=true' --json
trunkline dial wss://127.0.0.1:9443/ws -o reconnect=true -o 'payload={"op":"ping"}' --count 10
trunkline dial 'sqlite3://trades.db' -e 'SELECT count(*) FROM ticks'
trunkline dial 'mqtt://127.0.0.1:1883?topic=orders/#&qos=1' --json
trunkline dial 'kafka://127.0.0.1:9092/orders' -o group=desk --count 10
trunkline dial @address.txt          (a password in the file is in no process list)
trunkline dial 6837697024492336893   (a handle that fd() gave)"""


_ADDRESS = (
    f"SCHEME://..., a handle, @FILE, - (first line of standard input); default: the variable {ENV}"
)


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "dial",
        "Open a connection: print what arrives, send the lines of standard input, execute SQL on databases.",
        _EXAMPLES,
        _option_table(),
    )
    add = made.add_argument
    add("address", metavar="ADDRESS", nargs="?", help=_ADDRESS)
    add(
        "-o",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option, see below",
    )
    add(
        "-e",
        "--exec",
        action="append",
        default=[],
        metavar="SQL",
        help="execute this instead of standard input",
    )
    add(
        "--timeout",
        type=seconds,
        metavar="S",
        help="seconds to open the connection in (default 30)",
    )
    add("--count", type=number, metavar="N", help="end after N messages")
    add(
        "-q",
        dest="quit_s",
        type=seconds,
        metavar="S",
        help="end S seconds after standard input did",
    )
    add("--json", action="store_true", help="a JSON object per message, outage or result")
    add("--hex", action="store_true", help="messages as a hex dump")
    add(
        "--handle",
        action="store_true",
        help="say the connection's handle, for Dial(handle) elsewhere",
    )
    return made


def _option_table() -> str:
    """The help for all options and all parameters of message brokers."""
    from trunkline.address import OPTIONS, PARAMS

    lines = ["options of -o (or after the address: 'ADDRESS|name=value&name=value'):"]
    lines += [f"  {name:<20}{option.help}" for name, option in OPTIONS.items()]
    for protocol, rows in PARAMS.items():
        lines += ["", f"{protocol}'s own, in its address ('?name=value&name=value') or as options:"]
        lines += [f"  {name:<20}{param.help}" for name, param in rows.items()]
    return "\n".join([*lines, ""])


def run(options: argparse.Namespace) -> int:
    """Find the address, open the connection and use it until its end; returns the exit code."""
    with Lines(0) as lines, _said_on_stderr():
        address = _find_address(options.address, lines)
        with _open_connection(address, options) as connection:
            return _use_connection(connection, options, lines)


def _use_connection(connection: Connection, options: argparse.Namespace, lines: Lines) -> int:
    """Hand the connection to the statements' or the messages' part of the command."""
    if options.handle:
        print(f"trunkline: handle {connection.fd()}", file=sys.stderr)
    if connection._about.executes:
        from trunkline.cli.statements import run_statements

        return run_statements(connection, options, lines)
    if options.exec:
        raise Failed(f"{connection._about.scheme}:// has no exec: leave -e away")
    from trunkline.cli.messages import run_messages

    return run_messages(connection, options, lines)


def _find_address(given: str | None, lines: Lines) -> str:
    """The address to dial.

    It need not be in the arguments, which every user of the machine can read.
    """
    if given is None:
        text = os.environ.get(ENV)
        if not text:
            raise AddressError(f"say what to dial: an address, @FILE, -, or the variable {ENV}")
    elif given == "-":
        text = lines.get() or ""
    elif given.startswith("@"):
        try:
            with open(given[1:], encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Failed(f"the address cannot be read from {given[1:]}: {why}") from None
    else:
        text = given
    if not text.strip():
        raise AddressError("the address is empty")
    return text.strip("\r\n")


def _open_connection(address: str, options: argparse.Namespace) -> Connection:
    """Dial the address, or attach to the connection of a handle."""
    from trunkline.proxy.dial import connect

    given = _read_options(options.options)
    if options.timeout is not None:
        given["timeout"] = options.timeout
    if address.isdecimal():
        return _attach_to_handle(int(address))
    return connect(address, given)


def _read_options(pairs: list[str]) -> dict[str, object]:
    """Read `-o name=value` for Dial; `payload` may be repeated."""
    given: dict[str, object] = {}
    payloads: list[str] = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise AddressError(f"-o takes name=value, not {name!r}")
        if name == "payload":
            payloads.append(value)
        else:
            given[name] = value
    return {**given, "payload": payloads} if payloads else given


def _attach_to_handle(handle: int) -> Connection:
    """Attach to a connection by its handle.

    The broker of TRUNKLINE_BROKER is asked, or else every running broker of this user. DeadHandle
    when no broker knows the handle.
    """
    from trunkline.proxy.dial import connect, shutdown
    from trunkline.proxy.discovery import find_brokers

    named = os.environ.get(endpoint.ENV)
    brokers = [named] if named else [broker.address for broker in find_brokers()[0]]
    for address in brokers:
        if not endpoint.alive(address):
            continue
        os.environ[endpoint.ENV] = address
        try:
            return connect(handle) if named else connect(handle, ANSWER_S)
        except DeadHandle:
            shutdown()
        # A hanging broker does not keep the command from asking the next broker.
        except BrokerGone:
            if named:
                raise
            shutdown()
    if not named:
        os.environ.pop(endpoint.ENV, None)
    where = f"the broker at {named} has no" if named else "no running broker has a"
    raise DeadHandle(f"{where} connection of this handle; it has ended, or is another user's")


@contextlib.contextmanager
def _said_on_stderr() -> Iterator[None]:
    """Show the library's log on stderr inside the block: outages and other events."""
    logger = logging.getLogger("trunkline")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("trunkline: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
