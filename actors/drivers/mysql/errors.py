"""The errors of mysql-connector-python as Trunkline's errors: refused, or lost."""

from __future__ import annotations

import ssl

from mysql.connector import errors

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.mysql.auth import refused
from trunkline.actors.net.tls import explain
from trunkline.errors import DialError, StatementError

__all__ = [
    "INTERRUPTED",
    "NO_TLS",
    "READ_ONLY",
    "TOO_LARGE",
    "at_open",
    "is_lost",
    "refusal",
    "why_lost",
]

INTERRUPTED = 1317
TOO_LARGE = 1153
NO_TLS = 2026
"""A number of the library: TLS is asked for, and the server has none."""
READ_ONLY = (1290, 1792, 1836)
"""The server, or the transaction, takes no writes.
After a failover that means that the wrong server was reached.
"""

_CLIENT = range(2000, 3000)
"""Numbers of the library, not of a server."""
# Server stopping, connection killed (MariaDB, MySQL),
# idle for too long, packets out of order, ...
_ENDS_LINK = (1053, 1079, 1080, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031)
# Too many connections (of all users, of this user), server stopping.
_PASSES = (1040, 1203, 1226, 1053, 1077, 1135, 1927)
_HINTS = {
    1045: "check user and password, and whether the user may come from here",
    1044: "check the rights of the user",
    1049: "check the name of the database",
    1148: "LOAD DATA LOCAL needs allowAllFiles=true in the address, and local_infile on the server",
    3948: "LOAD DATA LOCAL needs allowAllFiles=true in the address, and local_infile on the server",
    4166: "LOAD DATA LOCAL needs allowAllFiles=true in the address, and local_infile on the server",
}


def number(error: BaseException) -> int | None:
    """The server's number of an error; None for an error of the library or the system."""
    errno = getattr(error, "errno", None)
    timed = (errors.ReadTimeoutError, errors.WriteTimeoutError, errors.ConnectionTimeoutError)
    known = isinstance(error, errors.Error) and not isinstance(error, timed)
    return (
        errno if known and isinstance(errno, int) and errno > 0 and errno not in _CLIENT else None
    )


def is_lost(error: BaseException) -> bool:
    """Whether the link cannot be used after this error.

    Only an error that the server sent leaves the link usable, and not every one.
    """
    code = number(error)
    return code is None or code in _ENDS_LINK


def refusal(error: BaseException) -> StatementError:
    """The error of a statement that the server refused."""
    code = number(error)
    text, advice = _text(error), _HINTS.get(code or 0)
    return StatementError(f"{text}; {advice}" if advice else text, code=code)


def why_lost(error: BaseException) -> ConnectionError:
    """The error of a link that cannot be used any more."""
    if isinstance(error, errors.ReadTimeoutError):
        return ConnectionError("the server said nothing for as long as readTimeout allows")
    if isinstance(error, errors.WriteTimeoutError):
        return ConnectionError("the server took nothing for as long as writeTimeout allows")
    return ConnectionError(_text(error))


def at_open(error: Exception, peer: str, seconds: float | None) -> DialError:
    """The error of an attempt to connect. FatalError if another attempt would not help."""
    code = number(error)
    cause = error.__cause__
    ours = refused(error)
    if ours is not None:
        return FatalError(f"cannot log in to {peer}: {_text(ours)}")
    if code is not None:
        kind = DialError if code in _PASSES else FatalError
        text = f"{peer} refused the connection: {_text(error)}"
        advice = _HINTS.get(code)
        return kind(f"{text}; {advice}" if advice else text, code=code)
    if isinstance(cause, ssl.SSLError):
        host, _, port = peer.rpartition(":")
        return explain(cause, host, int(port), has_servername=False)
    if isinstance(error, (errors.ConnectionTimeoutError, errors.ReadTimeoutError)):
        limit = f" within {seconds:.3g} s" if seconds else ""
        return DialError(
            f"{peer} did not answer as a MySQL server does{limit}; check host, port and server"
        )
    if getattr(error, "errno", None) == NO_TLS or isinstance(error, errors.NotSupportedError):
        return FatalError(f"cannot log in to {peer}: {_text(error)}")
    if getattr(error, "errno", None) in (2002, 2003):
        reason = getattr(cause, "strerror", None) or _text(error)
        return DialError(f"cannot reach {peer}: {reason}", code=getattr(cause, "errno", None))
    if getattr(error, "errno", None) in (2013, 2055):
        return DialError(f"{peer} ended the link before the login was done: {_text(error)}")
    # The name was not looked up at all.
    if "'idna' codec" in _text(error):
        return FatalError(f"{peer} names no host: a part of its name is empty or too long")
    return FatalError(f"what answers at {peer} is not a MySQL server ({_text(error)})")


def _text(error: BaseException) -> str:
    """The text in one line, without the library's own number in front."""
    text = getattr(error, "msg", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
