"""The guard ends the demo's servers even when the demo is killed.

Its standard input is a pipe that ends with the demo. The demo writes `+pid` for every process
started (the leader of a process group) and `-pid` for its end. When the pipe ends, for any reason,
the guard kills the remaining groups and removes the folder. The guard runs as a file, without the
package: it starts in a moment and depends on nothing that can break.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

REMOVE_S = 10.0
"""Seconds that the guard tries to remove the folder."""
LOOK_S = 0.05


def main() -> None:
    """Note processes until standard input ends, then kill the remaining groups and remove the
    folder."""
    folder = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    groups: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(pid)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    until = time.monotonic() + REMOVE_S
    while os.path.exists(folder) and time.monotonic() < until:
        # Processes that are ending may still write into the folder.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
