"""The servers of a message broker's address: `user:password@host:port,host:port`.

Where the protocol allows, every server may have a user of its own.
"""

from __future__ import annotations

import re

from trunkline.address.host import clean_host, split_port
from trunkline.address.plain import split_userinfo
from trunkline.address.schemes import Scheme
from trunkline.errors import AddressError

__all__ = ["Login", "one_authority", "read_servers"]

Login = tuple[str | None, str | None]
"""User and password; None if absent."""


def one_authority(rest: str, scheme: Scheme) -> str:
    """The text after the first `scheme://`, as a single list of servers.

    NATS users write every server as a URL of its own.
    """
    head, mark, query = rest.partition("?")
    return (
        re.sub(rf",\s*{re.escape(scheme.name)}://", ",", head, flags=re.IGNORECASE) + mark + query
    )


def read_servers(authority: str, scheme: Scheme) -> tuple[tuple[tuple[str, int], ...], list[Login]]:
    """The servers before the path as (host, port) pairs in order, and their logins.

    A comma before the first `@` belongs to the first password.
    """
    pieces = authority.split(",")
    first = next((index for index, piece in enumerate(pieces) if "@" in piece), 0)
    pieces = [",".join(pieces[: first + 1]), *pieces[first + 1 :]]
    found = [_server(piece.strip(), scheme) for piece in pieces]
    logins = [login for _, login in found]
    if scheme.one_login and any(login != (None, None) for login in logins[1:]):
        raise AddressError(
            f"{scheme.whose} has one user for all servers: write it before the first one"
        )
    return tuple(place for place, _ in found), logins


def _server(piece: str, scheme: Scheme) -> tuple[tuple[str, int], Login]:
    """The place and the login of a server."""
    user, password, place = split_userinfo(piece, scheme.whose)
    host, port = split_port(place, scheme.whose)
    number = port or scheme.port
    assert number is not None  # every broker's scheme has a port
    return (clean_host(host, scheme.whose), number), (user, password)
