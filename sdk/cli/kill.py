"""`trunkline kill`: end connections."""

from __future__ import annotations

import argparse
import sys

from trunkline.cli import FAILED, OK, USAGE, Failed
from trunkline.cli.brokers import Listing, kill, listing
from trunkline.cli.texts import command_parser
from trunkline.errors import BrokerGone


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "kill",
        "End connections: whoever reads from one sees the link as lost for good.",
        "trunkline kill 3\ntrunkline kill 4b1f:3 4b1f:5\ntrunkline kill --all",
    )
    made.add_argument("id", nargs="*", help="as `trunkline ps` shows it")
    made.add_argument("--all", action="store_true", help="every connection of this user")
    return made


def run(options: argparse.Namespace) -> int:
    if bool(options.id) == options.all:
        print("trunkline kill: name ids, or --all; `trunkline ps` shows them", file=sys.stderr)
        return USAGE
    found = listing()
    code = OK
    for trouble in found.troubles:
        print(f"trunkline: {trouble}", file=sys.stderr)
        code = FAILED if found.silent else code
    if options.all:
        wanted = [(shown, broker.address, str(row["id"])) for shown, broker, row in found.rows()]
        return max([code, *(_kill(*each) for each in wanted)])
    return max([code, *(_kill_named(found, given) for given in options.id)])


def _kill_named(found: Listing, given: str) -> int:
    try:
        return _kill(given, *_locate(found, given))
    except Failed as error:
        print(f"trunkline: {error}", file=sys.stderr)
        return FAILED


def _locate(found: Listing, given: str) -> tuple[str, str]:
    """The broker and the number that an id on the command line means."""
    name, colon, number = given.rpartition(":")
    places = [
        (broker.address, number)
        for broker in found.brokers
        for row in broker.connections
        if str(row["id"]) == number and (not colon or (name and broker.name.startswith(name)))
    ]
    if len(places) > 1:
        raise Failed(f"{given} is in several brokers; say which, as `trunkline ps` shows it (broker:id)")
    if not places:
        raise Failed(f"there is no connection {given}; `trunkline ps` shows those there are")
    return places[0]


def _kill(shown: str, address: str, number: str) -> int:
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
