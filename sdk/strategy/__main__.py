"""`python -m trunkline.strategy FILE`: the runner alone, without the rest of the command line."""

from __future__ import annotations

import argparse
import sys

from trunkline.strategy.runner import run


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trunkline.strategy", description=__doc__)
    parser.add_argument("--log", metavar="FILE", help="append every log row to FILE as a line of JSON")
    parser.add_argument("--data", metavar="FOLDER", help="where _G and DBExec keep their files")
    parser.add_argument("--plain", action="store_true", help="plain lines, even on a terminal")
    parser.add_argument("file", help="the strategy")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the strategy's sys.argv[1:]")
    return parser.parse_args()


if __name__ == "__main__":
    given = _options()
    plain = False if given.plain else None
    sys.exit(run(given.file, argv=given.arguments, console=plain, log_file=given.log, data=given.data))
