"""Certificates for tests: one authority of our own, and what it signed, as files.

The names say what is special: `server` is right for localhost, 127.0.0.1 and ::1; `wrong_host` is signed
rightly for somebody else; `expired` was right until yesterday; `client` is for mutual TLS; `stranger` is
right for localhost, but from an authority nobody knows.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["Certs", "Pair", "make_certs"]

LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    def server_context(self, *, client_ca: Path | None = None) -> ssl.SSLContext:
        """For a server that shows this certificate and, with `client_ca`, asks for the client's."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True)
class Certs:
    ca: Path
    server: Pair
    wrong_host: Pair
    expired: Pair
    client: Pair
    stranger: Pair

    def server_context(self, *, ask_client: bool = False) -> ssl.SSLContext:
        """For a rightful local server; with `ask_client` it accepts only our clients (mutual TLS)."""
        return self.server.server_context(client_ca=self.ca if ask_client else None)

    def client_context(self, *, with_cert: bool = False) -> ssl.SSLContext:
        """For a client that trusts our authority; with `with_cert` it shows the client certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if with_cert:
            context.load_cert_chain(self.client.cert, self.client.key)
        return context


def make_certs(folder: Path) -> Certs:
    """Write all certificates into the folder."""
    ca, unknown = trustme.CA(), trustme.CA()
    ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    now = datetime.now(UTC)
    past = ca.issue_cert(
        *LOCAL, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1)
    )
    return Certs(
        ca=ca_file,
        server=_write(folder, "server", ca.issue_cert(*LOCAL)),
        wrong_host=_write(folder, "wrong_host", ca.issue_cert("somebody.example")),
        expired=_write(folder, "expired", past),
        client=_write(folder, "client", ca.issue_cert("strategy@trunkline.example")),
        stranger=_write(folder, "stranger", unknown.issue_cert(*LOCAL)),
    )


def _write(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.key.touch(mode=0o600)
    leaf.private_key_pem.write_to_path(str(pair.key))
    for index, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(str(pair.cert), append=index > 0)
    return pair
