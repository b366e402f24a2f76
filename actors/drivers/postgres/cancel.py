"""Cancel requests with a time limit.

psycopg2's `connection.cancel()` waits for the server without a limit and holds the interpreter's
lock meanwhile, so a frozen server would freeze the worker. libpq 17 offers the same request in
steps. psycopg2 documents `pgconn_ptr` for calls of libpq with ctypes.
The calls are made in the libpq that psycopg2 is linked to.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import threading
from functools import cache
from typing import Any

from psycopg2 import _psycopg

from trunkline.deadline import Deadline

__all__ = ["CANCELLED", "CANCEL_S", "Canceller", "Interrupts", "cancel_functions"]

CANCEL_S = 1.5
"""Seconds that an interrupt waits for the server to take note."""
CANCELLED = "57014"
"""The server's code for a statement that was cancelled."""

_FAILED, _READING, _WRITING = range(3)
_FUNCTIONS = {
    "PQcancelCreate": ctypes.c_void_p,
    "PQcancelStart": ctypes.c_int,
    "PQcancelPoll": ctypes.c_int,
    "PQcancelSocket": ctypes.c_int,
    "PQcancelReset": None,
    "PQcancelFinish": None,
}


@cache
def cancel_functions() -> Any:
    """libpq with its cancel functions; None if libpq is older than 17."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_psycopg.__file__)
        for name, result in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = [ctypes.c_void_p]
        return library
    return None


class Canceller:
    """Cancels the running statement of one connection.

    The connection's thread makes and closes the object; any thread may call `send`.
    """

    def __init__(self, pgconn: int) -> None:
        self._libpq = cancel_functions()
        self._lock = threading.Lock()
        """Keeps the request from being freed while another thread sends it."""
        self._request = self._libpq.PQcancelCreate(pgconn) if self._libpq else None

    @property
    def possible(self) -> bool:
        return self._request is not None

    def send(self, seconds: float) -> bool:
        """Ask the server to cancel.

        Returns whether the server has taken note within `seconds`.
        If not, the server may still read the request later.
        """
        with self._lock:
            if self._request is None:
                # Nothing was sent.
                return True
            try:
                return self._steps(Deadline(seconds))
            finally:
                # Closes the socket of the request.
                self._libpq.PQcancelReset(self._request)

    def _steps(self, deadline: Deadline) -> bool:
        """Take the steps of one request until the server has read it, or until the deadline."""
        state = _WRITING if self._libpq.PQcancelStart(self._request) else _FAILED
        while state in (_READING, _WRITING):
            poll = select.poll()
            descriptor = self._libpq.PQcancelSocket(self._request)
            if descriptor < 0:
                return True
            poll.register(descriptor, select.POLLIN if state == _READING else select.POLLOUT)
            if not poll.poll(deadline.left_ms()):
                return False
            state = self._libpq.PQcancelPoll(self._request)
        # The server has read the request.
        # Or the request failed, and no server is there to read it.
        return True

    def close(self) -> None:
        with self._lock:
            if self._request is not None:
                self._libpq.PQcancelFinish(self._request)
            self._request = None


class Interrupts:
    """The cancel requests of one connection, and their effect.

    `interrupt` is called by another thread than the connection's; all other methods are called by
    the connection's thread.
    A request is *loose* while it is on its way and may hit any later statement.
    """

    def __init__(self, canceller: Canceller) -> None:
        self._canceller = canceller
        self.is_asked = False
        """The running statement is to end."""
        self.is_loose = False
        """A request is on its way and was not seen to arrive."""
        self._sent = 0
        self._seen = 0
        """How many requests were sent, and how many were seen to work or were absorbed."""

    def interrupt(self) -> None:
        """Ask the server to cancel, and wait until the server has taken note.

        Waits `CANCEL_S` seconds at most.
        """
        self.is_asked = True
        if not self.is_loose:
            self._sent += 1
            self.is_loose = not self._canceller.send(CANCEL_S)

    def forget(self) -> None:
        """Forget the interrupt of the last statement, because another statement begins."""
        self.is_asked = False

    def note_cancelled(self) -> None:
        """Note that the server has cancelled a statement.

        The reason is our request or the server's statement_timeout.
        """
        self._seen = min(self._seen + 1, self._sent)
        self.is_loose = False

    def take_late(self, *, in_transaction: bool) -> bool:
        """Whether a request came too late for its statement and may still hit the next one.

        Then the next statement is to be one that does nothing.
        Always False in a transaction, where such a statement would not help.
        """
        is_late = self._sent > self._seen and not in_transaction
        self._seen = self._sent
        return is_late

    def close(self) -> None:
        self._canceller.close()
