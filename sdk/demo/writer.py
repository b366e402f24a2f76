"""The demo's second process: stores ticks through a connection that the strategy opened.

The first line of standard input is the connection's handle; every further line is a tick. At the
end of input the process prints its counts as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from trunkline import Dial, shutdown

INSERT = "INSERT INTO ticks VALUES (?, ?, ?, ?)"


def main() -> int:
    """Store ticks until standard input ends; returns the exit code."""
    connection = Dial(int(sys.stdin.readline()))
    if connection is None:
        return 1
    stored = failed = 0
    with connection:
        for line in sys.stdin:
            if connection.exec(INSERT, *json.loads(line)) is None:
                failed += 1
            else:
                stored += 1
    # A strategy that was stopped does not read the counts.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"stored": stored, "failed": failed}).encode())
    shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
