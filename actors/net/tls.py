"""TLS contexts by the options of an address, and errors of TLS worded for users.

Certificates are checked by default.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from trunkline.actors.driver import FatalError
from trunkline.actors.net import tls_alerts
from trunkline.address import Address
from trunkline.address.host import join_host_port, without_zone
from trunkline.errors import DialError

__all__ = ["client_context", "explain", "lost", "server_hostname"]

_OPENSSLS_OWN = re.compile(r"^\[[A-Z0-9_: ]*\] *| *\(_?ssl\.c:[0-9]+\)$")
"""The origin in a text of OpenSSL: the name of its library, and a line of Python's source."""
_EXPIRED, _NOT_YET, _SELF_SIGNED, _SELF_SIGNED_ROOT, _HOSTNAME, _IP = 10, 9, 18, 19, 62, 64


def client_context(address: Address, *, own_certificate: bool = True) -> ssl.SSLContext:
    """The context by options `cafile`, `certfile`, `keyfile` and `insecureSkipVerify`.

    `own_certificate`: use the client certificate of `certfile`. Raises FatalError, which names the
    option and the file that cannot be used.
    """
    cafile = address.option("cafile")
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise FatalError(f"cafile={cafile} cannot be used: {_cause(error)}") from None
    if address.option("insecureSkipVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if own_certificate:
        _load_own_certificate(context, address.option("certfile"), address.option("keyfile"))
    return context


def server_hostname(address: Address, host: str | None = None) -> str:
    """The name for SNI and for the check of the certificate: `servername`, else the host."""
    # RFC 6066, 3: a dot at the end of a name is not sent.
    return str(
        address.option("servername") or without_zone(host or address.host or "")
    ).removesuffix(".")


def explain(error: Exception, host: str, port: int, *, has_servername: bool = True) -> DialError:
    """The error to raise for a failed TLS handshake with `host:port`: FatalError for certificates.

    `has_servername`: option `servername` applies to this peer, so the text may recommend it."""
    peer = join_host_port(host, port)
    if isinstance(error, ssl.SSLCertVerificationError):
        return FatalError(
            f"certificate of {peer} is not trusted: {_distrust(error)}; "
            f"{_remedy(error.verify_code, has_servername)} insecureSkipVerify=true",
            code=error.verify_code,
        )
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
    ):
        return DialError(f"{peer} did not answer with TLS; check the port and the scheme")
    if (alert := tls_alerts.in_words(error)) is not None:
        return FatalError(f"{peer} {alert}")
    if isinstance(error, ssl.SSLEOFError | ConnectionError) or "UNEXPECTED_EOF" in str(error):
        return DialError(
            f"{peer} closed the connection in the TLS handshake; "
            "check that this port serves TLS, and the scheme"
        )
    return DialError(f"TLS handshake with {peer} failed: {_cause(error)}")


def lost(error: BaseException | None) -> str | None:
    """Why TLS ended an open link, for users; None where the error is not of TLS."""
    if not isinstance(error, ssl.SSLError):
        return None
    alert = tls_alerts.in_words(error)
    return f"TLS failed: {_cause(error)}" if alert is None else f"the peer {alert}"


def _load_own_certificate(
    context: ssl.SSLContext, certfile: str | None, keyfile: str | None
) -> None:
    if not certfile:
        if keyfile:
            raise FatalError(f"keyfile={keyfile} needs a certfile beside it")
        return
    try:
        context.load_cert_chain(certfile, keyfile, password=_refuse_password)
    except (OSError, ssl.SSLError, _PasswordNeeded) as error:
        names = f"certfile={certfile}" + (f", keyfile={keyfile}" if keyfile else "")
        why = _lacks(certfile, keyfile) or _cause(error)
        raise FatalError(f"{names} cannot be used: {why}") from None


def _lacks(certfile: str, keyfile: str | None) -> str | None:
    """The part that readable PEM files lack, or None. OpenSSL itself only says "PEM lib"."""
    try:
        certificate, key = Path(certfile).read_bytes(), Path(keyfile or certfile).read_bytes()
    except OSError:
        return None
    if b"-----BEGIN " not in certificate or (keyfile and b"-----BEGIN " not in key):
        return None
    if b"CERTIFICATE-----" not in certificate:
        return "there is no certificate in the certfile"
    if b"PRIVATE KEY-----" not in key:
        return "there is no key in the keyfile" if keyfile else "it holds no key; give keyfile="
    return None


class _PasswordNeeded(Exception):
    pass


def _refuse_password() -> str:
    """Refuse an encrypted key. Otherwise OpenSSL asks at the terminal, and a worker has none."""
    raise _PasswordNeeded("the key is encrypted; store it without a password")


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (_HOSTNAME, _IP):
        return f"it is for another host ({error.verify_message})"
    if error.verify_code == _EXPIRED:
        return "it has expired"
    if error.verify_code == _NOT_YET:
        return "it is not valid yet; check the clock"
    if error.verify_code in (_SELF_SIGNED, _SELF_SIGNED_ROOT):
        return "it is self-signed"
    return error.verify_message or "verification failed"


def _remedy(code: int, has_servername: bool) -> str:
    if code not in (_HOSTNAME, _IP):
        return "give cafile=... or"
    return (
        "give servername=... or" if has_servername else "use the name in its certificate, or give"
    )


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)
        if reason in ("NO_CERTIFICATE_OR_CRL_FOUND", "PEM_LIB", "NO_START_LINE"):
            return "it holds no PEM data of that kind"
        text = reason or _OPENSSLS_OWN.sub("", str(error)) or "OpenSSL gives no reason"
        return text.replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error)
