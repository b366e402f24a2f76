"""Every error Trunkline raises, as one tree.

    TrunklineError
    ├── AddressError         the address or an option is malformed           (ValueError)
    │   └── UnknownScheme    no driver has that name; the text names the nearest one
    ├── MissingLibrary       the scheme's library is not installed; the text names the extra
    ├── DialError            the connection could not be opened
    │   └── DialTimeout      ... in the time allowed                         (TimeoutError)
    ├── DeadHandle           the handle names no living connection
    ├── ClosedError          your program has closed this object
    ├── BrokenError          the peer or the network broke the link
    │   └── WorkerDied       the connection's process is gone
    ├── BrokerGone           the broker could not be reached or started
    ├── RefusedError         the peer refused a message
    ├── OperationTimeout     a call reached its deadline                     (TimeoutError)
    │   └── Unconfirmed      a message was sent, and no confirmation came
    ├── Unsupported          the scheme does not have this operation
    ├── StatementError       the database refused a statement; carries its code
    │   └── OutcomeUnknown   a statement was sent, and no answer came
    └── RemoteError          any other error in the worker

The words follow trio: *Closed* is the program's doing, *Broken* is the world's. Errors of a worker
travel as name and text, never pickled; `from_wire` finds the class again.
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
    """The base class of all errors raised by Trunkline.

    `code` is the server's or the system's own code (SQLSTATE, errno, an HTTP status, a WebSocket
    close code); None without one. `reason` is the peer's text in a close frame; None without one.
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
    """The address or one of its options is malformed. The text never contains a secret."""


class UnknownScheme(AddressError):
    """No driver has the name of this scheme."""


class MissingLibrary(TrunklineError):
    """The library behind a scheme is not installed. The text names the extra that installs it."""


class DialError(TrunklineError):
    """The connection could not be opened.

    `retry_after_s` is how many seconds the peer asked the client to wait before the next attempt
    (the `Retry-After` of an HTTP answer), counted from the answer. None when the peer did not ask.
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
    """Your program has closed this object."""


class BrokenError(TrunklineError):
    """The peer or the network broke the link.

    `code` and `reason` are those of a WebSocket's close frame.
    """


class WorkerDied(BrokenError):
    """The connection's process is gone."""


class BrokerGone(TrunklineError):
    """The broker could not be reached, or could not be started."""


class OperationTimeout(TrunklineError, TimeoutError):
    """A call reached its deadline."""


class Unconfirmed(OperationTimeout):
    """A message was sent and its confirmation did not come: the message may or may not have
    arrived."""


class RefusedError(TrunklineError):
    """The peer refused a message (too large, no permission, no route). The link goes on.

    The message was not taken. `code` is the peer's code; None without one.
    """


class Unsupported(TrunklineError):
    """The scheme does not have this operation (`read` on a database, `exec` on a socket)."""


class StatementError(TrunklineError):
    """The database refused a statement. `code` is the server's code (SQLSTATE or a number)."""


class OutcomeUnknown(StatementError):
    """A statement was sent and its answer did not come: the statement may or may not have run."""


class RemoteError(TrunklineError):
    """Any other error in the worker. The text starts with the name of that error."""


_BY_NAME: dict[str, type[TrunklineError]] = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, TrunklineError)
}


def to_wire(error: BaseException) -> dict[str, object]:
    """An error as plain data: `name`, `text`, `code`, and `reason` and `retry_after_s` where there
    are values."""
    if isinstance(error, TrunklineError):
        # A class that only the worker knows travels as its nearest base class in this module.
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
    """The error that `to_wire` described, as an object of the class of the same name."""
    kind = _BY_NAME.get(str(data.get("name")), RemoteError)
    code = data.get("code")
    error = kind(str(data.get("text", "")), code=code if isinstance(code, (str, int)) else None)
    error.reason = None if data.get("reason") is None else str(data["reason"])
    retry_after_s = data.get("retry_after_s")
    if isinstance(error, DialError) and isinstance(retry_after_s, (int, float)):
        error.retry_after_s = float(retry_after_s)
    return error
