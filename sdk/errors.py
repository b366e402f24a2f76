"""Every error Trunkline raises, as one tree.

    TrunklineError
    ├── AddressError         the address or an option is malformed           (ValueError)
    │   └── UnknownScheme    no driver of that name; says the nearest one
    ├── MissingLibrary       the scheme's library is not installed; names the extra
    ├── DialError            the connection could not be opened
    │   └── DialTimeout      ... in the time allowed                         (TimeoutError)
    ├── DeadHandle           the handle names no living connection
    ├── ClosedError          you closed this object
    ├── BrokenError          the peer or the network broke the link
    │   └── WorkerDied       the connection's process is gone
    ├── BrokerGone           the broker could not be reached or started
    ├── RefusedError         the peer refused a message
    ├── OperationTimeout     a call reached its deadline                     (TimeoutError)
    │   └── Unconfirmed      a message was sent, and nobody said that it arrived
    ├── Unsupported          this scheme has no such operation
    ├── StatementError       the database refused a statement; carries its code
    │   └── OutcomeUnknown   the statement was sent and its answer never came
    └── RemoteError          anything else that went wrong in the worker

The words follow trio: *Closed* is what you did, *Broken* is what the world did. Remote errors cross
processes as name and text (never pickled); `from_wire` finds the class again.
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "BrokenError",
    "BrokerGone",
    "ClosedError",
    "DeadHandle",
    "DialError",
    "DialTimeout",
    "MissingLibrary",
    "OperationTimeout",
    "OutcomeUnknown",
    "RefusedError",
    "RemoteError",
    "StatementError",
    "TrunklineError",
    "Unconfirmed",
    "UnknownScheme",
    "Unsupported",
    "WorkerDied",
    "from_wire",
    "to_wire",
]


class TrunklineError(Exception):
    """Base of all errors raised by Trunkline.

    `code` is the server's or system's own code where there is one (SQLSTATE, errno, an HTTP
    status, a WebSocket close code), else None. `reason` is the peer's words in a close frame, else None.
    """

    code: str | int | None = None
    reason: str | None = None

    def __init__(
        self, text: str, *, code: str | int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


class AddressError(TrunklineError, ValueError):
    """The address or one of its options cannot be understood. The text never holds a secret."""


class UnknownScheme(AddressError):
    """No driver answers to this scheme."""


class MissingLibrary(TrunklineError):
    """The library behind a scheme is not installed; the text names the extra that brings it."""


class DialError(TrunklineError):
    """The connection could not be opened.

    `retry_after_s` is how many seconds the peer asked us to wait before the next attempt (the `Retry-After`
    of an HTTP answer), counted from the moment of the answer; None when it said nothing.
    """

    retry_after_s: float | None = None

    def __init__(
        self,
        text: str,
        *,
        code: str | int | None = None,
        reason: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(text, code=code, reason=reason)
        self.retry_after_s = retry_after_s


class DialTimeout(DialError, TimeoutError):
    """The connection could not be opened within the time allowed."""


class DeadHandle(TrunklineError):
    """The handle names no living connection of this broker."""


class ClosedError(TrunklineError):
    """You closed this object."""


class BrokenError(TrunklineError):
    """The peer or the network broke the link. `code` and `reason` are those of a WebSocket's close frame."""


class WorkerDied(BrokenError):
    """The connection's process is gone."""


class BrokerGone(TrunklineError):
    """The broker could not be reached, or not be started."""


class OperationTimeout(TrunklineError, TimeoutError):
    """A call reached its deadline."""


class Unconfirmed(OperationTimeout):
    """A message was sent and the broker's confirmation did not come: it may or may not have arrived."""


class RefusedError(TrunklineError):
    """The peer refused a message (too large, no right, no route): it was not taken, and the link goes on.
    `code` is the peer's, where it gave one."""


class Unsupported(TrunklineError):
    """This scheme has no such operation (`read` on a database, `exec` on a socket)."""


class StatementError(TrunklineError):
    """The database refused a statement. `code` is the server's code (SQLSTATE or number)."""


class OutcomeUnknown(StatementError):
    """A statement was sent and its answer never came: it may or may not have run."""


class RemoteError(TrunklineError):
    """Something else went wrong in the worker; the text starts with the error's name there."""


_BY_NAME: dict[str, type[TrunklineError]] = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, TrunklineError)
}


def to_wire(error: BaseException) -> dict[str, object]:
    """An error as plain data: `name`, `text`, `code`; `reason` and `retry_after_s` where there is one."""
    if isinstance(error, TrunklineError):
        # A class that only the worker knows travels as the nearest one that everybody knows.
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _BY_NAME)
        data: dict[str, object] = {"name": name, "text": str(error), "code": error.code}
        if error.reason is not None:
            data["reason"] = error.reason
        if isinstance(error, DialError) and error.retry_after_s is not None:
            data["retry_after_s"] = error.retry_after_s
        return data
    text = str(error) or type(error).__name__
    if isinstance(error, RuntimeError) and "start new thread" in text:
        from trunkline.system.limits import NO_THREAD  # not at the top: it imports ZeroMQ

        return {"name": "DialError", "text": f"no connection can be had: {NO_THREAD}", "code": None}
    if isinstance(error, MemoryError):
        text = "the worker has too little memory (`ulimit -v`, the memory limit of a container)"
        return {"name": "RemoteError", "text": text, "code": None}
    return {"name": "RemoteError", "text": f"{type(error).__name__}: {text}", "code": None}


def from_wire(data: dict[str, object]) -> TrunklineError:
    """The error that `to_wire` described, as the class of the same name."""
    kind = _BY_NAME.get(str(data.get("name")), RemoteError)
    code = data.get("code")
    error = kind(str(data.get("text", "")), code=code if isinstance(code, (str, int)) else None)
    error.reason = None if data.get("reason") is None else str(data["reason"])
    retry_after_s = data.get("retry_after_s")
    if isinstance(error, DialError) and isinstance(retry_after_s, (int, float)):
        error.retry_after_s = float(retry_after_s)
    return error
