"""The refusals of PostgreSQL, and libpq's failures to connect, as one line that says what to do."""

from __future__ import annotations

import re

import psycopg2

from trunkline.actors.driver import FatalError
from trunkline.actors.net.tls_alerts import alert_in
from trunkline.errors import DialError, DialTimeout, StatementError

__all__ = ["LOCAL", "dial_error", "is_lost", "one_line", "refusal"]

LOCAL = (ValueError, TypeError, OverflowError, RecursionError)
"""Errors of psycopg2 and of our converters for a value
that cannot be sent, or for a result that cannot be read.
"""

_FATAL: tuple[tuple[str, str, str | None], ...] = (
    # A pattern of the text, the advice, the SQLSTATE.
    (r"password authentication failed", "check user and password", "28P01"),
    (r"no password supplied", "give a password in the address, or a passfile", "28P01"),
    (r'role ".*" does not exist', "check the user", "28000"),
    (r'role ".*" is not permitted to log in', "check the user", "28000"),
    (r"authentication failed for user", "check the user and pg_hba.conf of the server", "28000"),
    (
        r"no pg_hba.conf entry",
        "the server's pg_hba.conf does not let this user in from here",
        "28000",
    ),
    (
        r"pg_hba.conf rejects",
        "the server's pg_hba.conf does not let this user in from here",
        "28000",
    ),
    (r'database ".*" does not exist', "check the database's name", "3D000"),
    (r"permission denied for database", "grant CONNECT on it", "42501"),
    (r"is not currently accepting connections", "ask who runs the server", "55000"),
    (r"unrecognized configuration parameter", "the server has no such run-time parameter", "42704"),
    (r"parameter .* cannot be (?:changed|set)", "leave it out of the address", "55P02"),
    (r"permission denied to set parameter", "leave it out of the address", "42501"),
    (r"invalid value for parameter", "correct it in the address", "22023"),
    (r"invalid command-line argument", "correct options in the address", "42601"),
    (r"server does not support SSL", "use sslmode=prefer or disable, or turn TLS on there", None),
    (r"certificate verify failed", "give sslrootcert or cafile of who signed it", None),
    (r"does not match host name", "dial the server by the name in its certificate", None),
    (r"root certificate file .* does not exist", "give sslrootcert or cafile", None),
    (r"could not read root certificate file", "check that it holds PEM", None),
    (r"(?:certificate|private key) file", "check sslcert and sslkey", None),
    (
        r"authentication method requirement",
        "require_auth does not allow what the server asks for",
        None,
    ),
    (r"authentication method .* not supported", "let the server ask for scram-sha-256", None),
    (r"invalid .*sslmode|invalid .* value", "correct the address", None),
)
"""Failures to connect that another attempt does not cure: pattern, advice, SQLSTATE."""
_NOT_POSTGRES = re.compile(
    r"invalid response to SSL negotiation|expected authentication request|wrong version number"
    r"|unsupported frontend protocol|error response during SSL exchange|packet length too long"
    r"|bad record type"
)
"""Answers of a server that is not PostgreSQL."""
_LATER: tuple[tuple[str, str, str], ...] = (
    (
        r"the database system is (?:starting up|shutting down|in recovery mode)",
        "try again",
        "57P03",
    ),
    (r"the database system is not (?:yet )?accepting connections", "try again", "57P03"),
    (
        r"too many (?:clients|connections)|remaining connection slots",
        "close some, or allow more",
        "53300",
    ),
)
"""Failures to connect that may pass: pattern, advice, SQLSTATE."""
_FRONT = re.compile(r"connection to server (?:at|on socket) .*? failed: ")
"""The beginning of libpq's report about one server."""
_ENDED = ("FATAL", "PANIC")
"""Severities after which the server ends the connection."""


def one_line(text: str) -> str:
    """The text in one line, with single blanks."""
    return " ".join(text.split())


def is_lost(error: Exception, closed: bool) -> bool:
    """Whether `error` means that the link cannot be used any more.

    `closed`: psycopg2 has closed the connection.
    """
    if not isinstance(error, psycopg2.Error):
        return closed
    severity = error.diag.severity_nonlocalized or error.diag.severity if error.diag else None
    return closed or severity in _ENDED


def refusal(error: Exception) -> StatementError:
    """The error of a statement on a link that can still be used."""
    if isinstance(error, UnicodeEncodeError):
        text = "PostgreSQL stores UTF-8 only, and this text has half a surrogate pair; bind bytes to a bytea"
        return StatementError(text)
    if isinstance(error, UnicodeDecodeError):
        text = "a text in the result is not UTF-8 (the database's encoding is SQL_ASCII); read it as bytea"
        return StatementError(f"{text}, convert_to(column, 'SQL_ASCII')")
    if "NUL (0x00)" in str(error):
        return nul()
    if not isinstance(error, psycopg2.Error):
        return StatementError(f"a value cannot be sent to PostgreSQL: {one_line(str(error))}")
    return StatementError(one_line(_text(error)), code=error.pgcode)


def nul() -> StatementError:
    """The error for a text with the character NUL."""
    return StatementError(
        "PostgreSQL's text cannot hold the character NUL (\\0); bind bytes to a bytea"
    )


def _text(error: psycopg2.Error) -> str:
    """The server's message with its detail and hint."""
    diag = error.diag
    if not diag.message_primary:
        return str(error) or type(error).__name__
    more = [diag.message_detail, diag.message_hint and f"hint: {diag.message_hint}"]
    return "; ".join([diag.message_primary, *(text.rstrip(".") for text in more if text)])


def dial_error(error: Exception, peer: str) -> DialError:
    """The error of an attempt to connect.

    libpq tells no SQLSTATE here, so its text is searched (English, as the server's text usually
    is). An unknown failure counts as one that may pass.
    """
    # The reason of each server that was tried, without repetitions.
    # The last reason stands for all.
    reasons = list(dict.fromkeys(map(_reason, _FRONT.split(str(error)))))
    reason = [text for text in reasons if text][-1:] or ["no reason given"]
    text = "; ".join(filter(None, reasons)) or "no reason given"
    if _NOT_POSTGRES.search(text):
        return FatalError(f"what answers at {peer} is not a PostgreSQL server; check host and port")
    if (alert := alert_in(text)) is not None:
        return FatalError(f"{peer} {alert}")
    for pattern, advice, code in _LATER:
        if re.search(pattern, text):
            return DialError(f"{peer}: {reason[0]}: {advice}", code=code)
    for pattern, advice, state in _FATAL:
        if re.search(pattern, text):
            return FatalError(f"{peer}: {text}: {advice}", code=state)
    if "timeout expired" in text:
        return DialTimeout(f"{peer} did not answer in the time allowed")
    if not isinstance(error, psycopg2.OperationalError):
        return FatalError(f"{peer} cannot be dialled: {text}")
    return DialError(f"{peer}: {text}")


def _reason(text: str) -> str:
    """The text without libpq's own advice and without the severity."""
    lines = [line for line in text.splitlines() if not line.startswith(("\t", "Either provide"))]
    return re.sub(r"^FATAL:\s+", "", one_line(" ".join(lines)))
