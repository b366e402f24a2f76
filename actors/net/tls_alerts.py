"""The meaning of a peer's TLS alert, for users. Pure.

The alert is the peer's only report that a client certificate is missing or not accepted. In TLS 1.3
the alert comes after the client's handshake is complete. So the first read meets the alert, in the
wording of OpenSSL or of a library above OpenSSL.
"""

from __future__ import annotations

import re
import ssl

__all__ = ["alert_in", "if_it_wants_a_certificate", "in_words"]

_ALERT = re.compile(
    r"alert[ _]([a-z_ ]+?)(?=$|[^a-z_ ]|[ _]ssl[ _]alert)|(unrecognized[ _]name)", re.IGNORECASE
)
_OURS = "does not accept our certificate ({}), or wants one; check certfile= and keyfile="
_MEANINGS = {
    "certificate required": "wants a client certificate; give certfile= and keyfile=",
    "no certificate": "wants a client certificate; give certfile= and keyfile=",
    "handshake failure": "refused the TLS handshake: it wants a client certificate (certfile=, keyfile=), "
    "or shares no TLS version or cipher with us",
    "protocol version": "shares no TLS version with us",
    "insufficient security": "shares no cipher with us",
    "unrecognized name": "does not know the name it was asked for; give servername=",
    "access denied": "does not let our certificate in; check certfile= and keyfile=",
    **{
        name: _OURS.format(name)
        for name in (
            "bad certificate",
            "certificate expired",
            "certificate revoked",
            "certificate unknown",
            "decrypt error",
            "unknown ca",
            "unsupported certificate",
        )
    },
}


def alert_in(text: str) -> str | None:
    """The meaning of the alert in `text`, an error text of OpenSSL or of a library above OpenSSL.

    Returns a sentence without its subject, the peer. None where `text` names no alert with a
    meaning for users."""
    for match in _ALERT.finditer(text):
        name = " ".join(
            (match[1] or match[2]).replace("_", " ").lower().removesuffix(" alert").split()
        )
        if name in _MEANINGS:
            return _MEANINGS[name]
    return None


def in_words(error: BaseException | None) -> str | None:
    """As `alert_in`, for an error and its causes."""
    # The error and four causes: libraries wrap the error of OpenSSL a few times at most.
    for _ in range(5):
        if error is None:
            break
        if isinstance(error, ssl.SSLError) and (found := alert_in(str(error))):
            return found
        error = error.__cause__ or error.__context__
    return None


def if_it_wants_a_certificate(certfile: object) -> str:
    """A hint to add to the error when a peer ended a TLS link without an alert; "" with `certfile`.

    The alert is lost now and then, because the peer closes right behind it."""
    return "" if certfile else "; if it wants a client certificate, give certfile= and keyfile="
