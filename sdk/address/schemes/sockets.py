"""Plain sockets: tcp, udp, tls and unix."""

from __future__ import annotations

from trunkline.address.schemes.model import COMPRESSION, DIALED, NAMED_TLS, STREAM, TRUST, Scheme

__all__ = ["ROWS"]

_DRIVERS = "trunkline.actors.drivers.sock.driver"

ROWS = (
    Scheme(
        name="tcp",
        family="socket",
        example="tcp://host:port",
        driver=f"{_DRIVERS}:TcpDriver",
        options=(*STREAM, *DIALED, *TRUST),
    ),
    Scheme(
        name="udp",
        family="socket",
        example="udp://host:port",
        driver=f"{_DRIVERS}:UdpDriver",
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
        options=STREAM,
    ),
)
