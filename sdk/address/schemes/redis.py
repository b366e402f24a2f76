"""Redis, its pub/sub channels and its streams: redis and rediss."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from trunkline.address.golang import shown
from trunkline.address.schemes.model import (
    LOGIN,
    MESSAGES,
    NAMED_TLS,
    PING_20_S,
    RECONNECTS,
    TRUST,
    BrokerParts,
    Param,
    Scheme,
)
from trunkline.errors import AddressError

__all__ = ["ROWS"]

_CLAIM_IDLE_LEAST_MS = 200
_PARAMS = (
    Param("channel", "names", "channel to read; several are possible"),
    Param("pattern", "names", "pattern of channels to read, as in `news.*`; several are possible"),
    Param("stream", "names", "stream to read; several are possible"),
    Param("group", "name", "consumer group of the streams: messages are acknowledged"),
    Param("consumer", "name", "name within the group: one of the connection's own when left out"),
    Param(
        "start",
        "name",
        "where reading a stream starts: `new`, `all`, behind an id, or at a time such as "
        "2026-01-31T12:00:00Z; of a group, when the group is made",
    ),
    Param(
        "claim_idle",
        "count",
        "ms after which a message of the group that its consumer has not acknowledged is taken over",
        low=_CLAIM_IDLE_LEAST_MS,
    ),
    Param("write_channel", "name", "channel to write to: the first `channel` when left out"),
    Param("write_stream", "name", "stream to write to: the first `stream` when left out"),
    Param(
        "maxlen", "count", "about so many messages are kept in a stream that is written to", low=1
    ),
    Param("field", "name", "field of a stream's entry that is the message: `data` when left out"),
    Param("name", "name", "the connection's name, for the server's monitoring"),
    *LOGIN,
)
_OF_A_GROUP = ("consumer", "claim_idle")
_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")
_DATABASE = re.compile(r"[0-9]{1,5}")
_NAMED_STARTS = {"new": "$", "$": "$", "all": "0-0"}


def _read_extra(parts: BrokerParts) -> dict[str, Any]:
    """`database`, `channels`, `patterns`, `streams` and `start`; raises AddressError.

    `start` is the id after which reading begins (`$`: the last present id), or None.
    """
    given = parts.given
    _check_readers(
        given.get("channel", []), given.get("pattern", []), given.get("stream", []), parts
    )
    if parts.user is not None and parts.password is None:
        raise AddressError(
            "a redis address has a user without a password: write redis://user:password@host"
        )
    written = parts.path[1:].removesuffix("/")
    if written and not _DATABASE.fullmatch(written):
        raise AddressError(
            f"a redis address has the path '/{shown(written)}': it is the number of a database, as in "
            "redis://host/0?channel=name"
        )
    return {
        "database": int(written or 0),
        "channels": given.get("channel", []),
        "patterns": given.get("pattern", []),
        "streams": given.get("stream", []),
        "start": _read_start(parts.params["start"]) if "start" in parts.params else None,
    }


def _check_readers(
    channels: Sequence[str], patterns: Sequence[str], streams: Sequence[str], parts: BrokerParts
) -> None:
    """Refuse parameters that have no effect together."""
    params = parts.params
    if streams and (channels or patterns):
        raise AddressError(
            "a redis address reads channels or streams: dial once for each of the two"
        )
    if "write_channel" in params and "write_stream" in params:
        raise AddressError("a redis address writes to a channel or to a stream: name one of them")
    for name in ("group", "start"):
        if name in params and not streams:
            raise AddressError(
                f"parameter '{name}' belongs to a stream that is read: give stream=name too"
            )
    for name in _OF_A_GROUP:
        if name in params and "group" not in params:
            raise AddressError(
                f"parameter '{name}' belongs to a consumer group: give group=name too"
            )
    if "maxlen" in params and "write_stream" not in params and not streams:
        raise AddressError(
            "parameter 'maxlen' belongs to a stream that is written to: give write_stream=name"
        )


def _read_start(value: str) -> str:
    """The id after which reading begins; raises AddressError."""
    if value in _NAMED_STARTS:
        return _NAMED_STARTS[value]
    if _ID.fullmatch(value):
        return value if "-" in value else f"{value}-0"
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise AddressError(
            f"parameter 'start' does not take '{shown(value)}': use new, all, an id such as 1526919030474-0, "
            "or a time such as 2026-01-31T12:00:00Z"
        ) from None
    # A time without a zone is UTC, wherever the strategy runs.
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    before = int(seconds * 1000) - 1
    return f"{before}-{2**64 - 1}" if before >= 0 else "0-0"


_ROW = Scheme(
    name="redis",
    family="broker",
    example="redis://host/0?channel=name",
    more_examples=("redis://user:password@host1,host2/0?stream=orders&group=workers",),
    driver="trunkline.actors.drivers.redis.driver:RedisDriver",
    port=6379,
    extra="redis",
    packages=("redis",),
    mistaken=("valkey", "keydb"),
    options=(*MESSAGES, *TRUST),
    defaults=(RECONNECTS, PING_20_S),
    protocol="redis",
    params=_PARAMS,
    needs=("channel", "pattern", "stream", "write_channel", "write_stream"),
    subjects=("channel", "pattern", "stream", "write_channel", "write_stream"),
    path_holds="database",
    read_extra=_read_extra,
    elsewhere=(
        ("db", "the number of the database is the path, as in redis://host/0?channel=name"),
        ("topic", "use channel=, pattern= or stream="),
        ("write_topic", "use write_channel= or write_stream="),
    ),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="rediss",
        more_examples=(),
        example="rediss://host/0?channel=name",
        tls=True,
        aliases=("tls+redis",),
        mistaken=("redis+tls", "redis+ssl", "valkeys"),
        options=(*MESSAGES, *NAMED_TLS),
    ),
)
