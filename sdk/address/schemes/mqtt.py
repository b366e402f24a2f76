"""MQTT, over TCP, TLS and WebSocket: mqtt, mqtts, ws+mqtt and wss+mqtt."""

from __future__ import annotations

from dataclasses import replace

from trunkline.address.schemes.model import (
    LOGIN,
    MESSAGES,
    NAMED_TLS,
    PING_20_S,
    RECONNECTS,
    SECURE_WEB_PROXY,
    TRUST,
    WEB_PROXY,
    Param,
    Scheme,
)

__all__ = ["ROWS"]

_PARAMS = (
    Param("topic", "names", "what to read, wildcards allowed; several are possible"),
    Param(
        "write_topic", "name", "where to write: the first `topic` without a wildcard when left out"
    ),
    Param("qos", "count", "quality of service of reading and writing: 0, 1 or 2", high=2),
    Param("retain", "bool", "written messages are kept for later subscribers"),
    Param("client_id", "name", "the session's name"),
    Param("clean", "bool", "false: the server keeps the session of `client_id`"),
    Param("version", "enum", "of the protocol", choices=("3.1.1", "5")),
    Param("will_topic", "name", "where the server writes when the link is lost"),
    Param("will_payload", "text", "what it writes then", secret=True),
    Param("will_qos", "count", "quality of service of the will", high=2),
    Param("will_retain", "bool", "the will is kept for later subscribers"),
    Param(
        "session_expiry",
        "count",
        "life of a kept session without a link, s (version 5)",
        high=2**32 - 1,
    ),
    Param(
        "retain_handling",
        "count",
        "retained messages come with each subscription (0), only with a new one (1), never (2) (version 5)",
        high=2,
    ),
    Param("no_local", "bool", "what this connection writes does not come back to it (version 5)"),
    *LOGIN,
)
_ROW = Scheme(
    name="mqtt",
    family="broker",
    example="mqtt://host?topic=name",
    more_examples=("mqtt://host?topic=orders/+/new&qos=1",),
    driver="trunkline.actors.drivers.mqtt.driver:MqttDriver",
    port=1883,
    extra="mqtt",
    packages=("paho-mqtt",),
    options=(*MESSAGES, *TRUST),
    defaults=(RECONNECTS, PING_20_S),
    protocol="mqtt",
    params=_PARAMS,
    needs=("topic", "write_topic"),
    subjects=("topic", "write_topic"),
    elsewhere=(("keepalive", "use the option pingInterval, in ms"),),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="mqtts",
        more_examples=(),
        example="mqtts://host?topic=name",
        port=8883,
        tls=True,
        mistaken=("mqtt+ssl",),
        options=(*MESSAGES, *NAMED_TLS),
    ),
    replace(
        _ROW,
        name="ws+mqtt",
        more_examples=(),
        path_holds="url",
        default_path="/mqtt",
        example="ws+mqtt://host/mqtt?topic=name",
        port=80,
        proxy_variables=WEB_PROXY,
        mistaken=("mqtt+ws",),
    ),
    replace(
        _ROW,
        name="wss+mqtt",
        more_examples=(),
        path_holds="url",
        default_path="/mqtt",
        example="wss+mqtt://host/mqtt?topic=name",
        port=443,
        proxy_variables=SECURE_WEB_PROXY,
        tls=True,
        mistaken=("mqtt+wss",),
        options=(*MESSAGES, *NAMED_TLS),
    ),
)
