"""The wishes of a redis address: where to read and write, how to log in. No I/O.

The plan is made before anything is connected, so an impossible value is reported in one clear
sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline.actors.driver import FatalError
from trunkline.actors.net.liveness import LONGEST_ANSWER_S, answer_time
from trunkline.address import Address
from trunkline.address.header_text import header_text

__all__ = ["CLAIM_IDLE_S", "GroupPlan", "Login", "Plan", "StreamPlan", "plan_of", "sound_headers"]

CLAIM_IDLE_S = 60.0
"""Default seconds after which a message of a silent consumer of the group is taken over."""
_LONGEST_BLOCK_S = 5.0
_SHORTEST_BLOCK_S = 0.1


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """How a consumer group reads the streams."""

    name: str
    consumer: str | None
    """None: the connection makes its own name."""
    claim_idle_s: float


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How streams are read."""

    names: tuple[str, ...]
    start: str
    """The id behind which reading starts; `$` is the id of the last entry."""
    group: GroupPlan | None
    window: int
    """The most messages that are held unread."""
    block_s: float
    """Seconds that the server may keep a question for messages. Its answer is the link's sign of
    life.
    """


@dataclass(frozen=True, slots=True)
class Login:
    """The login at one server."""

    user: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of one address."""

    servers: tuple[tuple[str, int], ...]
    logins: tuple[Login, ...]
    database: int
    name: str | None
    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    streams: StreamPlan | None
    write_channel: str | None
    write_stream: str | None
    writes_streams: bool
    """Whether a message with its own `topic` goes to a stream of that name, and not to a
    channel.
    """
    headers: dict[str, str | bytes]
    maxlen: int | None
    data_field: bytes
    largest: int
    """Messages of more bytes are discarded."""

    @property
    def reads(self) -> bool:
        return bool(self.channels or self.patterns or self.streams)


def plan_of(address: Address) -> Plan:
    """Return the plan of an address; FatalError names the option that cannot be obeyed."""
    params, extra = address.params, address.extra
    typed: Mapping[str, Any] = extra.get("typed", {})
    streams = _streams(address, typed)
    channels = tuple(dict.fromkeys(extra["channels"]))
    write_stream = params.get("write_stream")
    write_channel = params.get("write_channel")
    if write_stream is None and write_channel is None:
        write_channel = channels[0] if channels else None
        write_stream = streams.names[0] if streams is not None else None
    data_field = params.get("field") or "data"
    accounts = extra.get("logins") or [(address.user, address.password)] * len(address.hosts)
    return Plan(
        servers=tuple((host, port or 6379) for host, port in address.hosts),
        logins=tuple(Login(user, password) for user, password in accounts),
        database=int(extra["database"]),
        name=params.get("name"),
        channels=channels,
        patterns=tuple(dict.fromkeys(extra["patterns"])),
        streams=streams,
        write_channel=write_channel,
        write_stream=write_stream,
        writes_streams=write_stream is not None,
        headers=_headers(address, data_field, writes_streams=write_stream is not None),
        maxlen=typed.get("maxlen"),
        data_field=data_field.encode(),
        largest=int(address.option("max_size")),
    )


def sound_headers(given: Mapping[str, Any], data_field: str) -> dict[str, str | bytes]:
    """Return headers as fields of an entry; bytes are kept.

    ValueError for a header that cannot be a field.
    """
    found: dict[str, str | bytes] = {}
    for name, value in given.items():
        if str(name) == data_field:
            raise ValueError(
                f"the field {data_field!r} is the message itself; give field= another name"
            )
        found[str(name)] = (
            bytes(value) if isinstance(value, (bytes, bytearray)) else header_text(name, value)
        )
    return found


def _headers(address: Address, data_field: str, *, writes_streams: bool) -> dict[str, str | bytes]:
    """Return the headers of every message written; FatalError where a channel is written."""
    given = address.option("headers") or {}
    if given and not writes_streams:
        raise FatalError(
            "headers= belong to streams: a channel's messages have none; leave them out"
        )
    try:
        return sound_headers(given, data_field)
    except ValueError as error:
        raise FatalError(f"headers: {error}") from None


def _streams(address: Address, typed: Mapping[str, Any]) -> StreamPlan | None:
    """Return how streams are read; None where the address names none."""
    names = tuple(dict.fromkeys(address.extra["streams"]))
    if not names:
        return None
    group = None
    if address.params.get("group"):
        group = GroupPlan(
            address.params["group"],
            address.params.get("consumer"),
            typed["claim_idle"] / 1000 if "claim_idle" in typed else CLAIM_IDLE_S,
        )
    return StreamPlan(
        names,
        address.extra["start"] or ("$" if group is None else "0-0"),
        group,
        int(address.option("buffer")),
        _block(address),
    )


def _block(address: Address) -> float:
    """Return a third of the time that a peer has for answering a ping, between 0.1 and 5 s."""
    every_s = int(address.option("pingInterval")) / 1000
    answer_s = (
        answer_time(every_s, address.options.get("pingTimeout"), control=True) or LONGEST_ANSWER_S
    )
    return max(_SHORTEST_BLOCK_S, min(_LONGEST_BLOCK_S, answer_s / 3))
