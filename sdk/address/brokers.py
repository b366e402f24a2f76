"""The addresses of message brokers.

Such an address is an ordinary URL except for its query. The query is only percent-decoded, because
`+` and `#` are wildcards of a topic, not a space and a fragment. Its names are the parameters of
`PARAMS`, so a misspelt name is an error. Every parameter may stand among the options too.

The result:
`Address.params`: the parameters as text, under their main names; lists are joined by commas.
`Address.hosts`: all servers.
`Address.extra["typed"]`: numbers, booleans, choices and starting points.
`Address.extra["logins"]`: [user, password] for each server, if the logins differ.

`Address.extra` also holds the result of the row's `read_extra`: lists whose names may hold commas
(`topics`), and the meaning of the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trunkline.address.broker_values import Values, read_beside, read_typed, read_written
from trunkline.address.host import join_host_port
from trunkline.address.model import Address
from trunkline.address.options import OPTIONS
from trunkline.address.params import is_param
from trunkline.address.plain import split_authority
from trunkline.address.schemes import Scheme
from trunkline.address.schemes.model import BrokerParts
from trunkline.address.separator import decoded
from trunkline.address.servers import Login, one_authority, read_servers
from trunkline.address.unknown import misplaced_option, unknown_option
from trunkline.errors import AddressError

__all__ = ["parse_broker"]


def parse_broker(
    scheme: Scheme, rest: str, written: Iterable[tuple[str, str]], beside: Mapping[str, object]
) -> Address:
    """Parse a message broker's address.

    `rest`: the text after `scheme://`.
    `written`: parameters among the address's options; they count as parameters of the query.
    `beside`: parameters given to `Dial`; the address wins over them.
    """
    authority, path, query = split_authority(one_authority(rest, scheme))
    if path.startswith("#"):
        raise AddressError(
            f"{scheme.whose} has no '#' part: write %23 for a '#' that belongs to it"
        )
    hosts, logins = read_servers(authority, scheme)
    values = read_written(scheme, [*_query(query, scheme), *written])
    _read_path(scheme, path, values)
    _check_login_once(scheme, logins[0], values)
    given = {**read_beside(scheme, beside), **values}
    params = {name: ",".join(texts) for name, texts in given.items()}
    # These two parameters mean the user info, and are kept only as user info.
    beside_login = (params.pop("username", None), params.pop("password", None))
    user, password = (
        here if here is not None else there
        for here, there in zip(logins[0], beside_login, strict=True)
    )
    _check(scheme, params)
    place = ",".join(join_host_port(*pair) for pair in hosts)
    path = path or scheme.default_path
    address = Address(
        scheme.name,
        f"{scheme.name}://{place}{path}",
        "tcp",
        *hosts[0],
        user,
        password,
        path=path,
        params=params,
        hosts=hosts,
    )
    extra: dict[str, Any] = {"typed": read_typed(scheme, params)}
    extra |= scheme.read_extra(BrokerParts(decoded(path), user, password, params, given))
    filled = [login if login != (None, None) else (user, password) for login in logins]
    if any(login != filled[0] for login in filled):
        extra["logins"] = [list(login) for login in filled]
    return replace(address, extra=extra)


def _read_path(scheme: Scheme, path: str, values: Values) -> None:
    """Take the topic from a path that holds a topic; refuse a path on a scheme without paths.

    The row's `read_extra` reads any other kind of path.
    """
    if path in ("", "/"):
        return
    if not scheme.path_holds:
        raise AddressError(f"{scheme.whose} has no path: write {scheme.example}")
    if scheme.path_holds != "topic":
        return
    topic = read_written(scheme, [("topic", path[1:])])["topic"]
    if values.setdefault("topic", topic) != topic:
        raise AddressError(f"{scheme.whose} names its topic twice: write it in the path alone")


def _query(query: str, scheme: Scheme) -> list[tuple[str, str]]:
    """The parameters of the query; AddressError for an option or an unknown name."""
    found: list[tuple[str, str]] = []
    for index, pair in enumerate(pairs := [pair for pair in query.split("&") if pair]):
        written, _, value = pair.partition("=")
        name = decoded(written)
        if name in OPTIONS:
            raise misplaced_option(name, scheme)
        if not is_param(scheme, name):
            raise unknown_option(name, scheme, "&".join(pairs[:index]))
        found.append((name, value))
    return found


def _check_login_once(scheme: Scheme, login: Login, values: Values) -> None:
    """Refuse a user or password that stands both in the user info and among the parameters."""
    for name, part in zip(("username", "password"), login, strict=True):
        if part is not None and name in values:
            raise AddressError(f"{scheme.whose} names its {name} twice: write it once")


def _check(scheme: Scheme, params: Mapping[str, str]) -> None:
    """Refuse an address without any of the parameters that the scheme needs."""
    if not any(params.get(name) for name in scheme.needs):
        *some, last = (f"'{name}'" for name in scheme.needs)
        raise AddressError(
            f"{scheme.whose} needs {', '.join(some)} or {last}: write {scheme.example}"
        )
