"""The demo's second process: stores ticks through a connection that the strategy opened.

The first line of standard input is the handle, each further one a tick; at the end it says what it did.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from trunkline import Dial, shutdown

INSERT = "INSERT INTO ticks VALUES (?, ?, ?, ?)"


def main() -> int:
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
    with contextlib.suppress(BrokenPipeError):  # the strategy was stopped and does not listen
        os.write(1, json.dumps({"stored": stored, "failed": failed}).encode())
    shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
