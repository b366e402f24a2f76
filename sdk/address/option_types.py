"""The options of `Dial` and `connect` as types, so that type checkers see a misspelt name or a wrong value.

Written by scripts/reference.py from the tables of options and parameters: change those, and run it. What
librdkafka calls its own and has no row here is given in a mapping: `Dial(address, {"ssl.ca.location": p})`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, TypedDict

__all__ = ["Options"]

_Message = str | bytes | dict[str, Any] | list[Any]
_Property = str | int | float | bool


class Options(TypedDict, total=False):
    """What may be given to `Dial` and `connect` by name; docs/reference.md says which scheme takes which."""

    reconnect: bool | None
    interval: int | None
    maxInterval: int | None
    retry: int | None
    payload: _Message | Sequence[_Message] | None
    payloadInterval: int | None
    limit: str | int | None
    compress: Literal["gzip", "gzip_raw", "deflate", "zlib"] | None
    mode: Literal["recv", "send", "dual"] | None
    enableCompression: bool | None
    proxy: str | None
    headers: str | Mapping[str, Any] | None
    subprotocols: str | Sequence[str] | None
    origin: str | None
    pingInterval: int | None
    pingMessage: _Message | None
    pingType: Literal["control", "text"] | None
    pingTimeout: int | None
    idle: int | None
    cafile: str | None
    certfile: str | None
    keyfile: str | None
    servername: str | None
    insecureSkipVerify: bool | None
    local_ip: str | IPv4Address | IPv6Address | None
    interface: str | None
    buffer: int | None
    buffer_bytes: int | None
    decode: Literal["auto", "text", "bytes"] | None
    timeout: float | None
    max_size: int | None
    linger: float | None
    queue: str | None
    exchange: str | None
    type: str | None
    routing_key: str | list[str] | tuple[str, ...] | None
    write_topic: str | None
    write_key: str | None
    durable: bool | str | None
    exclusive: bool | None
    auto_delete: bool | None
    passive: bool | None
    prefetch: int | None
    heartbeat: int | None
    persistent: bool | None
    mandatory: bool | None
    name: str | None
    username: str | bytes | int | None
    password: str | bytes | int | None
    topic: str | list[str] | tuple[str, ...] | None
    group: str | None
    group_id: str | None
    offset: str | int | datetime | None
    partition: int | None
    key: str | bytes | int | None
    qos: int | None
    retain: bool | None
    client_id: str | _Property | None
    clean: bool | None
    version: Literal["3.1.1", "5", 5] | None
    will_topic: str | None
    will_payload: str | bytes | int | None
    will_qos: int | None
    will_retain: bool | None
    session_expiry: int | None
    retain_handling: int | None
    no_local: bool | None
    subject: str | list[str] | tuple[str, ...] | None
    write_subject: str | None
    stream: str | list[str] | tuple[str, ...] | None
    deliver: str | int | datetime | None
    ack_wait: int | None
    max_ack_pending: int | None
    token: str | bytes | int | None
    creds: str | None
    nkey: str | None
    channel: str | list[str] | tuple[str, ...] | None
    pattern: str | list[str] | tuple[str, ...] | None
    consumer: str | None
    start: str | None
    claim_idle: int | None
    write_channel: str | None
    write_stream: str | None
    maxlen: int | None
    field: str | None
    acks: _Property | None
    auto_offset_reset: _Property | None
    compression_type: _Property | None
    enable_idempotence: _Property | None
    fetch_min_bytes: _Property | None
    fetch_wait_max_ms: _Property | None
    linger_ms: _Property | None
    message_max_bytes: _Property | None
    partition_assignment_strategy: _Property | None
    partitioner: _Property | None
    retries: _Property | None
    sasl_mechanism: _Property | None
    sasl_mechanisms: _Property | None
    sasl_password: _Property | None
    sasl_username: _Property | None
    security_protocol: _Property | None
    session_timeout_ms: _Property | None
