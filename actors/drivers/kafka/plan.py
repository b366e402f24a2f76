"""The wishes of a kafka address, as properties of librdkafka.

No I/O but for reading certificate files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import libversion

from trunkline.actors.driver import FatalError
from trunkline.actors.net import tls
from trunkline.address import Address
from trunkline.address.header_text import header_text
from trunkline.errors import RefusedError

__all__ = ["EARLIEST", "LATEST", "Plan", "check_topic", "header_pairs", "plan_of"]

LATEST, EARLIEST = -1, -2
"""Values of Kafka's own protocol where a time is asked for."""
PING_MS = 20_000
_MOST_MS = 300_000
_SESSION_MS = 10_000
_MESSAGE_MAX = 1_000_000
_PROPAGATION_MS = 10_000
"""Milliseconds for which a missing topic is waited for before it is reported as deleted."""
_REBOOTSTRAPS = 0x020B0000
_PREFETCH_KB = 16_384
_PREFETCH = 20_000
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

_OURS = {
    "enable.auto.commit": "a message is committed when a reader has it",
    "auto.commit.enable": "a message is committed when a reader has it",
    "enable.auto.offset.store": "a message is committed when a reader has it",
    "auto.offset.reset": "write offset=earliest or offset=latest",
    "enable.partition.eof": "ends of partitions are looked for in any case",
    "message.timeout.ms": "the time of a write is the caller's: conn.write(data, timeout_ms)",
    "delivery.timeout.ms": "the time of a write is the caller's: conn.write(data, timeout_ms)",
    "delivery.report.only.error": "a write waits for the report of its message",
    "transactional.id": "there are no transactions over Dial",
}
"""Properties that would break a promise of Trunkline, and advice for each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of one address."""

    peer: str
    """The first server, for error texts."""
    topics: tuple[str, ...]
    write_topic: str
    group: str | None
    start: int
    """LATEST, EARLIEST, an offset, or with `start_is_time` milliseconds since 1970."""
    start_is_time: bool
    partition: int | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    limit: int
    """How many unread messages the worker and its readers may have."""
    max_size: int
    ping_s: float
    cooperative: bool
    """Whether a rebalance moves single partitions instead of all of them."""
    consumer: dict[str, Any]
    producer: dict[str, Any]
    may_make_topics: bool
    """Whether the first link may have the broker make a topic that it does not know."""
    given: bool
    """Whether the user has set properties of librdkafka."""
    debug: bool


def plan_of(address: Address) -> Plan:
    """Read the address and the certificate files.

    FatalError says in words what cannot be obeyed.
    """
    given = {str(name): str(value) for name, value in address.extra.get("librdkafka", {}).items()}
    for name in given:
        if name in _OURS:
            raise FatalError(f"{name} cannot be set: {_OURS[name]}")
    for name in ("proxy", "local_ip"):
        if address.option(name):
            raise FatalError(f"{name} cannot be had with kafka, whose library connects by itself")
    typed: dict[str, Any] = address.extra.get("typed", {})
    topics = tuple(address.extra.get("topics") or ())
    group = address.params.get("group") or None
    write_topic = address.params.get("write_topic") or next((t for t in topics if t[0] != "^"), "")
    if group is None and any(topic.startswith("^") for topic in topics):
        raise FatalError("a pattern of topics (^...) needs a group: add group=name")
    ping_ms = min(max(int(address.option("pingInterval") or PING_MS), 1000), _MOST_MS)
    protocol = given.get("group.protocol", "classic").lower()
    strategy = given.get("partition.assignment.strategy", "")
    start, start_is_time = _start(typed)
    key = address.params.get("key")
    try:
        for topic in filter(None, (write_topic, *(t for t in topics if t[0] != "^"))):
            check_topic(topic)
        headers = header_pairs(address.option("headers") or {})
    except RefusedError as error:
        raise FatalError(str(error)) from None
    common = {**_network(address, ping_ms), **_security(address, given)}
    return Plan(
        peer=f"{address.host}:{address.port}",
        topics=topics,
        write_topic=write_topic,
        group=group,
        start=start,
        start_is_time=start_is_time,
        partition=typed.get("partition"),
        key=None if key is None else key.encode(),
        headers=headers,
        limit=int(address.option("buffer")),
        max_size=int(address.option("max_size")),
        ping_s=ping_ms / 1000,
        cooperative=protocol == "consumer" or strategy.startswith("cooperative"),
        consumer={
            **common,
            **_consuming(group, protocol, ping_ms),
            **given,
            # Only librdkafka's log tells that a topic was deleted and made anew.
            "debug": ",".join(
                dict.fromkeys((*filter(None, given.get("debug", "").split(",")), "metadata"))
            ),
        },
        producer={**common, **_producing(address, given), **given},
        may_make_topics=given.get("allow.auto.create.topics", "true").lower() != "false",
        given=bool(given),
        debug="debug" in given,
    )


def _start(typed: dict[str, Any]) -> tuple[int, bool]:
    if "offset_time" in typed:
        return int(typed["offset_time"] * 1000), True
    offset = typed.get("offset", "latest")
    if isinstance(offset, int):
        return offset, False
    return (EARLIEST if offset == "earliest" else LATEST), False


def header_pairs(headers: Mapping[str, Any]) -> tuple[tuple[str, bytes | None], ...]:
    """Return headers as Kafka has them; a list stands for a name with several values.

    RefusedError for a name that librdkafka would cut short, and for a value other than text, bytes
    or None.
    """
    pairs: list[tuple[str, bytes | None]] = []
    for name, value in headers.items():
        if "\0" in name:
            raise RefusedError(
                f"the message cannot be sent: header {name[:40]!r} has the character U+0000"
            )
        several = value if isinstance(value, (list, tuple)) else (value,)
        try:
            pairs += [(name, _header_value(name, each)) for each in several]
        except ValueError as error:
            raise RefusedError(f"the message cannot be sent: {error}") from None
    return tuple(pairs)


def _header_value(name: str, value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else header_text(name, value).encode()


def check_topic(name: str) -> None:
    """Raise RefusedError for an impossible name of a topic: librdkafka would wait for such a
    topic.
    """
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise RefusedError(
            f"topic={name[:80]!r} is no name of a topic: "
            "1 to 249 letters, digits, dots, hyphens or underscores"
        )


def _network(address: Address, ping_ms: int) -> dict[str, Any]:
    """Return the properties of the network.

    A request without an answer for the ping interval ends the link. A lost broker is soon dialled
    again.
    """
    hosts = address.hosts or ((address.host or "", address.port),)
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in hosts),
        "client.id": "trunkline",
        # librdkafka checks for late answers once a second, and needs a while to report a dead
        # connection. Half the ping interval leaves time for both.
        "socket.timeout.ms": max(1000, ping_ms // 2),
        "socket.connection.setup.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
    }
    if libversion()[1] >= _REBOOTSTRAPS:
        # librdkafka would forget lost brokers, and report the loss a second time later.
        found["metadata.recovery.strategy"] = "none"
    return found


def _security(address: Address, given: dict[str, str]) -> dict[str, Any]:
    """Return the properties of TLS and SASL that the address's usual options stand for."""
    option = address.option
    if option("servername"):
        raise FatalError(
            "servername cannot be had with kafka: librdkafka takes the host's own name"
        )
    files = {
        "cafile": "ssl.ca.location",
        "certfile": "ssl.certificate.location",
        "keyfile": "ssl.key.location",
    }
    found: dict[str, Any] = {prop: option(name) for name, prop in files.items() if option(name)}
    if option("insecureSkipVerify"):
        found["enable.ssl.certificate.verification"] = False
        found["ssl.endpoint.identification.algorithm"] = "none"
    secure = bool(found) or any(name.startswith("ssl.") for name in given)
    if found:
        tls.client_context(address)  # names an unusable file in Trunkline's words
    login = address.user is not None or any(name.startswith("sasl.") for name in given)
    if address.user is not None:
        found["sasl.mechanisms"] = "PLAIN"
        found["sasl.username"] = address.user
        found["sasl.password"] = address.password or ""
    fitting = ("SASL_" if login else "") + ("SSL" if secure else "PLAINTEXT")
    asked = given.get("security.protocol", fitting).upper()
    if login and not asked.startswith("SASL_"):
        raise FatalError(
            f"security_protocol={asked} has no login: write SASL_{asked}, or leave out the user"
        )
    if secure and not asked.endswith("SSL"):
        raise FatalError(
            f"security_protocol={asked} has no TLS: write {fitting}, or leave out the TLS options"
        )
    found["security.protocol"] = asked
    return found


def _consuming(group: str | None, protocol: str, ping_ms: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        # librdkafka demands a name even without a group. Nothing is ever committed under this name.
        "group.id": group or "trunkline",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Reading always starts at a number. Vanished offsets are reported here and counted by
        # `Places`.
        "auto.offset.reset": "error",
        # `Finder` has missing topics made at the first link only. A topic that an operator deletes
        # later is not made again.
        "allow.auto.create.topics": False,
        "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
        # Without the check a damaged message is delivered unchanged, or silently stops the messages
        # behind it.
        "check.crcs": True,
        # The last offsets may carry no messages (marks of transactions). The event says so, and
        # they do not count as lag.
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 250,
        "queued.min.messages": _PREFETCH,
        "queued.max.messages.kbytes": _PREFETCH_KB,
        "fetch.queue.backoff.ms": 2,
    }
    if group:
        # New partitions, new topics of a pattern and deleted topics are noticed after so long.
        found["topic.metadata.refresh.interval.ms"] = ping_ms
    if group and protocol != "consumer":
        # The place of a killed worker becomes free after so long, for its successor, too.
        found["session.timeout.ms"] = _SESSION_MS
        found["heartbeat.interval.ms"] = _SESSION_MS // 4
    return found


def _producing(address: Address, given: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "acks": "all",
        "allow.auto.create.topics": False,
        # A write waits no longer for the report that its topic does not exist.
        "topic.metadata.propagation.max.ms": _PROPAGATION_MS // 2,
        "linger.ms": 0,
        # The broker's own limit decides, and the broker's words are passed on.
        "message.max.bytes": max(_MESSAGE_MAX, int(address.option("max_size"))),
    }
    if given.get("enable.idempotence", "false").lower() != "true":
        # librdkafka sends a message once. A second sending after a deadline or an outage would be
        # an old write. `Writer` repeats messages that were not taken, as long as the caller waits.
        found["retries"] = 0
    return found
