"""WebSocket: ws and wss."""

from __future__ import annotations

from trunkline.address.schemes.model import (
    COMPRESSION,
    DIALED,
    NAMED_TLS,
    PING_20_S,
    SECURE_WEB_PROXY,
    STREAM,
    TRUST,
    WEB_PROXY,
    Scheme,
)

__all__ = ["ROWS"]

_DRIVER = "trunkline.actors.drivers.ws.driver:WsDriver"
_HANDSHAKE = ("enableCompression", "headers", "subprotocols", "origin")
_OPTIONS = (*STREAM, *COMPRESSION, *DIALED, *_HANDSHAKE)

ROWS = (
    Scheme(
        name="ws",
        family="websocket",
        example="ws://host/path",
        driver=_DRIVER,
        port=80,
        proxy_variables=WEB_PROXY,
        mistaken=("http",),
        options=(*_OPTIONS, *TRUST),
        defaults=(PING_20_S,),
    ),
    Scheme(
        name="wss",
        family="websocket",
        example="wss://host/path",
        more_examples=("wss://stream.example.com:9443/ws/!ticker@arr|reconnect=true",),
        driver=_DRIVER,
        port=443,
        proxy_variables=SECURE_WEB_PROXY,
        tls=True,
        mistaken=("https",),
        options=(*_OPTIONS, *NAMED_TLS),
        defaults=(PING_20_S,),
    ),
)
