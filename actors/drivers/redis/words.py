"""The answers of a Redis server in words for users. No I/O."""

from __future__ import annotations

import redis.exceptions as library

from trunkline.actors.driver import FatalError
from trunkline.actors.net.peer_words import first_line, own_secrets, without_secrets
from trunkline.address import Address
from trunkline.errors import DialError, RefusedError

__all__ = [
    "REPLIES",
    "code_of",
    "is_missing_group",
    "is_unknown_command",
    "refused_link",
    "refused_message",
]

REPLIES = (library.ResponseError, library.AuthenticationError, library.BusyLoadingError)
"""Answers that are errors. redis-py's other errors mean that the link is gone."""
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (library.AuthenticationError, "NOAUTH"),
    (library.BusyLoadingError, "LOADING"),
    (library.NoPermissionError, "NOPERM"),
    (library.ReadOnlyError, "READONLY"),
    (library.MasterDownError, "MASTERDOWN"),
    (library.ClusterDownError, "CLUSTERDOWN"),
    (library.MovedError, "MOVED"),
    (library.AskError, "ASK"),
    (library.TryAgainError, "TRYAGAIN"),
    (library.ClusterCrossSlotError, "CROSSSLOT"),
    (library.OutOfMemoryError, "OOM"),
)
"""Codes by redis-py's class, whose texts lack the code. A subclass stands before its base."""
_PASSES = (
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "ASK",
)
"""Codes of refusals that may pass in a moment."""


def code_of(error: Exception) -> str:
    """Return the code at the beginning of the server's answer; `ERR` where it has no other."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    word = str(error).partition(" ")[0]
    return word if word.isupper() and word.isalpha() else "ERR"


def is_missing_group(error: Exception) -> bool:
    """Whether a question for entries was refused because the stream or its group does not exist any
    more.
    """
    return code_of(error) in ("NOGROUP", "UNBLOCKED")


def is_unknown_command(error: Exception) -> bool:
    """Whether the server does not know the command, or does not allow it to this user."""
    return code_of(error) == "NOPERM" or "unknown command" in str(error).lower()


def refused_link(error: Exception, peer: str, address: Address, what: str = "") -> DialError:
    """Return why a link cannot be used.

    `what`: the refused request, as in `read stream s`.
    """
    code, said = code_of(error), _said(error, address)
    text = _words(code, said, peer, error, what)
    return (DialError if code in _PASSES else FatalError)(text, code=code)


def refused_message(error: Exception, peer: str, address: Address, what: str) -> RefusedError:
    """Return why a message was not taken.

    `what`: the refused request, as in `write to stream s`.
    """
    code = code_of(error)
    return RefusedError(_words(code, _said(error, address), peer, error, what), code=code)


def _said(error: Exception, address: Address) -> str:
    return without_secrets(first_line(str(error)), own_secrets(address)) or type(error).__name__


def _words(code: str, said: str, peer: str, error: Exception, what: str) -> str:
    """Return the sentence for a code; `said`: the server's own words, free of secrets."""
    tried = what or "use it"
    if code == "NOAUTH":
        if "without any password" in said or "no password is set" in said:
            return f"{peer} has no password, and the address gives one: leave it out"
        if "authentication required" in said.lower():
            return f"{peer} wants a login: give user and password, as in redis://user:password@host"
        return f"{peer} refused the login ({said}); check user and password"
    if isinstance(error, library.AskError):  # MOVED is a subclass
        return (
            f"{peer} is a node of a cluster, and to {tried} is the business of {error.host}:{error.port}: "
            "dial that node"
        )
    known = {
        "LOADING": f"{peer} is loading its data and answers in a while",
        "NOPERM": f"{peer} does not allow to {tried}: {said}; check the user's rights (ACL)",
        "READONLY": f"{peer} is a replica, which takes no writes: dial the primary, or name both",
        "MASTERDOWN": f"{peer} is a replica whose primary is down: {said}",
        "CLUSTERDOWN": f"the cluster of {peer} is down: {said}",
        "WRONGTYPE": f"{peer} cannot {tried}: the key is there and holds something other than a stream",
        "OOM": f"{peer} has no memory left for it (maxmemory): {said}",
        "DENIED": f"{peer} takes no connection from here: {said}",
    }
    if code in known:
        return known[code]
    if "db index" in said.lower():
        return f"{peer} has no database of that number ({said}); check the path of the address"
    return f"{peer} refused to {tried}: {said}"
