"""The errors of clickhouse-driver as Trunkline's errors.

Their text is one line, with the server's code and without a stack trace.
"""

from __future__ import annotations

import re
import struct
from typing import NoReturn

from clickhouse_driver import errors

from trunkline.actors.driver import FatalError
from trunkline.actors.net.tls_alerts import alert_in, if_it_wants_a_certificate
from trunkline.errors import DialError, StatementError, TrunklineError

__all__ = [
    "CANCELLED",
    "LOST",
    "OUT_OF_STEP",
    "not_clickhouse",
    "refuse_dial",
    "server_text",
    "translated",
]

CANCELLED = 394
"""The server's code of a statement that was stopped."""
OUT_OF_STEP = frozenset((99, 100, 101, 102, 115))
"""Errors in the middle of a packet. The server takes the rest of the packet for the next packet."""
LOST: tuple[type[Exception], ...] = (
    errors.NetworkError,
    errors.SocketTimeoutError,
    errors.UnexpectedPacketFromServerError,
    errors.UnknownPacketFromServerError,
    errors.ChecksumDoesntMatchError,
    OSError,
    EOFError,
)
"""The link is lost, or the arriving data makes no sense any more."""
# Errors of the library for a value that it cannot write.
_VALUES: tuple[type[Exception], ...] = (
    errors.Error,
    struct.error,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
_NEVER = frozenset((81, 164, 192, 193, 194, 195, 291, 497, 516))
"""Codes of a refused login: user, password, network, database, rights."""


def server_text(error: errors.ServerException) -> str:
    """The text of the server's error, without its stack trace."""
    text = str(error.message).partition("Stack trace:")[0].strip()
    text = re.sub(r"^(?:DB::(?:Net)?Exception[:.]\s*)+", "", text)
    return " ".join(text.split()).rstrip(". ") or "refused, without a reason"


def translated(error: Exception) -> Exception:
    """The error of a statement: StatementError or ConnectionError."""
    if isinstance(error, TrunklineError):
        return error
    if isinstance(error, errors.ServerException):
        return StatementError(server_text(error), code=error.code)
    if isinstance(error, errors.UnknownTypeError):
        kind = str(error.message).removeprefix("Unknown type ")
        return StatementError(
            f"clickhouse-driver cannot read a column of type {kind}; select toString() of it"
        )
    if isinstance(error, UnicodeDecodeError):
        return StatementError("a column's name is not UTF-8; give the expression a name with AS")
    if isinstance(error, UnicodeEncodeError):
        bad = ord(error.object[error.start])
        return StatementError(
            f"the statement's text holds U+{bad:04X}, half a surrogate pair, and is no UTF-8"
        )
    if isinstance(error, LOST):
        return ConnectionError(_reason(error))
    if isinstance(error, _VALUES):
        return StatementError(f"a value does not fit its column: {_reason(error)}")
    return StatementError(f"{type(error).__name__}: {error}")


def _reason(error: Exception) -> str:
    """The text of an error, in one line."""
    if isinstance(error, (TimeoutError, errors.SocketTimeoutError)):
        return "the server did not answer in time"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    text = error.message if isinstance(error, errors.Error) else str(error)
    text = str(text or type(error).__name__).replace(
        "Repeat query with types_check=True for detailed info. ", ""
    )
    return " ".join(text.split())


def not_clickhouse(place: str) -> str:
    """The text for a server of another kind."""
    return (
        f"what answers at {place} is not a ClickHouse server's native port, which is 9000 as a rule,"
        " 9440 with secure=true; 8123 is HTTP"
    )


def refuse_dial(error: Exception, place: str, database: str) -> NoReturn:
    """Raise the error of an attempt to dial.

    FatalError if another attempt would not help, otherwise DialError.
    """
    if isinstance(error, errors.ServerException):
        text = f"{place} refused the login: {server_text(error)}"
        if error.code == 81:
            text = (
                f"{place} has no database {database!r}; create it, or name another in the address"
            )
        kind = FatalError if error.code in _NEVER else DialError
        raise kind(text, code=error.code) from None
    reason = _reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in reason or "certificate verify failed" in reason:
        why = re.search(r"certificate verify failed:? ?(.*?)\s*(?:\(_ssl|\Z)", reason)
        raise FatalError(
            f"the certificate of {place} is not trusted: {(why and why[1]) or 'verification failed'};"
            " name its authority with the option cafile"
        ) from None
    if (alert := alert_in(reason)) is not None:
        raise FatalError(f"{place} {alert}") from None
    # If the server sent a TLS alert, the alert came too late.
    if "EOF occurred in violation of protocol" in reason:
        raise DialError(
            f"{place} closed the TLS connection instead of answering the login"
            f"{if_it_wants_a_certificate(None)}"
        ) from None
    if "SSL" in reason or "TLS" in reason:
        raise FatalError(
            f"{place} does not speak TLS there ({reason}); name ClickHouse's TLS port (9440 as a rule),"
            " or leave secure=true out"
        ) from None
    if isinstance(error, (TimeoutError, errors.SocketTimeoutError)):
        raise DialError(
            f"{place} did not answer in the time allowed; is it ClickHouse's native port?"
        ) from None
    if isinstance(error, EOFError) or "reset by peer" in reason:
        raise DialError(
            f"{place} closed the connection instead of answering the login; is it the native port of a"
            " ClickHouse server, and without TLS (for TLS write secure=true)?"
        ) from None
    if isinstance(error, (errors.NetworkError, OSError)):
        raise DialError(
            f"{place} cannot be reached: {reason.removesuffix(f' ({place})')}"
        ) from None
    # An error of the IDNA codec: the name was not looked up at all.
    if isinstance(error, UnicodeError):
        raise FatalError(
            f"{place} names no host: a part of its name is empty or too long"
        ) from None
    raise FatalError(not_clickhouse(place)) from None
