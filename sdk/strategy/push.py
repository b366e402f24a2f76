"""`Log(..., "@")`: a message to people, by a command or a webhook that `TRUNKLINE_PUSH` names.

`TRUNKLINE_PUSH` is a URL (the text is posted as JSON: `{"text": ..., "strategy": ...}`) or a command line
(the text comes on its standard input). It may hold a secret, so it is taken out of the environment and shown
nowhere. Pushes go out one after the other from a thread of their own: a slow receiver delays no trade.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable

__all__ = ["Push"]

WAITING = 100
"""Pushes that may wait; beyond that the new one is dropped, with a line in the log."""
SEND_S = 10.0
"""For one push."""
END_S = 5.0
"""How long the end of a strategy waits for what is left."""


class Push:
    """Sends texts; `warn` gets a line when that is not possible."""

    def __init__(self, warn: Callable[[str], None], name: str) -> None:
        self._target = os.environ.pop("TRUNKLINE_PUSH", "").strip()
        self._warn = warn
        self._name = name
        self._told = False
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def send(self, text: str) -> None:
        """Hand over a text; never waits."""
        if not self._target:
            if not self._told:
                self._told = True
                self._warn(
                    'Log(..., "@") reaches nobody: set TRUNKLINE_PUSH to a command or to the URL of a webhook'
                )
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trunkline-push", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._warn(f"a push was dropped: {WAITING} others wait for TRUNKLINE_PUSH")

    def close(self) -> None:
        """Wait a moment for what is left."""
        if self._thread is not None:
            try:
                self._waiting.put(None, timeout=END_S)
            except queue.Full:
                return
            self._thread.join(END_S)

    def _run(self) -> None:
        while (text := self._waiting.get()) is not None:
            try:
                self._send(text)
            except Exception as error:
                self._warn(f"a push could not be sent ({self._why(error)}); check TRUNKLINE_PUSH")

    def _send(self, text: str) -> None:
        if self._target.startswith(("http://", "https://")):
            body = json.dumps({"text": text, "strategy": self._name}).encode()
            request = urllib.request.Request(self._target, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=SEND_S):
                return
        subprocess.run(
            shlex.split(self._target),
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SEND_S,
            check=True,
        )

    @staticmethod
    def _why(error: Exception) -> str:
        """In words that do not quote the target."""
        if isinstance(error, subprocess.CalledProcessError):
            return f"the command ended with status {error.returncode}"
        if isinstance(error, (subprocess.TimeoutExpired, TimeoutError)):
            return f"no end within {SEND_S:.0f} s"
        code = getattr(error, "code", None)
        if isinstance(code, int):
            return f"the webhook answered {code}"
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        return str(reason) if isinstance(reason, (str, OSError)) else type(error).__name__
