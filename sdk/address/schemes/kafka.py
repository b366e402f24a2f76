"""Kafka."""

from __future__ import annotations

import re
from typing import Any

from trunkline.address.golang import shown
from trunkline.address.nearest import nearest
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

# librdkafka's own names: dotted, or with underscores for the dots. A few names are a single word.
_PROPERTY = re.compile(r"[a-z]+(?:[._][a-z0-9]+)+")
_PROPERTY_WORDS = frozenset(("acks", "retries", "debug", "partitioner"))
_UNDERSCORED = frozenset(("log_level", "enabled_events"))
# The servers stand in the address.
_TAKEN = frozenset(("bootstrap.servers", "metadata.broker.list"))


def _make_param(name: str, foreign: bool) -> Param | None:
    """The row of a librdkafka property, under its dotted name; None for other names."""
    if name in _PROPERTY_WORDS:
        return Param(name, "property", "a property of librdkafka")
    dotted = name if "." in name or name in _UNDERSCORED else name.replace("_", ".")
    if dotted in _TAKEN or not _PROPERTY.fullmatch(name):
        return None
    # A name that is no property is refused here: librdkafka's own error would speak of the dotted
    # name.
    foreign = foreign and "." not in name and name != "client_id"
    slip = "." not in name and nearest(name, [row.name for row in _PARAMS], cutoff=0.85)
    return None if foreign or slip else Param(dotted, "property", "a property of librdkafka")


def _read_extra(parts: BrokerParts) -> dict[str, Any]:
    """`topic`, `topics`, and `librdkafka`: the properties for that library.

    AddressError for a bad topic.
    """
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
        more_examples=("kafka://host1:9092,host2:9092/orders?group=workers",),
        driver="trunkline.actors.drivers.kafka.driver:KafkaDriver",
        port=9092,
        extra="kafka",
        packages=("confluent-kafka",),
        options=_OPTIONS,
        defaults=(RECONNECTS,),
        refusals=(("proxy", _LIBRARY_CONNECTS), ("local_ip", _LIBRARY_CONNECTS)),
        protocol="kafka",
        params=_PARAMS,
        make_param=_make_param,
        one_login=True,
        beat="pingInterval",
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
