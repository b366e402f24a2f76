"""What an amqp address asks for: what is declared, read and written. Pure: no network.

queue=q                          reads q and writes to it, through the default exchange
exchange=e [routing_key=a,b]     reads a queue of its own, bound to e; writes to e
exchange=e queue=q [routing_key] reads q, bound to e; writes to e
write_topic=k [exchange=e]       writes only
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any

from trunkline.actors.driver import FatalError
from trunkline.address import Address

__all__ = ["STREAM_OFFSET", "Plan", "make_plan"]

_MAX_NAME = 255
_MAX_PREFETCH = 65_535
_ALL = ("", "#")
"""Bindings where none is given: everything a fanout, headers or topic exchange can give."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wishes of one address."""

    queue: str | None
    """None: for writing only. "": an own queue, which the broker names and deletes with the
    link.
    """
    exchange: str
    """"": the default exchange, which hands a message to the queue named by the routing key."""
    kind: str
    """The type of the exchange, for declaring it."""
    kind_given: bool
    bindings: tuple[str, ...]
    write_key: str | None
    """None: every routing key is a pattern, and writing is impossible."""
    durable: bool
    exclusive: bool
    auto_delete: bool
    passive: bool
    """Nothing is declared or bound, except for an own queue."""
    queue_arguments: dict[str, Any] | None
    exchange_arguments: dict[str, Any] | None
    consume_arguments: dict[str, Any] | None
    prefetch: int
    heartbeat_s: int
    """0: no heartbeats."""
    mandatory: bool
    persistent: bool
    headers: dict[str, Any] | None
    """Headers for every message written."""
    vhost: str
    name: str
    """The name under which the broker shows the connection."""

    @property
    def binds(self) -> bool:
        """Whether the queue that is read must be bound to the exchange."""
        return bool(self.exchange) and (not self.queue or not self.passive)

    @property
    def streams(self) -> bool:
        """Whether the queue is a stream, as far as the address tells.

        Messages that were read stay in a stream.
        """
        kind = (self.queue_arguments or {}).get("x-queue-type")
        return kind == "stream" or STREAM_OFFSET in (self.consume_arguments or {})


def make_plan(address: Address) -> Plan:
    """Return the plan of an address.

    FatalError says in words where the address contradicts itself.
    """
    params = address.params
    flags = {name: _flag(params, name, default) for name, default in _FLAGS.items()}
    queue, exchange = params.get("queue") or None, params.get("exchange") or ""
    keys = tuple(address.extra.get("routing_keys") or ())
    target = params.get("write_topic") or None
    if queue is None and exchange and not (target and not keys):
        queue = ""
    arguments = _arguments(address)
    _check(
        params,
        queue,
        exchange,
        keys,
        target,
        [name for name in arguments if name not in _OF_EXCHANGES],
    )
    if flags["passive"]:
        _check_passive(params, queue, arguments)
    return Plan(
        queue=queue,
        exchange=exchange,
        kind=params.get("type") or "direct",
        kind_given=bool(params.get("type")),
        bindings=keys or _ALL,
        write_key=_write_key(queue, exchange, keys, target),
        durable=flags["durable"],
        exclusive=flags["exclusive"],
        auto_delete=flags["auto_delete"],
        passive=flags["passive"],
        queue_arguments=_those(arguments, lambda name: name not in _OF_EXCHANGES | _OF_READERS),
        exchange_arguments=_those(arguments, _OF_EXCHANGES.__contains__),
        consume_arguments=_those(arguments, _OF_READERS.__contains__),
        prefetch=_prefetch(address),
        heartbeat_s=_heartbeat_s(address),
        mandatory=flags["mandatory"],
        persistent=_flag(params, "persistent", flags["durable"]),
        headers=dict(address.option("headers")) or None,
        vhost=_vhost(address),
        name=params.get("name") or "trunkline",
    )


_FLAGS = {
    "durable": True,
    "exclusive": False,
    "auto_delete": False,
    "passive": False,
    "mandatory": True,
}
_READING = ("exclusive", "auto_delete", "prefetch")
STREAM_OFFSET = "x-stream-offset"
_OF_EXCHANGES = frozenset(("x-delayed-type",))
_OF_READERS = frozenset(
    (
        STREAM_OFFSET,
        "x-priority",
        "x-cancel-on-ha-failover",
        "x-stream-filter",
        "x-stream-match-unfiltered",
    )
)
"""Arguments of a subscription. Arguments in neither set are the queue's."""


def _arguments(address: Address) -> dict[str, Any]:
    """Return the `x-...` parameters of an address with their types."""
    typed = address.extra.get("typed") or {}
    found = {
        name: typed.get(name, text)
        for name, text in address.params.items()
        if name.startswith("x-")
    }
    offset = found.get(STREAM_OFFSET)
    if isinstance(offset, str):
        with contextlib.suppress(ValueError):  # first, last, next, or an age such as 1h
            moment = datetime.fromisoformat(offset)
            found[STREAM_OFFSET] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return found


def _those(arguments: Mapping[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any] | None:
    return {name: value for name, value in arguments.items() if wanted(name)} or None


def _check_passive(
    params: Mapping[str, str], queue: str | None, arguments: Mapping[str, Any]
) -> None:
    """Refuse parameters that only a declaration could obey."""
    idle = [name for name in ("type", *_OF_EXCHANGES) if name in params]
    if queue:
        idle += [
            name
            for name in ("auto_delete", *arguments)
            if name in params and name not in _OF_READERS
        ]
    if idle:
        raise FatalError(
            f"passive=true declares nothing, so {idle[0]}= has no use: leave one of them out"
        )


def _check(
    params: Mapping[str, str],
    queue: str | None,
    exchange: str,
    keys: tuple[str, ...],
    target: str | None,
    arguments: Sequence[str],
) -> None:
    """Raise FatalError where parameters contradict each other, or a name is too long."""
    for name, text in (
        ("queue", queue),
        ("exchange", exchange),
        ("write_topic", target),
        *_named(keys),
    ):
        if text is not None and len(text.encode()) > _MAX_NAME:
            raise FatalError(f"{name} has {len(text.encode())} bytes: AMQP allows {_MAX_NAME}")
    if params.get("type") and not exchange:
        raise FatalError("type is the type of an exchange: give exchange= too")
    if keys and not exchange and (queue is not None or target is not None):
        raise FatalError(
            "routing_key binds a queue to an exchange: give exchange= too (write_topic= for writing)"
        )
    if queue is None and not exchange and not keys and target is None:
        raise FatalError("nothing to read or write: give queue=, exchange= or write_topic=")
    if queue is None and (idle := [*(name for name in _READING if name in params), *arguments]):
        raise FatalError(
            f"{idle[0]} is about reading, and nothing is read: give queue= or exchange="
        )


def _named(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    return [("routing_key", key) for key in keys]


def _write_key(
    queue: str | None, exchange: str, keys: tuple[str, ...], target: str | None
) -> str | None:
    """Return the routing key for writing; None where all keys are patterns."""
    if target is not None:
        return target
    if not exchange:
        return keys[0] if queue is None else queue
    if not keys:
        return ""
    return next((key for key in keys if not {"*", "#"} & set(key.split("."))), None)


def _flag(params: Mapping[str, str], name: str, default: bool) -> bool:
    """Read a parameter that is true or false."""
    value = params.get(name)
    if value is None:
        return default
    if value.lower() in ("true", "1", "yes"):
        return True
    if value.lower() in ("false", "0", "no"):
        return False
    raise FatalError(f"{name} takes true or false")


def _number(params: Mapping[str, str], name: str) -> int | None:
    """Read a parameter that is a whole number; None where it is missing."""
    value = params.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or int(value) > _MAX_PREFETCH:
        raise FatalError(f"{name} takes a whole number from 0 to {_MAX_PREFETCH}")
    return int(value)


def _prefetch(address: Address) -> int:
    """Return the prefetch limit, never more than the buffer holds: other consumers may have the
    rest.
    """
    most = min(int(address.option("buffer")), _MAX_PREFETCH)
    return min(_number(address.params, "prefetch") or most, most)


def _heartbeat_s(address: Address) -> int:
    """Return the interval of heartbeats in seconds: the given one, or the ping interval."""
    given = _number(address.params, "heartbeat")
    if given is not None:
        return given
    return min(ceil(int(address.option("pingInterval") or 0) / 1000), _MAX_PREFETCH)


def _vhost(address: Address) -> str:
    """Return the virtual host; FatalError for a name that is too long."""
    vhost = str(address.extra.get("vhost") or "/")
    if len(vhost.encode()) > _MAX_NAME:
        raise FatalError(
            f"the virtual host's name has {len(vhost.encode())} bytes: AMQP allows {_MAX_NAME}"
        )
    return vhost
