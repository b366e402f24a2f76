"""Kafka."""

from __future__ import annotations

from trunkline.address.schemes.model import (
    COMPRESSION,
    LOGIN,
    RECONNECTS,
    STREAM,
    TLS,
    Param,
    Scheme,
)

__all__ = ["ROWS"]

_SERVERS = "the servers stand in the address, as in kafka://host1:9092,host2:9092/topic"
_LIBRARY_CONNECTS = ", whose library connects by itself"

_PARAMS = (
    Param("topic", "names", "what to read, also written as the path; several are possible"),
    Param("write_topic", "name", "where to write: the first `topic` when left out"),
    Param("group", "name", "consumer group: offsets are committed", also=("group.id", "group_id")),
    Param(
        "offset",
        "offset",
        "where to start reading: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z",
        choices=("earliest", "latest"),
    ),
    Param("partition", "count", "the only partition to read and write"),
    Param("key", "text", "key of written messages", secret=True),
    *LOGIN,
)
_OPTIONS = (*STREAM, *COMPRESSION, "headers", *TLS, "servername")

ROWS = (
    Scheme(
        name="kafka",
        family="broker",
        example="kafka://host/topic",
        driver="trunkline.actors.drivers.kafka.driver:KafkaDriver",
        port=9092,
        extra="kafka",
        packages=("confluent-kafka",),
        options=_OPTIONS,
        defaults=(RECONNECTS,),
        refusals=(("proxy", _LIBRARY_CONNECTS), ("local_ip", _LIBRARY_CONNECTS)),
        protocol="kafka",
        params=_PARAMS,
        needs=("topic", "write_topic"),
        subjects=("topic", "write_topic"),
        elsewhere=(
            ("bootstrap.servers", _SERVERS),
            ("bootstrap_servers", _SERVERS),
            ("metadata.broker.list", _SERVERS),
            ("metadata_broker_list", _SERVERS),
        ),
    ),
)
