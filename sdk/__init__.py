"""Trunkline: dial any connection in a process of its own.

`Dial(address)` returns a `Connection` or None. `connect(address)` returns a `Connection` or raises.

A name is loaded at its first use. A worker and the broker import `trunkline.wire` from this
package, and so do not load the user's side of the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.address import Address, parse_address
    from trunkline.address.option_types import Options
    from trunkline.errors import (
        AddressError,
        BrokenError,
        BrokerGone,
        ClosedError,
        DeadHandle,
        DialError,
        DialTimeout,
        MissingLibrary,
        OperationTimeout,
        OutcomeUnknown,
        RefusedError,
        RemoteError,
        StatementError,
        TrunklineError,
        Unconfirmed,
        UnknownScheme,
        Unsupported,
        WorkerDied,
    )
    from trunkline.message import Message
    from trunkline.proxy.connection import Connection, RaisingConnection
    from trunkline.proxy.dial import Dial, connect, last_error, shutdown
    from trunkline.proxy.result import ExecResult
    from trunkline.proxy.rows import Rows
    from trunkline.wire.documents import Json
    from trunkline.wire.stats import Stats

__version__ = "0.1.0"

_HOME = {
    "Address": "trunkline.address",
    "parse_address": "trunkline.address",
    "Connection": "trunkline.proxy.connection",
    "RaisingConnection": "trunkline.proxy.connection",
    "ExecResult": "trunkline.proxy.result",
    "Dial": "trunkline.proxy.dial",
    "connect": "trunkline.proxy.dial",
    "last_error": "trunkline.proxy.dial",
    "shutdown": "trunkline.proxy.dial",
    "Message": "trunkline.message",
    "Options": "trunkline.address.option_types",
    "Rows": "trunkline.proxy.rows",
    "Json": "trunkline.wire.documents",
    "Stats": "trunkline.wire.stats",
    "AddressError": "trunkline.errors",
    "BrokenError": "trunkline.errors",
    "BrokerGone": "trunkline.errors",
    "ClosedError": "trunkline.errors",
    "DeadHandle": "trunkline.errors",
    "DialError": "trunkline.errors",
    "DialTimeout": "trunkline.errors",
    "MissingLibrary": "trunkline.errors",
    "OperationTimeout": "trunkline.errors",
    "OutcomeUnknown": "trunkline.errors",
    "RefusedError": "trunkline.errors",
    "RemoteError": "trunkline.errors",
    "StatementError": "trunkline.errors",
    "TrunklineError": "trunkline.errors",
    "Unconfirmed": "trunkline.errors",
    "UnknownScheme": "trunkline.errors",
    "Unsupported": "trunkline.errors",
    "WorkerDied": "trunkline.errors",
}
"""The module of each public name."""

__all__ = [
    "Address",
    "AddressError",
    "BrokenError",
    "BrokerGone",
    "ClosedError",
    "Connection",
    "DeadHandle",
    "Dial",
    "DialError",
    "DialTimeout",
    "ExecResult",
    "Json",
    "Message",
    "MissingLibrary",
    "OperationTimeout",
    "Options",
    "OutcomeUnknown",
    "RaisingConnection",
    "RefusedError",
    "RemoteError",
    "Rows",
    "StatementError",
    "Stats",
    "TrunklineError",
    "Unconfirmed",
    "UnknownScheme",
    "Unsupported",
    "WorkerDied",
    "__version__",
    "connect",
    "last_error",
    "parse_address",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    if name == "dbapi":  # a module; works after a plain `import trunkline`, too
        return import_module("trunkline.dbapi")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'trunkline' has no attribute {name!r}")
    try:
        module = import_module(home)
    except AttributeError as error:  # Python would hide the cause, and report an unknown name
        raise ImportError(
            f"trunkline cannot be imported: {error}; does a file of yours hide it?"
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
