"""What ends the demo's servers when the demo cannot: its standard input is a pipe that ends with the demo.

It is told of processes (`+pid`, each the leader of its group) and their ends (`-pid`). When the pipe ends,
whatever the reason, it kills what is left and removes the folder. Run as a file, without the package: it
starts in a moment and knows nothing that can break.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

REMOVE_S = 10.0
LOOK_S = 0.05


def main() -> None:
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
        # Others that end now may still write into it.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
