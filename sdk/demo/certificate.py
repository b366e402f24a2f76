"""A certificate for a server on this machine that lives for minutes."""

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
    """Files of a certificate that vouches for itself (a client trusts it by `cafile`) and of its key."""

    cert: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


def make_certificate(folder: Path) -> Certificate | None:
    """Make one in the folder, by the `cryptography` package or the `openssl` command; None without either."""
    made = Certificate(folder / "server.pem", folder / "server.key")
    made.key.touch(mode=0o600)
    try:
        _by_cryptography(made)
    except ImportError:
        if not _by_openssl(made):
            return None
    return made


def _by_cryptography(made: Certificate) -> None:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address(ADDRESS))])
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    made.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))


def _by_openssl(made: Certificate) -> bool:
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
