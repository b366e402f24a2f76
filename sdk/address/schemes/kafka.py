"""Kafka."""

from __future__ import annotations

import re
from typing import Any

from trunkline.address.golang import shown
from trunkline.address.schemes.model import (
    COMPRESSION,
    LOGIN,
    NAMED_TLS,
    RECONNECTS,
    STREAM,
    BrokerParts,
    Param,
    Scheme,
    read_topics,
)
from trunkline.errors import AddressError

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
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}|\^.*")
_OWN = frozenset(row.name for row in _PARAMS)


def _read_extra(parts: BrokerParts) -> dict[str, Any]:
    """`topic`, `topics`, and `librdkafka`: the parameters that are properties of that library."""
    for topic in (*parts.given.get("topic", []), *parts.given.get("write_topic", [])):
        if not _TOPIC.fullmatch(topic):
            raise AddressError(
                f"a kafka address has the topic '{shown(topic)}': "
                "a topic is letters, digits, '.', '_' and '-', 249 at most"
            )
    properties = {name: value for name, value in parts.params.items() if name not in _OWN}
    return {**read_topics(parts), "librdkafka": properties}


_OPTIONS = (*STREAM, *COMPRESSION, "headers", *NAMED_TLS)

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
        path_holds="topic",
        read_extra=_read_extra,
        elsewhere=(
            ("bootstrap.servers", _SERVERS),
            ("bootstrap_servers", _SERVERS),
            ("metadata.broker.list", _SERVERS),
            ("metadata_broker_list", _SERVERS),
        ),
    ),
)
