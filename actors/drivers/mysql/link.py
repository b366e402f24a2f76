"""How links to a MySQL server are made, and how the statement of another link is stopped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mysql.connector
from mysql.connector import errors

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.mysql.auth import PasswordInClear, login, refused
from trunkline.actors.drivers.mysql.errors import NO_TLS, is_lost
from trunkline.actors.drivers.mysql.plan import UTF8, Charset, Plan, Tls

__all__ = ["agree_charset", "ask", "dial", "kill"]

_KILL_CONNECT_S, _KILL_S = 1.0, 1
"""Limits for the link that sends a KILL, in seconds:
for the connection, and for each read and write.
"""

_Kind = tuple[Mapping[str, Any], bool]
"""TLS arguments, and whether TLS is required."""


def dial(plan: Plan, limit: float | None) -> tuple[Any, Mapping[str, Any]]:
    """A connection by the first kind of link that works, and the TLS arguments of that link.

    `limit`: seconds for each step.

    Raises errors of the library.
    """
    attempts = _attempts(plan)
    while True:
        tls, insists = attempts.pop(0)
        try:
            return _connect(plan, plan.arguments, tls, insists, limit), tls
        except errors.Error as error:
            again = isinstance(refused(error), PasswordInClear) or error.errno == NO_TLS
            if not (attempts and again):
                raise


def _attempts(plan: Plan) -> list[_Kind]:
    """The kinds of link to try, in order."""
    plain: _Kind = ({"ssl_disabled": True}, False)
    offered: _Kind = ({"ssl_disabled": False, **plan.verify}, False)
    insisted = (offered[0], True)
    if plan.tls is Tls.VERIFIED and plan.fallback:
        return [offered, plain]
    return {
        Tls.OFF: [plain],
        Tls.IF_ASKED: [plain, insisted],
        Tls.PREFERRED: [offered],
        Tls.REQUIRED: [offered if plan.fallback else insisted],
        Tls.VERIFIED: [insisted],
    }[plan.tls]


def _connect(
    plan: Plan,
    arguments: Mapping[str, Any],
    tls: Mapping[str, Any],
    insists: bool,
    limit: float | None,
) -> Any:
    """A connection of the library.

    `insists`: the login fails without TLS.
    `limit`: seconds for each step.
    """
    whole = math.ceil(limit) if limit else None
    with login(replace(plan.policy, tls=insists)):
        return mysql.connector.connect(
            # A copy, because the library adds to it.
            **{**arguments, "conn_attrs": dict(arguments["conn_attrs"])},
            **tls,
            use_pure=True,
            connection_timeout=limit,
            read_timeout=whole,
            write_timeout=whole,
        )


def kill(plan: Plan, tls: Mapping[str, Any], connection: Any) -> None:
    """Have the server stop the statement of a connection.

    The request goes over a second link of the same kind, within about 2 s.
    """
    arguments = {name: value for name, value in plan.arguments.items() if name != "database"}
    insists = connection.is_secure and not plan.policy.local
    killer = _connect(plan, arguments, tls, insists, _KILL_CONNECT_S)
    try:
        killer.read_timeout = killer.write_timeout = _KILL_S
        killer.cmd_query(f"KILL QUERY {connection.connection_id}")
    finally:
        killer.shutdown()


def ask(connection: Any, sql: str) -> tuple[list[tuple[bytes | None, ...]], int]:
    """Run a statement of the driver's own.

    Returns all its rows, and the server's status after the statement.
    """
    answer = connection.cmd_query(sql)
    rows: list[tuple[bytes | None, ...]] = []
    if "columns" in answer:
        rows, answer = connection.get_rows(raw=True)
    return rows, answer["status_flag"]


def agree_charset(connection: Any, plan: Plan) -> Charset:
    """The first character set of the address that the server takes.

    UTF-8 if the address names none. FatalError if the server takes none of them.
    """
    reason = ""
    for charset in plan.charsets:
        try:
            _take_charset(connection, charset, plan.collation)
        except errors.Error as error:
            if is_lost(error) and not isinstance(error, errors.ProgrammingError):
                raise
            reason = str(error.msg)
        else:
            return charset
    if reason:
        raise FatalError(f"{plan.peer} takes no character set of the address: {reason}")
    return UTF8


def _take_charset(connection: Any, charset: Charset, collation: str | None) -> None:
    """Set the character set and collation of a connection.

    Raises an error of the library if that is refused.
    """
    names = [charset.name, collation] if collation else [charset.name]
    if not all(re.fullmatch(r"\w+", name) for name in names):
        raise errors.ProgrammingError("a character set's name has letters, digits and _ only")
    if charset.codec != "utf-8":
        if not charset.codec:
            raise errors.ProgrammingError(
                f"Python has no codec for the character set {charset.name}"
            )
        # So that the library decodes the names of columns correctly.
        connection.set_charset_collation(charset.name, collation)
    ask(connection, " COLLATE ".join([f"SET NAMES {charset.name}", *names[1:]]))
