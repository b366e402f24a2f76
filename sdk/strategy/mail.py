"""`Mail`: one message through an SMTP server."""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from email.message import EmailMessage
from urllib.parse import urlsplit

__all__ = ["Mail"]

TIMEOUT_S = 30.0


class Mail:
    """The global of that name. `failed` gets the reason when a message could not be handed over."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed

    def __call__(
        self, server: str, user: str, password: str, to: str, title: str, body: str
    ) -> bool:
        """Whether the server took the message.

        `smtp.host:587` (encrypted when the server offers STARTTLS) or `ssl://smtp.host:465`; `to` may be
        several addresses with commas. The password is not sent over a link that is not encrypted,
        except to this machine.
        """
        try:
            message = _make_message(str(user or ""), str(to or ""), str(title), str(body))
            with _connect_to_server(str(server)) as link:
                if user and password:
                    link.login(user, password)
                link.send_message(message)
        except (OSError, ValueError, smtplib.SMTPException) as error:
            place = str(server).rpartition("@")[2]  # what stands before it may be a password
            self._failed(f"Mail through {place}: {type(error).__name__}: {error}")
            return False
        return True


def _make_message(user: str, to: str, title: str, body: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = user
    message["To"] = to.replace(";", ",")
    message["Subject"] = title
    message.set_content(body)
    return message


def _connect_to_server(server: str) -> smtplib.SMTP:
    parts = urlsplit(server if "://" in server else f"smtp://{server}")
    host = parts.hostname or ""
    if parts.scheme in ("ssl", "smtps"):
        return smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_S)
    link = smtplib.SMTP(host, parts.port or 587, timeout=TIMEOUT_S)
    link.ehlo()
    if link.has_extn("starttls"):
        link.starttls()
    elif host not in ("localhost", "127.0.0.1", "::1"):
        link.close()
        raise ValueError("the server offers no encryption (STARTTLS); use ssl://host:465")
    return link
