"""Plain sockets: tcp, udp, tls and unix."""

from __future__ import annotations

import os.path
from typing import Any

from trunkline.address.schemes.model import (
    COMPRESSION,
    DIALED,
    NAMED_TLS,
    STREAM,
    TRUST,
    AddressParts,
    Scheme,
)

__all__ = ["ROWS"]

_DRIVERS = "trunkline.actors.drivers.sock.driver"


def _resolve_files(parts: AddressParts, folder: str) -> dict[str, Any]:
    """The absolute path of the socket. A path that begins with `@` is no file."""
    if parts.path.startswith("@"):
        return {}
    path = os.path.join(folder, parts.path)
    return {"target": f"unix://{path}", "path": path}


ROWS = (
    Scheme(
        name="tcp",
        family="socket",
        example="tcp://host:port",
        more_examples=("tcp://[::1]:8089",),
        driver=f"{_DRIVERS}:TcpDriver",
        options=(*STREAM, *DIALED, *TRUST),
    ),
    Scheme(
        name="udp",
        family="socket",
        example="udp://host:port",
        driver=f"{_DRIVERS}:UdpDriver",
        net="udp",
        options=(*STREAM, *COMPRESSION, "local_ip", "interface"),
    ),
    Scheme(
        name="tls",
        family="socket",
        example="tls://host:port",
        driver=f"{_DRIVERS}:TlsDriver",
        tls=True,
        mistaken=("ssl",),
        options=(*STREAM, *DIALED, *NAMED_TLS),
    ),
    Scheme(
        name="unix",
        family="socket",
        example="unix:///path/to/socket",
        driver=f"{_DRIVERS}:UnixDriver",
        net="unix",
        resolve_files=_resolve_files,
        options=STREAM,
    ),
)
