"""The command line: `trunkline COMMAND ...` and `python -m trunkline`.

Every command is a module here with `parser()` and `run(options)`, imported only when the command is
called. This file holds the common parts: finding the command, exit codes, and the handling of
mistakes, Ctrl-C and broken pipes.

Exit codes: 0 done, 1 failed, 2 called in a wrong way, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from trunkline.errors import AddressError, TrunklineError

__all__ = ["COMMANDS", "FAILED", "INTERRUPTED", "OK", "USAGE", "Failed", "main"]

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

COMMANDS = {
    "run": "run a strategy script",
    "dial": "open a connection by hand: netcat for every scheme",
    "ps": "list every connection",
    "top": "watch every connection",
    "kill": "end connections",
    "broker": "run a broker that several programs share",
    "doctor": "check that everything works on this machine",
    "demo": "see all of it at work, offline",
}

_EPILOG = """\
examples:
  trunkline demo
  trunkline run strategy.py
  trunkline dial 'wss://127.0.0.1:9443/ws|reconnect=true'
  trunkline ps

`trunkline COMMAND --help` tells more about each.
exit codes: 0 done, 1 failed, 2 called in a wrong way, 130 ended by Ctrl-C
"""


class Failed(Exception):
    """A command cannot do its task. The text says why and what to do. Exit code 1."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. `argv`: the arguments; None: those of the process."""
    _replace_closed_files()
    try:
        code = _run_command(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _reader_gone()
        print(f"trunkline: the output cannot be written: {error.strerror}", file=sys.stderr)
        return FAILED
    return code


def _replace_closed_files() -> None:
    """Replace None by an open file: Python sets a standard file to None if it was closed at the
    start (`>&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run_command(argv: list[str]) -> int:
    """Run a command; errors become exit codes."""
    try:
        if not argv or argv[0] not in COMMANDS:
            return _top_level(argv)
        command = import_module(f"trunkline.cli.{argv[0]}")
        options = command.parser().parse_args(argv[1:])
        code: int = command.run(options)
    # From argparse, for --help, --version and mistakes.
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    except AddressError as error:
        return _print_error(error, USAGE)
    except (Failed, TrunklineError) as error:
        return _print_error(error, FAILED)
    return code


def _top_level(argv: list[str]) -> int:
    """The command line without a known command: help, version, or a suggestion."""
    parser = argparse.ArgumentParser(
        prog="trunkline",
        usage="trunkline COMMAND [OPTION...]",
        description="Dial any connection in a process of its own.",
        epilog="commands:\n"
        + "".join(f"  {n:<8} {t}\n" for n, t in COMMANDS.items())
        + "\n"
        + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trunkline {_read_version()}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    given, _ = parser.parse_known_args(argv)
    if given.command is None:
        if argv:
            parser.error(f"unrecognized arguments: {' '.join(argv)}")
        parser.print_help()
        return OK
    near = get_close_matches(given.command, COMMANDS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(COMMANDS)}"
    print(f"trunkline: there is no command {given.command!r}; {hint}", file=sys.stderr)
    return USAGE


def _read_version() -> str:
    from trunkline import __version__

    return __version__


def _print_error(error: BaseException, code: int) -> int:
    """Print an error for people, after the output so far; returns `code`."""
    sys.stdout.flush()
    print(f"trunkline: {error}", file=sys.stderr)
    return code


def _reader_gone() -> int:
    """End quietly after the reader of our output has gone (`| head`).

    Later output, even at exit, is discarded.
    """
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    return OK
