"""Puts librdkafka's errors into words for users, and tells what each means for a link or a
write.
"""

from __future__ import annotations

import re

from confluent_kafka import KafkaError, KafkaException

from trunkline.actors.driver import FatalError
from trunkline.actors.net.tls_alerts import alert_in
from trunkline.address import OPTIONS, PARAMS
from trunkline.address.nearest import nearest
from trunkline.errors import DialError

__all__ = [
    "DAMAGED",
    "NOT_YET",
    "REFUSED",
    "UNKNOWN_TOPIC",
    "UNREADABLE",
    "broker_of",
    "cause",
    "fenced_member",
    "missing_topic",
    "refusal",
    "said",
    "settings_failure",
    "topic_failure",
]

_PREFIX = re.compile(r"^(?:GroupCoordinator: )?(?:\w+://)?(\S+?:\d+)(?:/\w+)?: ")
_NO_PROPERTY = re.compile(r'No such configuration property: "(.+)"')
_AFTER = re.compile(r" \(after \d+ms in state [A-Z_]+(?:, \d+ identical error\(s\) suppressed)?\)")

NOT_YET = frozenset(
    (
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._WAIT_CACHE,
        KafkaError._TIMED_OUT_QUEUE,
    )
)
"""Nothing was done, and the same call may succeed in a moment: a partition moves, or a topic is
being made.
"""

DAMAGED = frozenset(
    (
        KafkaError._BAD_MSG,
        KafkaError._BAD_COMPRESSION,
        KafkaError._NOT_IMPLEMENTED,
        KafkaError._UNDERFLOW,
    )
)
"""librdkafka cannot decode the messages that it has fetched."""

UNREADABLE = frozenset((KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD, KafkaError.UNKNOWN))
"""The broker itself cannot read its log."""

UNKNOWN_TOPIC = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)

REFUSED = frozenset(
    (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._INVALID_ARG,
        KafkaError._BAD_COMPRESSION,
    )
)
"""The message as it is will never be taken."""


def said(error: KafkaError | KafkaException) -> str:
    """Return librdkafka's own words without their prefixes."""
    one: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    text = one.str() or one.name()
    text = _AFTER.sub("", _PREFIX.sub("", text))
    return text.removeprefix("Local: ").removeprefix("Broker: ").rstrip(".")


def settings_failure(error: KafkaException) -> FatalError:
    """Return the error for a setting that librdkafka refuses.

    Every name with an underscore counts as a property of librdkafka. An unknown name may therefore
    be a misspelt option of Trunkline, and the error then suggests the nearest option.
    """
    text = f"librdkafka: {said(error)}"
    found = _NO_PROPERTY.search(text)
    near = (
        nearest(found[1].replace(".", "_"), [*OPTIONS, *PARAMS["kafka"]], cutoff=0.8)
        if found
        else None
    )
    return FatalError(f"{text}; did you mean '{near}'?" if near else text)


def broker_of(text: str) -> str | None:
    """Return the server named in an error, or None."""
    found = _PREFIX.match(text)
    return found[1] if found else None


def cause(error: KafkaError, peer: str) -> DialError:
    """Return why no link was possible: a FatalError where another attempt would not help."""
    code, text = error.code(), said(error)
    peer = broker_of(error.str() or "") or peer
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        if "handshake" in text or "nsupported" in text:
            return FatalError(f"{peer} does not take this login: {text}; give sasl_mechanisms=...")
        return FatalError(f"{peer} refused the login: {text}; check user and password")
    if (alert := alert_in(text)) is not None:
        return FatalError(f"{peer} {alert}")
    if code == KafkaError._SSL or "certificate" in text:
        if "verify failed" in text or "certificate verif" in text:
            return FatalError(
                f"certificate of {peer} is not trusted: {_first(text)}; "
                "give cafile=... or insecureSkipVerify=true"
            )
        return DialError(
            f"TLS handshake with {peer} failed: {_first(text)}; check security_protocol"
        )
    if code == KafkaError._RESOLVE:
        return DialError(f"no such host {peer.rpartition(':')[0]}; check the spelling or DNS")
    if "Connection refused" in text:
        return DialError(f"{peer} refused the connection; is the server running?")
    if "response size" in text or "underflow" in text or "Receive failed" in text:
        return FatalError(
            f"{peer} does not answer as a Kafka broker ({_first(text)}); check the port"
        )
    if "PLAINTEXT broker" in text:
        return DialError(f"{peer} did not answer with TLS; check the port and security_protocol")
    if (
        "SSL connection closed" in text
    ):  # a port without TLS does that, and so does a stopping broker
        return DialError(
            f"{peer} closed the TLS connection; if it always does, check the port and security_protocol"
        )
    if "security.protocol" in text or "ApiVersion" in text:
        return DialError(
            f"{peer} did not answer as a Kafka broker; "
            "check the port, and give security_protocol=SSL or SASL_SSL where it wants that"
        )
    return DialError(f"{peer} could not be reached: {_first(text)}")


def _first(text: str) -> str:
    return text.partition(": verify that")[0].partition(", verify that")[0]


def topic_failure(error: KafkaError, topic: str, peer: str, group: str | None) -> DialError:
    """Return why a topic or a group cannot be used."""
    code = error.code()
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return FatalError(
            f"this user has no right to the topic '{topic}' of {peer}; ask for it, or log in"
        )
    if code in UNKNOWN_TOPIC:
        return FatalError(
            f"{peer} has no topic '{topic}' and makes none by itself; create it, or check the spelling"
        )
    if code == KafkaError.TOPIC_EXCEPTION:
        return FatalError(f"'{topic}' cannot be the name of a topic: {said(error)}")
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return FatalError(
            f"this user has no right to the group '{group}' of {peer}; ask for it, or log in"
        )
    if code == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return FatalError(
            f"the other members of group '{group}' share partitions by other rules; "
            "give their partition_assignment_strategy=..."
        )
    if code in (
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.FENCED_INSTANCE_ID,
    ):
        return FatalError(f"{peer} does not take this member of group '{group}': {said(error)}")
    return DialError(f"{peer} cannot give the topic '{topic}': {said(error)}")


def fenced_member(group: str | None, peer: str) -> FatalError:
    """Return the error for a member whose `group.instance.id` another member has taken."""
    return FatalError(
        "another member with the same group.instance.id has taken this one's place in group "
        f"'{group}' of {peer}; give each member an id of its own"
    )


def missing_topic(topic: str, peer: str) -> DialError:
    """Return the error for a topic that existed and was deleted.

    It is not fatal: the topic may be made again.
    """
    if topic.startswith("^"):
        return DialError(f"{peer} has no topic that '{topic}' matches, or not all of them any more")
    return DialError(
        f"the topic '{topic}' of {peer} was deleted; reading goes on when it is made again"
    )


def refusal(error: KafkaError, topic: str, peer: str, size: int) -> str:
    """Return the words for a message that was refused."""
    code = error.code()
    if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return f"{peer} refused a message of {size} bytes for '{topic}': over its limit (max.message.bytes)"
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return f"this user has no right to write to the topic '{topic}' of {peer}"
    if code == KafkaError._UNKNOWN_PARTITION:
        return f"the topic '{topic}' of {peer} has no such partition; check partition=..."
    if code in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
        return f"{peer} has no topic '{topic}' and makes none by itself; create it, or check the spelling"
    return f"{peer} refused a message for '{topic}': {said(error)}"
