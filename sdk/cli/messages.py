"""`trunkline dial` on connections that are read and written: messages out, lines in.

Two threads: the main thread prints messages; the thread of standard input sends lines.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import sys
import threading
import time
from typing import Any

from trunkline.cli import FAILED, OK
from trunkline.cli.lines import Lines
from trunkline.cli.statements import plain_value
from trunkline.cli.texts import printable
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    OperationTimeout,
    RefusedError,
    TrunklineError,
    Unconfirmed,
)
from trunkline.message import Message
from trunkline.proxy.connection import Connection

__all__ = ["hex_lines", "run_messages"]

BYTE_STREAMS = frozenset(("tcp", "tls", "unix"))
"""Schemes whose messages are pieces of a stream of bytes."""
SLICE_MS = 200
"""Milliseconds of a read, after which the session looks at its deadline."""
DOWN_S = 0.05
"""Seconds to wait after a read that reports the outage."""
LAST_LINE_S = 1.0
"""Seconds that the end waits for a line that is being sent."""


def run_messages(connection: Connection, options: argparse.Namespace, lines: Lines) -> int:
    """Print until the peer ends, `--count` is reached, or `-q` seconds have passed since the end of
    the input."""
    session = _Session(connection, options)
    lines.feed(session.send, session.input_ended)
    return session.run()


class _Session:
    """A connection whose messages are printed."""

    def __init__(self, connection: Connection, options: argparse.Namespace) -> None:
        self._connection = connection
        self._stream = connection._about.scheme in BYTE_STREAMS
        self._envelopes: bool = options.json
        self._printer = _Printer(raw=self._stream, as_json=options.json, as_hex=options.hex)
        self._left: int | None = options.count
        self._quit_s: float | None = options.quit_s
        self._quit_at = Deadline(None)
        self._down = False
        # Held by the thread of standard input while it sends a line.
        self._sending = threading.Lock()
        # `_ending`: send no further line. `_ended_here`: an unsent line is not reported any more.
        self._ending = self._ended_here = False

    def run(self) -> int:
        """Print until the end, and let a line that is being sent arrive; returns the exit code."""
        try:
            return self._print_all()
        finally:
            self._ending = True
            # Wait for the line that is being sent.
            if self._sending.acquire(timeout=LAST_LINE_S):
                self._sending.release()
            # Later failures come from our own end, and are not reported.
            self._ended_here = True

    def _print_all(self) -> int:
        """Print messages and outages until the end; returns the exit code."""
        while not self._quit_at.expired():
            try:
                message = self._read_next()
            except BrokenError as error:
                if self._connection._member.pocket.ended:
                    return self._exit_code(error)
                self._show_outage()
                continue
            if message is not None or self._down:
                self._show_message(message)
            if self._left == 0:
                return OK
        return OK

    def _read_next(self) -> Message | str | bytes | None:
        """The next message, with its envelope for --json."""
        return (
            self._connection.receive(SLICE_MS)
            if self._envelopes
            else self._connection.read(SLICE_MS)
        )

    def _show_message(self, message: Message | str | bytes | None) -> None:
        """Print a message.

        After an outage, the first read that succeeds shows that the link is up.
        """
        if self._down:
            self._down = False
            self._printer.event("up")
        if message is not None:
            self._printer.message(message)
            if self._left is not None:
                self._left -= 1

    def _show_outage(self) -> None:
        """Print the beginning of an outage once."""
        if not self._down:
            self._down = True
            self._printer.event("down")
        # During the outage every read reports the outage at once.
        time.sleep(DOWN_S)

    def _exit_code(self, error: BrokenError) -> int:
        """Success when the peer has ended in good order; failure when the link was given up or
        killed."""
        state = self._connection.stats().state
        self._printer.event("end", str(error))
        return OK if state in ("lost", "closed") and not self._connection._member.gone else FAILED

    # The thread of standard input.

    def send(self, line: str) -> None:
        """Send a line: with its line end on a stream of bytes, else as a message of its own."""
        data = line.encode("utf-8", "surrogateescape") + (b"\n" if self._stream else b"")
        with self._sending:
            if not self._ending:
                self._write_data(data)

    def _write_data(self, data: bytes) -> None:
        """Write a line as text, or as bytes if it is no UTF-8.

        A failure is printed, and the session goes on.
        """
        try:
            with contextlib.suppress(UnicodeDecodeError):
                self._connection.write(data.decode())
                return
            self._connection.write(data)
        except TrunklineError as error:
            if not self._ended_here:
                _print_note(_why_unsent(error))

    def input_ended(self) -> None:
        """Start the time of `-q` at the end of the input."""
        if self._quit_s is not None:
            self._quit_at = Deadline(self._quit_s)


class _Printer:
    """Prints messages on standard output: a byte stream as it comes, other messages as a line
    each."""

    def __init__(self, *, raw: bool, as_json: bool, as_hex: bool) -> None:
        self._raw = raw
        self._json = as_json
        self._hex = as_hex
        self._terminal = sys.stdout.isatty()

    def message(self, message: Message | str | bytes) -> None:
        """Print a message by the options: as JSON, as hex lines, raw, or as a line."""
        if isinstance(message, Message):
            fields = {
                **_content_fields(message.data, as_hex=self._hex),
                **_envelope_fields(message),
            }
            self._print_object(fields, message.received_ns / 1e9)
        elif self._json:
            self._print_object(_content_fields(message, as_hex=self._hex))
        elif self._hex:
            data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
            self._put_out("".join(f"{line}\n" for line in hex_lines(data)).encode())
        else:
            self._put_out(self._plain_bytes(message) + (b"" if self._raw else b"\n"))

    def _plain_bytes(self, message: str | bytes) -> bytes:
        """A message as bytes for the output; on a terminal without control characters."""
        # A peer's message must not control the user's terminal.
        if self._terminal:
            text = (
                message if isinstance(message, str) else message.decode("utf-8", "backslashreplace")
            )
            return printable(text.replace("\r\n", "\n") if self._raw else text).encode(
                "utf-8", "replace"
            )
        return message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message

    def event(self, what: str, why: str | None = None) -> None:
        """Print an event of the link as JSON. Without --json, the log on stderr shows the event."""
        if self._json:
            self._print_object({"event": what, **({"reason": why} if why else {})})

    def _print_object(self, fields: dict[str, Any], at: float | None = None) -> None:
        """Print an object as a line of JSON, with the time in seconds since 1970."""
        shown = {"time": round(at or time.time(), 6), **fields}
        self._put_out(
            json.dumps(shown, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        )

    def _put_out(self, data: bytes) -> None:
        """Write and flush at once, so that a reader of a pipe gets every message immediately."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _content_fields(message: str | bytes, *, as_hex: bool) -> dict[str, str]:
    """The content of a message as a field of JSON: hex, text, or base64."""
    if as_hex:
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
        return {"hex": data.hex()}
    if isinstance(message, str):
        return {"data": message}
    return {"bytes": base64.b64encode(message).decode()}


def _why_unsent(error: TrunklineError) -> str:
    """The line for people about a write that failed."""
    if isinstance(error, Unconfirmed):
        return f"a line may or may not have arrived: {error}"
    if isinstance(error, (BrokenError, OperationTimeout, RefusedError)):
        return f"a line was not sent: {error}"
    return str(error)


def _envelope_fields(message: Message) -> dict[str, Any]:
    """The fields of `trunkline.Message` that are set, by their names."""
    fields = {
        name: getattr(message, name)
        for name in ("topic", "key", "timestamp", "offset", "partition", "reply_to")
        if getattr(message, name) is not None
    }
    fields |= {
        name: dict(getattr(message, name))
        for name in ("headers", "properties")
        if getattr(message, name)
    }
    if message.redelivered:
        fields["redelivered"] = True
    return {name: plain_value(value) for name, value in fields.items()}


def hex_lines(data: bytes) -> list[str]:
    """Lines of sixteen bytes: the offset, the bytes in hex, the bytes as text."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  |{text}|")
    return lines or ["(empty)"]


def _print_note(text: str) -> None:
    print(f"trunkline: {text}", file=sys.stderr)
