"""The reason codes of brokers, in sentences for users. No I/O."""

from __future__ import annotations

from trunkline.actors.driver import FatalError
from trunkline.actors.net import tls_alerts
from trunkline.errors import DialError, RefusedError

__all__ = [
    "PROTOCOL_ERROR",
    "WITH_WILL",
    "closed_while_opening",
    "login_refused",
    "message_refused",
    "reason",
    "said_goodbye",
    "subscription_refused",
]

FAILURE, PROTOCOL_ERROR = 0x80, 0x82
"""Codes from FAILURE on mean a refusal."""
WITH_WILL = 0x04
"""A DISCONNECT after which the broker publishes the will."""

_REASONS = {
    0x04: "disconnected with its will",
    0x10: "nobody subscribes to it",
    0x80: "it gives no reason",
    0x81: "it could not read our packet",
    0x82: "it saw a protocol error",
    0x83: "its own rules do not allow it",
    0x84: "it does not speak this version of MQTT",
    0x85: "it does not accept the client_id",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "it is unavailable",
    0x89: "it is busy",
    0x8A: "this client is banned",
    0x8B: "it shuts down",
    0x8C: "it wants another way to log in",
    0x8D: "it heard nothing of us for too long",
    0x8E: "another client logged in with the same client_id",
    0x8F: "it does not accept the topic filter",
    0x90: "it does not accept the topic",
    0x91: "the packet id is in use",
    0x92: "it does not know the packet id",
    0x93: "too many messages at once",
    0x94: "bad topic alias",
    0x95: "the message is over its limit",
    0x96: "too many messages per second",
    0x97: "a quota is used up",
    0x98: "its administrator ended the connection",
    0x99: "the payload is not of the format it says",
    0x9A: "it keeps no retained messages",
    0x9B: "it has no such QoS",
    0x9C: "another server is to be used",
    0x9D: "it has moved",
    0x9E: "it has no shared subscriptions",
    0x9F: "too many connections per second",
    0xA0: "the longest time for a connection is over",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no wildcards",
}
_LATER = frozenset((0x80, 0x83, 0x88, 0x89, 0x97, 0x9F))
"""Codes of refused logins that may succeed later."""
_LOGIN_ADVICE = {
    0x84: "give version=5 or version=3.1.1",
    0x85: "give another client_id",
    0x86: "check the user and password",
    0x87: "check the user and password, and what this client may do",
    0x8A: "ask its operator",
    0x8C: "only user and password and certificates are supported",
    0x90: "check will_topic",
    0x95: "check will_payload",
    0x9A: "leave will_retain out",
    0x9B: "give a lower will_qos",
    0x9C: "give its address",
    0x9D: "give its new address",
}
_TOPIC_ADVICE = {
    0x80: "check the rights on it",
    0x83: "check the rights on it",
    0x87: "check the rights on it",
    0x8F: "check the spelling",
    0x9E: "leave $share out",
    0xA2: "name the topics one by one",
}


def reason(code: int, text: str = "") -> str:
    """Return a reason code in words, followed by the broker's own words where it has sent any."""
    words = _REASONS.get(code, f"reason {code:#04x}")
    return f"{words} ({_one_line(text)})" if text else words


def login_refused(peer: str, code: int, text: str = "") -> DialError:
    """Return the error for a refused login; FatalError where waiting cannot help."""
    advice = _LOGIN_ADVICE.get(code)
    sentence = f"{peer} refused the login: {reason(code, text)}"
    if code in _LATER:
        return DialError(f"{sentence}; it may accept later", code=code)
    return FatalError(f"{sentence}; {advice}" if advice else sentence, code=code)


def subscription_refused(peer: str, topic: str, code: int, text: str = "") -> DialError:
    """Return the error for a refused subscription."""
    sentence = f"{peer} refused the subscription to {_one_line(topic)}: {reason(code, text)}"
    if code == 0x97:
        return DialError(f"{sentence}; it may accept later", code=code)
    return FatalError(f"{sentence}; {_TOPIC_ADVICE.get(code, 'check the topic')}", code=code)


def message_refused(peer: str, topic: str, code: int, text: str = "") -> RefusedError:
    """Return the error for a refused message."""
    return RefusedError(
        f"{peer} refused the message to {_one_line(topic)}: {reason(code, text)}", code=code
    )


def said_goodbye(peer: str, code: int, text: str = "") -> ConnectionError:
    """Return the error for a link that the broker has ended (MQTT 5)."""
    if not code:
        return ConnectionError(f"{peer} ended the connection")
    return ConnectionError(f"{peer} ended the connection: {reason(code, text)}")


def closed_while_opening(
    peer: str, reason: BaseException | None, *, answered: bool, advice: str
) -> BaseException:
    """Return the error for an opening during which the connection ended.

    `answered`: the broker has answered the login. `advice`: what else to check where it has not.
    """
    if isinstance(reason, DialError):
        return reason
    alert = tls_alerts.in_words(reason)
    if alert is not None:
        return FatalError(f"{peer} {alert}")
    why = f": {reason}" if reason is not None else ""
    if answered:
        return DialError(f"{peer} closed the connection{why}")
    return DialError(
        f"{peer} closed the connection instead of answering the MQTT login{why}; check the port, "
        f"the scheme and version={advice}"
    )


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])
