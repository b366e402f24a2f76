"""What an address asks of NATS: where to read and write, how to log in, how to read a stream.

The plan is made before anything is connected, so a misspelt value is reported in one clear
sentence.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nkeys  # type: ignore[import-untyped]

from trunkline.actors.driver import FatalError
from trunkline.address import Address
from trunkline.address.header_text import header_text

__all__ = [
    "ACK_WAIT_S",
    "LONGEST",
    "Plan",
    "StreamPlan",
    "header_bytes",
    "is_subject",
    "matches",
    "meet",
    "plan_of",
    "sound_headers",
]

ACK_WAIT_S = 30.0
"""NATS's own default, in seconds, for the wait for an acknowledgement."""
MAX_ACK_PENDING = 20_000
LONGEST = 4000
"""The most bytes that the subjects of a message may have. A server ends the link at a line of more
than 4096 bytes (`max_control_line`).
"""
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_NAME = re.compile(r"[\s.*>/\\]")


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How to read a JetStream stream."""

    name: str
    durable: str | None
    deliver: dict[str, Any]
    """`deliver_policy` and its companions, by the names of nats-py's ConsumerConfig."""
    ack_wait_s: float | None
    """None: keep the value of an existing consumer, or NATS's default."""
    max_ack_pending: int
    window: int
    """At most so many messages are held or asked for that no reader has had."""
    largest: int
    """Messages of more bytes are discarded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of one address."""

    servers: tuple[tuple[str, int], ...]
    topics: tuple[str, ...]
    write_to: str | None
    reads: bool
    queue: str | None
    headers: dict[str, str]
    overhead: int
    """How many bytes the headers need on the wire."""
    stream: StreamPlan | None
    logins: tuple[dict[str, Any], ...] = field(repr=False)
    """Arguments for nats-py's `connect`, one set for each server."""


def plan_of(address: Address) -> Plan:
    """Return the plan of an address; FatalError names the parameter that cannot be obeyed."""
    topics = tuple(address.extra.get("topics") or ())
    for topic in topics:
        if not is_subject(topic, pattern=True):
            raise FatalError(
                f"topic={topic} is no subject: words joined by dots, * for one of them and > for the rest"
            )
    stream = _stream(address)
    if stream is not None and len(topics) > 1:
        raise FatalError(
            "a stream is read by one topic: give a pattern, or dial once for each topic"
        )
    given = address.params.get("write_topic")
    headers = _headers(address)
    return Plan(
        servers=tuple((host, port or 4222) for host, port in address.hosts),
        topics=tuple(dict.fromkeys(topics)),
        write_to=_write_to(given, topics),
        reads=bool(topics) or not given,  # without topics a stream is read whole
        queue=address.params.get("queue") or None,
        headers=headers,
        overhead=header_bytes(headers),
        stream=stream,
        logins=_logins(address),
    )


def is_subject(subject: str, *, pattern: bool) -> bool:
    """Whether the text is a subject.

    With `pattern`, `*` may stand for a word and a last `>` for the rest.
    """
    words = subject.split(".")
    if re.search(r"[\s\x00]", subject) or not all(words):
        return False
    return ">" not in words[:-1] if pattern else not {"*", ">"} & set(words)


def matches(pattern: str, subject: str) -> bool:
    """Whether the pattern matches a subject without wildcards."""
    words, named = subject.split("."), pattern.split(".")
    if named[-1] == ">":
        words, named = words[: len(named) - 1], named[:-1]
        if len(subject.split(".")) <= len(named):
            return False
    return len(words) == len(named) and all(
        n in ("*", w) for n, w in zip(named, words, strict=True)
    )


def meet(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    for a, b in zip(ones := one.split("."), others := other.split("."), strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(ones) == len(others)


def _write_to(given: str | None, topics: tuple[str, ...]) -> str | None:
    """Return the subject to write to: the given one, or the first topic without wildcards."""
    for subject in (given or "", *topics):
        if len(subject.encode()) > LONGEST:
            raise FatalError(f"the subject {subject[:20]}... has more than {LONGEST} bytes")
    if given:
        if not is_subject(given, pattern=False):
            raise FatalError(
                f"write_topic={given} is no subject to write to: words joined by dots, no wildcards"
            )
        return given
    return next((topic for topic in topics if is_subject(topic, pattern=False)), None)


def _headers(address: Address) -> dict[str, str]:
    try:
        return sound_headers(address.option("headers") or {})
    except ValueError as error:
        raise FatalError(f"headers: {error}") from None


def sound_headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers as NATS takes them.

    ValueError for a header that would break the header block.
    """
    headers = {str(name): header_text(str(name), value) for name, value in given.items()}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or "\r" in value or "\n" in value:
            raise ValueError(
                f"NATS does not take {name[:40]!r}: a name without spaces, a value in one line"
            )
    return headers


def header_bytes(headers: Mapping[str, str]) -> int:
    """Return how many bytes these headers need on the wire."""
    return sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items()) + 12 * bool(
        headers
    )


def _stream(address: Address) -> StreamPlan | None:
    """Return how the stream is read; None where the address names no stream."""
    params, typed = address.params, address.extra.get("typed", {})
    name = params.get("stream")
    if not name:
        for other in ("durable", "deliver", "ack_wait", "max_ack_pending"):
            if params.get(other):
                raise FatalError(
                    f"{other}= belongs to a stream: give stream=<name> too, or leave it out"
                )
        return None
    # A queue group of a stream is a durable consumer that several connections share.
    durable = params.get("durable") or params.get("queue") or None
    for what, value in (
        ("stream", name),
        ("durable" if params.get("durable") else "queue", durable),
    ):
        if value and _NO_NAME.search(value):
            raise FatalError(
                f"{what}={value} is no name for JetStream: no spaces, dots, slashes or wildcards"
            )
    pending = int(typed.get("max_ack_pending") or MAX_ACK_PENDING)
    return StreamPlan(
        name=name,
        durable=durable,
        deliver=_deliver(
            params.get("deliver") or ("all" if durable else "new"), typed.get("deliver_time")
        ),
        ack_wait_s=int(typed["ack_wait"]) / 1000 if typed.get("ack_wait") else None,
        max_ack_pending=pending,
        window=max(1, min(int(address.option("buffer")), pending)),
        largest=int(address.option("max_size")),
    )


def _deliver(value: str, at: float | None) -> dict[str, Any]:
    """Return where a new consumer begins, by the names of nats-py's ConsumerConfig."""
    if at is not None:
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        return {"deliver_policy": "by_start_time", "opt_start_time": moment}
    if value.isdecimal():
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, int(value))}
    return {"deliver_policy": value.lower()}


def _logins(address: Address) -> tuple[dict[str, Any], ...]:
    """Return the login for each server."""
    params = address.params
    common: dict[str, Any] = {"name": params.get("name") or "trunkline"}
    if params.get("nkey"):
        common["nkeys_seed_str"] = _seed(params["nkey"])
    if params.get("creds"):
        common["user_credentials"] = _creds(params["creds"])
    accounts = address.extra.get("logins") or [(address.user, address.password)] * len(
        address.hosts
    )
    if params.get("token"):
        return ({**common, "token": params["token"]},) * len(address.hosts)
    return tuple({**common, **_account(user, password)} for user, password in accounts)


def _account(user: str | None, password: str | None) -> dict[str, Any]:
    """Return the login for nats-py.

    A user without a password is a token, as for every NATS client.
    """
    if user is None:
        return {}
    return {"token": user} if password is None else {"user": user, "password": password}


def _seed(value: str) -> str:
    """Return the seed of a user's key: the value itself, or the seed in the file that the value
    names.
    """
    if _is_seed(value):
        return value
    seed = next(filter(_is_seed, map(str.strip, _lines("nkey", value))), None)
    if seed is None:
        raise FatalError(
            f"nkey={value} holds no seed of a user's key (it starts with SU); make one with nk"
        )
    return seed


def _creds(path: str) -> str:
    """Check the credentials file and return its path."""
    lines = _lines("creds", path)
    if not any("BEGIN NATS USER JWT" in line for line in lines) or not any(map(_is_seed, lines)):
        raise FatalError(
            f"creds={path} is no credentials file (a user's JWT and seed); make one with nsc"
        )
    return path


def _lines(name: str, path: str) -> list[str]:
    """Return the lines of a file; FatalError where it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20).splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise FatalError(f"{name}={path} cannot be read: {why or 'no such file'}") from None


def _is_seed(text: str) -> bool:
    if not text.startswith("SU"):
        return False
    try:
        nkeys.from_seed(bytearray(text.strip().encode())).wipe()
    except Exception:  # nkeys' errors have no common base, and may quote the seed
        return False
    return True
