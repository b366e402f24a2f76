"""One worker in an interpreter of its own, for systems whose libraries do not survive a fork.

The command is `python starting.py trunkline.broker.single MODULE:FUNCTION`. The worker's arguments
come through standard input, because they hold secrets.
"""

from __future__ import annotations

import sys
from importlib import import_module

import msgpack


def main(entry: str) -> None:
    """Run the worker's function with the arguments from standard input."""
    module, _, name = entry.partition(":")
    getattr(import_module(module), name)(msgpack.unpackb(sys.stdin.buffer.read()))


if __name__ == "__main__":
    main(sys.argv[1])
