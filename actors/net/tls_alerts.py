"""What a peer's TLS alert means, in words for users. Pure.

An alert is all that a peer says of a certificate it wants or does not accept. In TLS 1.3 it comes when our
handshake is done already, so that it is met by whatever reads first, in the words of some library.
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
    """What the alert means that `text`, of OpenSSL or of a library above it, tells of: what the peer does, as
    a sentence without its subject. None where it tells of none that has a meaning for users."""
    for match in _ALERT.finditer(text):
        name = " ".join(
            (match[1] or match[2]).replace("_", " ").lower().removesuffix(" alert").split()
        )
        if name in _MEANINGS:
            return _MEANINGS[name]
    return None


def in_words(error: BaseException | None) -> str | None:
    """As `alert_in`, of an error and of its causes."""
    for _ in range(5):
        if error is None:
            break
        if isinstance(error, ssl.SSLError) and (found := alert_in(str(error))):
            return found
        error = error.__cause__ or error.__context__
    return None


def if_it_wants_a_certificate(certfile: object) -> str:
    """What to add to the words for a peer that ended a TLS link without any of its own: the alert that tells
    why is lost now and then, because the peer closes right behind it."""
    return "" if certfile else "; if it wants a client certificate, give certfile= and keyfile="
