"""`trunkline kill`: end connections."""

from __future__ import annotations

import argparse
import sys

from trunkline.cli import FAILED, OK, USAGE, Failed
from trunkline.cli.texts import command_parser
from trunkline.errors import BrokerGone
from trunkline.proxy.brokers import Broker, Listing, kill, listing


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "kill",
        "End connections. Programs that hold one read its loss and are told the reason.",
        "trunkline kill 3\ntrunkline kill 4b1f:3 4b1f:5\ntrunkline kill --all",
        "--all ends the connections of all brokers of this user. Where TRUNKLINE_BROKER or\n"
        "TRUNKLINE_RUNTIME is set, it ends those of that broker and of the brokers in that folder alone,\n"
        "and says how many live elsewhere; a plain number means the same brokers.\n",
    )
    made.add_argument("id", nargs="*", help="as `trunkline ps` shows it")
    made.add_argument("--all", action="store_true", help="every connection (see below)")
    return made


def run(options: argparse.Namespace) -> int:
    """End the named connections, or all connections; returns the exit code."""
    if bool(options.id) == options.all:
        print("trunkline kill: name ids, or --all; `trunkline ps` shows them", file=sys.stderr)
        return USAGE
    found = listing()
    for complaint in found.complaints():
        print(f"trunkline: {complaint}", file=sys.stderr)
    done = (
        _kill_all(found) if options.all else max(_kill_named(found, given) for given in options.id)
    )
    return max(done, FAILED if found.is_failed() else OK)


def _kill_all(found: Listing) -> int:
    """End every connection of the brokers that the environment names, and print their number."""
    wanted = [(shown, broker, str(row["id"])) for shown, broker, row in found.rows()]
    codes = [
        _kill_connection(shown, broker.address, number)
        for shown, broker, number in wanted
        if broker.addressed
    ]
    ended = codes.count(OK)
    text = f"{_count_text(ended)} ended" if codes else "no connections to end"
    if others := len(wanted) - len(codes):
        names = " and ".join(found.scope.variables())
        text += f"; {_count_text(others)} elsewhere left alone: unset {names} to end those of all your brokers"
    print(text)
    return max(codes, default=OK)


def _count_text(number: int) -> str:
    return f"{number} connection{'' if number == 1 else 's'}"


def _kill_named(found: Listing, given: str) -> int:
    """End the connection of an id and print the outcome; returns the exit code."""
    try:
        return _kill_connection(given, *_locate_connection(found, given))
    except Failed as error:
        print(f"trunkline: {error}", file=sys.stderr)
        return FAILED


def _locate_connection(found: Listing, given: str) -> tuple[str, str]:
    """The broker and the number of the connection that an id on the command line means."""
    name, colon, number = given.rpartition(":")
    places = [
        (broker.address, number)
        for broker in found.brokers
        for row in broker.connections
        if str(row["id"]) == number and _is_meant(broker, name if colon else None)
    ]
    if len(places) > 1:
        raise Failed(
            f"{given} is in several brokers; say which, as `trunkline ps` shows it (broker:id)"
        )
    if not places:
        raise Failed(f"there is no connection {given}; `trunkline ps` shows those there are")
    return places[0]


def _is_meant(broker: Broker, name: str | None) -> bool:
    """Whether an id with the broker's name `name` (None: without a name) can mean a connection of
    this broker."""
    if name is None:
        return broker.addressed
    return broker.goes_by(name)


def _kill_connection(shown: str, address: str, number: str) -> int:
    """End a connection and print the outcome; returns the exit code.

    `shown` is the id for people.
    """
    try:
        there = kill(address, number)
    except BrokerGone as error:
        print(f"trunkline: {shown}: {error}", file=sys.stderr)
        return FAILED
    if not there:
        print(f"trunkline: there is no connection {shown} any more", file=sys.stderr)
        return FAILED
    print(f"ended {shown}")
    return OK
