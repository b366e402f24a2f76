"""Makes a certificate for a short-lived server on this machine."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

__all__ = ["Certificate", "make_certificate"]

NAME = "localhost"
ADDRESS = "127.0.0.1"


class Certificate(NamedTuple):
    """The files of a certificate and its key."""

    cert: Path
    """The file also holds the authority that signed the certificate: a client trusts the file by
    `cafile`."""
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """The context of a TLS server with this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


def make_certificate(folder: Path) -> Certificate | None:
    """Make a certificate in the folder, by the `trustme` package or the `openssl` command; None
    without either."""
    made = Certificate(folder / "server.pem", folder / "server.key")
    made.key.touch(mode=0o600)
    try:
        _by_trustme(made)
    except ImportError:
        if not _by_openssl(made):
            return None
    return made


def _by_trustme(made: Certificate) -> None:
    """Make the certificate by trustme; ImportError without the package."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert(NAME, ADDRESS, not_after=datetime.now(UTC) + timedelta(days=1))
    leaf.private_key_pem.write_to_path(made.key)
    leaf.cert_chain_pems[0].write_to_path(made.cert)
    authority.cert_pem.write_to_path(made.cert, append=True)


def _by_openssl(made: Certificate) -> bool:
    """Make a self-signed certificate by the command `openssl`; returns whether that succeeded."""
    program = shutil.which("openssl")
    if program is None:
        return False
    command = [
        program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:{ADDRESS}",
        "-keyout", str(made.key), "-out", str(made.cert),
    ]  # fmt: skip
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0 and made.cert.exists()
