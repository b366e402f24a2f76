"""The demo's strategy process and its broker, seen from the demo."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.deadline import Deadline
from trunkline.proxy.brokers import ask
from trunkline.proxy.launch import ensure_broker
from trunkline.system.interpreter import command, environment
from trunkline.wire import endpoint
from trunkline.wire.envelope import Kind

__all__ = ["StrategyProcess"]

END_S = 20.0
"""Seconds that the strategy has to end before it is killed."""
ALONE_S = 1.0
"""Seconds that the broker has to end by itself, before the demo ends it."""
LEAVE_S = 8.0
"""Seconds that the broker has to end and remove its folder."""
LOOK_S = 0.02
QUIET_S = 3.0
"""Seconds that the broker has to answer."""


class StrategyProcess:
    """A strategy of this package in a session of its own: only the demo's own signal reaches the
    strategy.

    The strategy's first argument is our process id. If the strategy asked for its parent later, the
    demo might have ended, and another process might be its parent.
    """

    def __init__(self, folder: Path, name: str, arguments: Sequence[str], *, plain: bool) -> None:
        script = folder / "strategy.py"
        shutil.copyfile(Path(__file__).with_name(name), script)
        self.broker = endpoint.new_address()
        # The demo starts the broker itself: a strategy that is stopped at its start could leave a
        # broker behind.
        ensure_broker(self.broker)
        options = ["--data", str(folder), *(["--plain"] if plain else [])]
        self.process = subprocess.Popen(
            command("trunkline", "run", *options, str(script), str(os.getpid()), *arguments),
            stdin=subprocess.PIPE,
            text=True,
            env=environment({**os.environ, endpoint.ENV: self.broker}),
            start_new_session=True,
        )

    def running(self) -> bool:
        return self.process.poll() is None

    def tell(self, command: str) -> None:
        """Write a line to the strategy's standard input, which the strategy reads between two
        messages."""
        assert self.process.stdin is not None
        # The strategy may have ended; the callers that wait for the strategy notice that.
        with contextlib.suppress(OSError):
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()

    def connections(self) -> list[dict[str, Any]]:
        """The broker's rows of the strategy's connections."""
        answer = ask({self.broker: (Kind.LIST, ())}, QUIET_S).get(self.broker)
        rows = answer["connections"] if isinstance(answer, dict) else []
        return [row for row in rows if self.process.pid in row.get("users", ())]

    def end(self) -> None:
        """End the strategy, its workers and its broker, and wait until they have ended."""
        if self.running():
            self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self._end_broker()

    def _end_broker(self) -> None:
        """Wait for the broker's end.

        A broker ends with its last client; a broker that never had a client gets SIGTERM.
        """
        alone, gone = Deadline(ALONE_S), Deadline(LEAVE_S)
        while endpoint.folder_of(self.broker).exists() and not gone.expired():
            if alone.expired():
                alone = Deadline(LEAVE_S)
                answer = ask({self.broker: (Kind.LIST, ())}, LEAVE_S).get(self.broker)
                if isinstance(answer, dict):
                    os.kill(answer["pid"], signal.SIGTERM)
            time.sleep(LOOK_S)
