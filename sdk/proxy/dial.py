"""`Dial` and `connect`: the two functions that make a Connection."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from trunkline.address import Address, parse_address
from trunkline.address.proxy_variables import with_proxy
from trunkline.address.schemes import scheme_row
from trunkline.deadline import Deadline
from trunkline.errors import AddressError, BrokerGone, DialTimeout, OperationTimeout, TrunklineError
from trunkline.frames import Sealed, without_frames
from trunkline.proxy import process, reasons
from trunkline.proxy.claims import Claim
from trunkline.proxy.connection import Connection, RaisingConnection
from trunkline.proxy.family import broker_of_parents
from trunkline.proxy.hints import hint_at_options, hint_at_seconds
from trunkline.proxy.membership import attached
from trunkline.proxy.process import Client
from trunkline.proxy.route import RouterRoute
from trunkline.system.limits import lacks_descriptors
from trunkline.wire import values
from trunkline.wire.endpoint import ENV
from trunkline.wire.envelope import BROKER, Kind

__all__ = ["Dial", "connect", "from_handle", "last_error", "shutdown"]

log = logging.getLogger("trunkline")

GRACE_S = 0.4
"""Seconds behind the time allowed, for the worker's own answer, which says why a dial failed."""
HANDLE_S = 10.0
"""The default timeout in seconds for attaching by a handle."""
REDIAL_MS = 2000
"""Milliseconds for one attempt to dial anew where broker and worker were lost together. Attempts go
on until one succeeds."""

if TYPE_CHECKING:
    from trunkline.address.option_types import Options

Timeout = float | Mapping[str, Any] | None


def Dial(
    address: str | int, timeout: Timeout = None, /, **options: Unpack[Options]
) -> Connection | None:
    """Open a connection in a process of its own, or attach to one by its handle.

    `address`: `TARGET|name=value&...` (docs/reference.md), or a handle from `fd()`.
    `timeout`: seconds for opening the connection (default 30), or a mapping of options.
    `options`: further options by name. An option in the address wins over the same option here.

    Returns a Connection. Returns None when the connection could not be opened in time; the reason
    is in the log and in `last_error()`. Raises TypeError for arguments of a wrong type, and nothing
    for the network's sake.
    """
    try:
        return _open(address, timeout, dict(options), raising=False)
    except BaseException as error:
        failure = without_frames(error)
    del address, timeout, options  # see trunkline.frames
    if not isinstance(failure, TrunklineError):
        raise failure
    reasons.remember(failure)
    if not process.is_cut_off():
        log.warning("%s", failure)
    return None


def connect(
    address: str | int, timeout: Timeout = None, /, **options: Unpack[Options]
) -> RaisingConnection:
    """Open a connection as `Dial` does, but with exceptions.

    Returns a Connection whose methods raise, too. Raises AddressError, DialError, DialTimeout,
    DeadHandle, MissingLibrary or BrokerGone.
    """
    try:
        connection = _open(address, timeout, dict(options), raising=True)
        assert isinstance(connection, RaisingConnection)
        return connection
    except BaseException as error:
        failure = without_frames(error)
    del address, timeout, options  # see trunkline.frames
    if isinstance(failure, TrunklineError):
        reasons.remember(failure)
    raise failure


def from_handle(handle: int, raising: bool, broker: str = "") -> Connection:
    """Attach to a connection by its handle: a Connection is unpickled by this function.

    A process that knows no broker yet (a child of a forkserver that began before the first Dial)
    joins the broker at the address `broker`.
    """
    if broker and process.current() is None:
        os.environ.setdefault(ENV, broker)
    return _attach(handle, raising=raising)


Connection.make_from_handle = staticmethod(from_handle)


def last_error() -> str | None:
    """The reason why the last failed call in this process failed. None when no call has failed.
    Contains no secret."""
    return reasons.last()


def shutdown() -> None:
    """Close every connection of this process and leave the broker.

    The broker and the workers end with their last client. Runs at the end of the program by itself.
    A later Dial starts anew.
    """
    process.shutdown()


def _open(
    address: str | int, timeout: Timeout, options: dict[str, object], *, raising: bool
) -> Connection:
    """Check the arguments, then dial an address or attach to a handle."""
    if isinstance(address, bool) or not isinstance(address, (str, int)):
        raise TypeError(
            f"Dial takes an address (text) or a handle (a whole number), not {type(address).__name__}"
        )
    given = _options(timeout, options)
    if isinstance(address, int):
        seconds = float(str(given.get("timeout", HANDLE_S)))
        hint_at_seconds(seconds)
        if (
            process.current() is None
            and not os.environ.get(ENV)
            and (broker := broker_of_parents())
        ):
            os.environ[ENV] = broker
        return _attach(address, raising=raising, seconds=seconds + GRACE_S)
    parsed = _resolved(parse_address(address, given))
    hint_at_seconds(float(parsed.option("timeout")))
    hint_at_options(parsed)
    return _dial(parsed, raising=raising)


def _resolved(address: Address) -> Address:
    """The address with absolute paths (from the current folder) and with the proxy of the
    environment."""
    try:
        return with_proxy(address.resolved(os.getcwd()))
    except OSError:  # the current folder was deleted
        rooted = address.resolved("/")
        rooted.extra.pop("cwd", None)  # for the files that statements may name
        if rooted != address:
            text = f"{address.display}: the current folder is gone; give an absolute path"
            raise AddressError(text) from None
        return with_proxy(address)


def _options(timeout: Timeout, options: dict[str, object]) -> dict[str, object]:
    """The options of both arguments as one dict."""
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
    """Ask the broker for a new connection, and wait for the worker to open it."""
    seconds = float(address.option("timeout"))
    deadline = Deadline(seconds + GRACE_S)  # includes the start of a broker
    spec = {"address": address.to_wire(), "scheme": address.scheme, "display": address.display}
    if address.extra.get("shared_memory"):
        spec["joins"] = [str(address.extra["shared_memory"]), address.target]
    body = Sealed(values.pack(spec))

    def ask(client: Client, router: RouterRoute) -> None:
        asked = {**spec, "left": client.lately_closed()} if "joins" in spec else None
        milliseconds = max(1, int((deadline.left() - GRACE_S) * 1000))
        fields = (
            client.link.control_id,
            milliseconds,
            _restarts(address),
            float(address.option("linger")),
        )
        router.send(BROKER, Kind.OPEN, 1, fields, values.pack(asked) if asked else body)

    try:
        connection = _held(ask, deadline, raising=raising)
    except OperationTimeout:
        why = ": this process can open no further file (`ulimit -n`)" if lacks_descriptors() else ""
        raise DialTimeout(
            f"{address.display} could not be opened within {seconds:g} s{why}"
        ) from None
    if "joins" in spec and (client := process.current()) is not None:
        connection.await_broker_words(client, deadline)
    if _restarts(address):
        connection.redial_with((REDIAL_MS, True, float(address.option("linger"))), body)
    return connection


def _held(
    ask: Callable[[Client, RouterRoute], None], deadline: Deadline, *, raising: bool
) -> Connection:
    """Make a connection by `ask`, which sends the request on the holder's new socket.

    Asks the next broker again when the broker is lost before it answers. Raises the error that was
    answered, OperationTimeout, or BrokerGone.
    """
    client = process.get(deadline)
    while True:
        client.link.settle(deadline)
        router = client.link.new_router_route()
        kind = RaisingConnection if raising else Connection
        claim = Claim()
        try:
            with claim.lock:  # see trunkline.proxy.claims
                client.claims.add(router.identity, claim)
                ask(client, router)
                key, info = attached(router, deadline, client)
                connection = kind(client, router, key, info, raising=raising)
                claim.connection = weakref.ref(connection)
            return connection
        except BaseException as error:
            answered = isinstance(error, TrunklineError) and not isinstance(
                error, (OperationTimeout, BrokerGone)
            )
            # After a timeout or a Ctrl-C, the broker may yet open a connection that no Dial waits
            # for.
            if not answered:
                client.abandon(router.identity)
            client.claims.drop(router.identity)
            router.close()
            lost = (
                isinstance(error, BrokerGone)
                and not deadline.expired()
                and client is process.current()
            )
            if not lost:
                raise


def _restarts(address: Address) -> bool:
    """Whether a crashed worker is replaced.

    True where the user wants the link kept (the default of the option `reconnect` for database
    servers and message brokers), and for a database file. False for a database whose data is gone
    with the worker.
    """
    outlives = scheme_row(address.scheme).outlives_crash
    if outlives is not None:
        return outlives(address)
    return bool(address.option("reconnect"))


def _attach(handle: int, *, raising: bool, seconds: float = HANDLE_S) -> Connection:
    """Attach to the connection of a handle."""

    def ask(client: Client, router: RouterRoute) -> None:
        fields: tuple[Any, ...] = (client.link.control_id, _in_range(handle), b"", b"", 0, 0, [], 0)
        router.send(BROKER, Kind.ATTACH, 1, fields)

    try:
        return _held(ask, Deadline(seconds), raising=raising)
    except OperationTimeout:
        raise BrokerGone("the broker did not answer; `trunkline doctor` tells more") from None


def _in_range(handle: int) -> int:
    """The handle as the wire can carry it. Handles are positive and have 63 bits; 1 names no
    connection."""
    return handle if 0 < handle < 1 << 63 else 1
