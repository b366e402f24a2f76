"""`Mail`: send a message through an SMTP server."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from urllib.parse import urlsplit

__all__ = ["Mail"]

TIMEOUT_S = 30.0
"""Seconds that the server has to answer."""
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Mail:
    """The global `Mail`. `failed` gets the reason when the server does not take a message."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed

    def __call__(
        self, server: str, user: str, password: str, to: str, title: str, body: str
    ) -> bool:
        """Send a message; returns whether the server took it.

        `server`: `smtp.host:587` (encrypted if the server offers STARTTLS) or
            `ssl://smtp.host:465`.
        `to`: an address, or several addresses separated by commas.
        The password is never sent over an unencrypted link, except to this machine.
        """
        try:
            message = _make_message(str(user or ""), str(to or ""), str(title), str(body))
            with _connect_to_server(str(server)) as link:
                if user and password:
                    link.login(user, password)
                link.send_message(message)
        except (OSError, ValueError, smtplib.SMTPException) as error:
            # The text before the `@` may be a password.
            place = str(server).rpartition("@")[2]
            self._failed(f"Mail through {place}: {type(error).__name__}: {error}")
            return False
        return True


def _make_message(user: str, to: str, title: str, body: str) -> EmailMessage:
    """The message; ValueError for a line end in a header."""
    message = EmailMessage()
    message["From"] = user
    message["To"] = to.replace(";", ",")
    message["Subject"] = title
    message.set_content(body)
    return message


def _connect_to_server(server: str) -> smtplib.SMTP:
    """Connect to the server, encrypted unless the server is on this machine; ValueError without
    encryption."""
    parts = urlsplit(server if "://" in server else f"smtp://{server}")
    host = parts.hostname or ""
    context = _make_context(host)
    if parts.scheme in ("ssl", "smtps"):
        return smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_S, context=context)
    link = smtplib.SMTP(host, parts.port or 587, timeout=TIMEOUT_S)
    try:
        link.ehlo()
        if link.has_extn("starttls"):
            link.starttls(context=context)
        elif host not in _THIS_MACHINE:
            raise ValueError("the server offers no encryption (STARTTLS); use ssl://host:465")
    except BaseException:
        link.close()
        raise
    return link


def _make_context(host: str) -> ssl.SSLContext:
    """TLS that checks the server's certificate: a stranger on the way must not get the password.

    A mail server of this machine mostly has a certificate that nobody has signed, and no stranger
    stands on the way to it.
    """
    context = ssl.create_default_context()
    if host in _THIS_MACHINE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
