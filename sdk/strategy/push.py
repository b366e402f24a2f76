"""`Log(..., "@")`: send a message to people, by the command or webhook in `TRUNKLINE_PUSH`.

`TRUNKLINE_PUSH` is a URL or a command line. A URL gets the text as JSON by POST: `{"text": ...,
"strategy": ...}`. A command gets the text on its standard input. The value may hold a secret:
`Push` takes it out of the environment and shows it nowhere. A thread of its own sends the pushes,
in their order, so that a slow receiver delays no trade.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import re
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

__all__ = ["Push"]

WAITING = 100
"""The most pushes that may wait. A further push is dropped, with a line in the log."""
SEND_S = 10.0
"""Seconds that a push may take."""
END_S = 5.0
"""Seconds that the end of a strategy waits for the remaining pushes."""
_LOGIN = re.compile(r"(https?://)([^/?#]*)@")
_SHELL = {"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"}
"""Words of a shell's syntax: a command line that holds such a word needs a shell."""


class Push:
    """Sends texts to `TRUNKLINE_PUSH`. `warn` gets a line when texts could not be sent."""

    def __init__(self, warn: Callable[[str], None], name: str) -> None:
        self._target = os.environ.pop("TRUNKLINE_PUSH", "").strip()
        self._warn = warn
        self._name = name
        self._told = False
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._left = 0
        """Texts handed over that are neither sent nor given up yet."""
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def send(self, text: str) -> None:
        """Hand over a text for sending; never waits."""
        if not self._target:
            if not self._told:
                self._told = True
                self._warn(
                    'Log(..., "@") reaches nobody: set TRUNKLINE_PUSH to a command or to the URL of a webhook'
                )
            return
        with self._lock:
            self._left += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._send_waiting, name="trunkline-push", daemon=True
                )
                self._thread.start()
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._count_settled()
            self._warn(f"a push was dropped: {WAITING} others wait for TRUNKLINE_PUSH")

    def close(self) -> None:
        """Wait `END_S` seconds for the remaining pushes, and warn of those that were not sent."""
        if self._thread is None:
            return
        try:
            self._waiting.put(None, timeout=END_S)
            self._thread.join(END_S)
        except queue.Full:
            pass
        with self._lock:
            left = self._left
        if left and self._thread.is_alive():
            self._warn(
                f"{left} pushes were not sent: TRUNKLINE_PUSH took longer than the end may wait"
            )
            self._ended.set()
            if self._process is not None:
                # The command must not outlive the strategy. A process that has ended gets no
                # signal.
                self._process.kill()
                # The thread waits for the command's end.
                self._thread.join(1)

    def _send_waiting(self) -> None:
        """Send the waiting texts in their order, until None comes or the strategy ends.

        Runs on `trunkline-push`.
        """
        while (text := self._waiting.get()) is not None and not self._ended.is_set():
            try:
                self._send_text(text)
            except Exception as error:
                if self._ended.is_set():
                    return
                self._warn(
                    f"a push could not be sent ({self._reason_text(error)}); check TRUNKLINE_PUSH"
                )
            finally:
                self._count_settled()

    def _count_settled(self) -> None:
        """Count a text as sent or given up."""
        with self._lock:
            self._left -= 1

    def _send_text(self, text: str) -> None:
        """Send a text by the webhook or the command; raises an exception when the receiver does not
        take the text."""
        if self._target.startswith(("http://", "https://")):
            body = json.dumps({"text": text, "strategy": self._name}).encode()
            headers = {"Content-Type": "application/json"}
            url = self._target
            # User info as curl reads it: urllib would take the password for a host.
            if found := _LOGIN.match(url):
                url = found[1] + url[found.end() :]
                headers["Authorization"] = (
                    f"Basic {base64.b64encode(unquote(found[2]).encode()).decode()}"
                )
            request = urllib.request.Request(url, body, headers)
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=SEND_S):
                return
        words = self._split_command()
        quiet = subprocess.DEVNULL
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
            self._process = process
            try:
                process.communicate(text.encode("utf-8", "backslashreplace"), SEND_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)

    def _split_command(self) -> list[str]:
        """The words of the command, as a shell would split them."""
        try:
            return shlex.split(self._target)
        except ValueError as error:
            raise _CommandError(f"the command's quotes do not match: {error}") from None

    def _reason_text(self, error: Exception) -> str:
        """The reason of a failure, in words that do not quote the target."""
        if isinstance(error, subprocess.CalledProcessError):
            shell = _SHELL.intersection(error.cmd)
            hint = "; it is started without a shell: write sh -c '...' around it" if shell else ""
            return f"the command ended with status {error.returncode}{hint}"
        if isinstance(error, _CommandError):
            return str(error)
        if isinstance(error, (subprocess.TimeoutExpired, TimeoutError)):
            return f"no end within {SEND_S:.0f} s"
        code = getattr(error, "code", None)
        if isinstance(code, int):
            moved = ", with another address, which is not followed" if 300 <= code < 400 else ""
            return f"the webhook answered {code}{moved}"
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        return str(reason) if isinstance(reason, (str, OSError)) else type(error).__name__


class _CommandError(ValueError):
    """The command line cannot be parsed. The text does not quote the command."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would become a GET without the text, and would count as
    sent."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None
