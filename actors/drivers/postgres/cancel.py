"""Cancel requests that do not wait longer than they may.

psycopg2's `connection.cancel()` waits for the server without an end, and holds the interpreter's lock
meanwhile: a frozen server would freeze the worker. libpq 17 has the same in steps, and psycopg2 documents
`pgconn_ptr` for calling libpq with ctypes; the calls are made in the libpq that psycopg2 is linked to.
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

__all__ = ["Canceller", "cancel_functions"]

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
    """libpq with the functions of cancelling; None where it is older than 17."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_psycopg.__file__)
        for name, result in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = [ctypes.c_void_p]
        return library
    return None


class Canceller:
    """Cancels what one connection runs. Made and closed by the connection's thread, `send` by any."""

    def __init__(self, pgconn: int) -> None:
        self._libpq = cancel_functions()
        self._lock = threading.Lock()
        self._request = self._libpq.PQcancelCreate(pgconn) if self._libpq else None

    @property
    def possible(self) -> bool:
        return self._request is not None

    def send(self, seconds: float) -> bool:
        """Ask the server to cancel; whether it has taken note within so many seconds. When not, it may still
        read the request later."""
        with self._lock:
            if self._request is None:
                return True  # nothing was sent
            try:
                return self._steps(Deadline(seconds))
            finally:
                self._libpq.PQcancelReset(self._request)  # closes its socket

    def _steps(self, deadline: Deadline) -> bool:
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
        return True  # it was read, or (when that failed) there is nobody who could read it

    def close(self) -> None:
        with self._lock:
            if self._request is not None:
                self._libpq.PQcancelFinish(self._request)
            self._request = None
