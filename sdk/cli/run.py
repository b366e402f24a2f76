"""`trunkline run`: run a strategy script with the globals of the platform FMZ."""

from __future__ import annotations

import argparse
import sys

from trunkline.cli.texts import command_parser


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "run",
        "Run a strategy script: init() if it is there, main(), and onexit() however it ends.",
        "trunkline run strategy.py\n"
        "trunkline run --plain --log strategy.jsonl strategy.py BTCUSDT\n"
        "trunkline run --name btc --set symbol=BTCUSDT --set fast=12 strategy.py\n"
        "TRUNKLINE_BROKER=ipc:///run/shared/broker.sock trunkline run strategy.py",
        "exit codes: 0 main() returned, 1 it raised, 2 it cannot be read, 128 + n stopped by signal n\n",
    )
    made.add_argument(
        "--log", metavar="FILE", help="append every log row to FILE as a line of JSON"
    )
    made.add_argument("--data", metavar="DIR", help="where _G and DBExec keep their files")
    made.add_argument("--plain", action="store_true", help="plain lines, even on a terminal")
    made.add_argument(
        "--name",
        metavar="ID",
        help="of this run, in its storage, log and `ps`; two runs of a file need two",
    )
    made.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="a global of the script; numbers, true, false, null and JSON are read as such",
    )
    made.add_argument(
        "--params", metavar="FILE", help="globals of the script, from a TOML or JSON file"
    )
    # As for a subcommand, all words after the file belong to the script, even words that look like
    # options.
    made.add_argument(
        "command",
        metavar="FILE",
        nargs="A...",
        help="the strategy; what follows is its sys.argv[1:]",
    )
    return made


_OURS = ("--set", "--params", "--name", "--log", "--data", "--plain")


def run(options: argparse.Namespace) -> int:
    """Run the strategy; returns its exit code.

    Options of `trunkline run` after the file are refused.
    """
    from trunkline import strategy

    file, *arguments = options.command[1:] if options.command[:1] == ["--"] else options.command
    if arguments[:1] == ["--"]:
        del arguments[0]
    elif ours := [
        name for name in (given.partition("=")[0] for given in arguments) if name in _OURS
    ]:
        # The script would ignore such an option, and the strategy would trade with its defaults.
        what = f"{ours[0]} stands behind {file}: write it before the file"
        print(f"trunkline: {what}, or -- before the script's own arguments", file=sys.stderr)
        return 2
    console = False if options.plain else None
    return strategy.run(
        file,
        argv=arguments,
        console=console,
        log_file=options.log,
        data=options.data,
        name=options.name,
        settings=options.settings,
        params=options.params,
    )
