"""`Dial` and `connect`: the two ways to a Connection."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from trunkline import client as clients
from trunkline import reasons
from trunkline.address import Address, parse_address
from trunkline.channel import Channel
from trunkline.client import Client
from trunkline.connection import Connection, RaisingConnection
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, BrokerGone, DialTimeout, OperationTimeout, TrunklineError
from trunkline.hints import hint_at_options, hint_at_seconds
from trunkline.holder import attached
from trunkline.runtime import ENV
from trunkline.wire import values
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["Dial", "connect", "from_handle", "last_error", "shutdown"]

log = logging.getLogger("trunkline")

GRACE_S = 0.3
HANDLE_S = 10.0
REDIAL_MS = 2000
"""For one attempt to dial anew where broker and worker were lost together; there are more."""

Timeout = float | Mapping[str, object] | None


def Dial(address: str | int, timeout: Timeout = None, /, **options: object) -> Connection | None:
    """Open a connection in a process of its own, or attach to one by its handle.

    `address`: `TARGET|name=value&...` (docs/reference.md), or a handle from `fd()`. `timeout`: seconds to
    open it in (default 30), or a mapping of options; options may also be given by name. One in the
    address wins over the same one given here.

    Returns a Connection, or None when it could not be opened in time; the reason is logged and in
    `last_error()`. Raises TypeError for arguments of a wrong type, nothing for the network's sake.
    """
    try:
        return _open(address, timeout, options, raising=False)
    except TrunklineError as error:
        reasons.remember(error)
        log.warning("%s", error)
        return None


def connect(address: str | int, timeout: Timeout = None, /, **options: object) -> RaisingConnection:
    """`Dial` for people who prefer exceptions: returns a Connection whose methods raise too, or raises
    AddressError, DialError, DialTimeout, DeadHandle, MissingLibrary, BrokerGone."""
    try:
        connection = _open(address, timeout, options, raising=True)
        assert isinstance(connection, RaisingConnection)
        return connection
    except TrunklineError as error:
        reasons.remember(error)
        raise


def from_handle(handle: int, raising: bool, broker: str = "") -> Connection:
    """What a pickled Connection becomes in another process. A process that knows of no broker yet (a child
    of a forkserver that began before the first Dial) joins the one at the address `broker`."""
    if broker and clients.current() is None:
        os.environ.setdefault(ENV, broker)
    return _attach(handle, raising=raising)


def last_error() -> str | None:
    """Why the last call that failed in this process failed; None when none has. Holds no secret."""
    return reasons.last()


def shutdown() -> None:
    """Close every connection of this process and leave the broker; the broker and the workers end with their
    last client. Called at the end of the program; calling Dial afterwards starts anew."""
    clients.shutdown()


def _open(address: str | int, timeout: Timeout, options: dict[str, object], *, raising: bool) -> Connection:
    if isinstance(address, bool) or not isinstance(address, (str, int)):
        raise TypeError(
            f"Dial takes an address (text) or a handle (a whole number), not {type(address).__name__}"
        )
    given = _options(timeout, options)
    if isinstance(address, int):
        seconds = float(str(given.get("timeout", HANDLE_S)))
        hint_at_seconds(seconds)
        return _attach(address, raising=raising, seconds=seconds + GRACE_S)
    parsed = _resolved(parse_address(address, given))
    hint_at_seconds(float(parsed.option("timeout")))
    hint_at_options(parsed)
    return _dial(parsed, raising=raising)


def _resolved(address: Address) -> Address:
    """The address with the caller's folder in front of relative paths."""
    try:
        return address.resolved(os.getcwd())
    except OSError:  # the folder was deleted under us
        if address.resolved("/") != address:
            text = f"{address.display}: the current folder is gone; give an absolute path"
            raise AddressError(text) from None
        return address


def _options(timeout: Timeout, options: dict[str, object]) -> dict[str, object]:
    if timeout is None:
        return options
    if isinstance(timeout, Mapping):
        return {**timeout, **options}
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(
            f"Dial's second argument is seconds or a mapping of options, not {type(timeout).__name__}"
        )
    return {"timeout": timeout, **options} if timeout else options


def _dial(address: Address, *, raising: bool) -> Connection:
    seconds = float(address.option("timeout"))
    deadline = Deadline(seconds + GRACE_S)  # the start of a broker is part of it
    spec = {"address": address.to_wire(), "scheme": address.scheme, "display": address.display}
    body = values.pack(spec)

    def ask(client: Client, channel: Channel) -> None:
        milliseconds = max(1, int((deadline.left() - GRACE_S) * 1000))
        fields = (client.control_id, milliseconds, _restarts(address), float(address.option("linger")))
        channel.send(BROKER, Kind.OPEN, 1, fields, body)

    try:
        connection = _held(ask, deadline, raising=raising)
    except OperationTimeout:
        raise DialTimeout(f"{address.display} could not be opened within {seconds:g} s") from None
    if _restarts(address):
        connection.redial_with((REDIAL_MS, True, float(address.option("linger"))), body)
    return connection


def _held(ask: Callable[[Client, Channel], None], deadline: Deadline, *, raising: bool) -> Connection:
    """Ask the broker for a connection; should it be lost before it answers, ask the one that follows it."""
    client = clients.get(deadline)
    while True:
        client.settle(deadline)
        channel = client.channel()
        try:
            ask(client, channel)
            key, info = attached(channel, deadline, client)
        except BrokerGone:
            channel.close()
            if deadline.expired() or client is not clients.current():
                raise
        except BaseException:
            channel.close()
            raise
        else:
            kind = RaisingConnection if raising else Connection
            return kind(client, channel, key, info, raising=raising)


def _restarts(address: Address) -> bool:
    """Whether a crashed worker is replaced: where the user wants the link kept (the option's default for
    database servers and message brokers), and for a database file; but not a database whose data would be
    gone with the worker."""
    if address.scheme == "sqlite3":
        temporary = address.extra.get("memory") or not address.extra.get("file")
        return not temporary
    return bool(address.option("reconnect"))


def _attach(handle: int, *, raising: bool, seconds: float = HANDLE_S) -> Connection:
    def ask(client: Client, channel: Channel) -> None:
        channel.send(BROKER, Kind.ATTACH, 1, (client.control_id, _in_range(handle), b"", b"", 0, 0, []))

    try:
        return _held(ask, Deadline(seconds), raising=raising)
    except OperationTimeout:
        raise BrokerGone("the broker did not answer; `trunkline doctor` tells more") from None


def _in_range(handle: int) -> int:
    """Handles are 63 bits and positive; any other number names nothing (1 never does)."""
    return handle if 0 < handle < 1 << 63 else 1
