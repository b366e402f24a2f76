"""MySQL and MariaDB: mysql."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trunkline.address import mysql
from trunkline.address.golang import Dsn, DsnError
from trunkline.address.host import clean_host
from trunkline.address.schemes.model import DATABASE_REFUSALS, RECONNECTS, RELINK, TLS, Scheme
from trunkline.errors import AddressError

__all__ = ["ROWS"]


def _read_dsn(rest: str, environ: Mapping[str, str]) -> tuple[str, Dsn]:
    """The DSN. A plain `mysql://user:password@host:port/db`, which Go's driver refuses, is read as
    a URL."""
    try:
        found = mysql.parse(rest)
    except mysql.UnknownNet as error:
        plain = _read_plain_url(rest) if error.maybe_url else None
        if plain is None:
            raise DsnError(str(error)) from None
        found = plain
    return rest, replace(found, user=found.user or None)


def _read_plain_url(dsn: str) -> Dsn | None:
    try:
        found = mysql.parse_plain_url(dsn)
        clean_host(f"[{found.host}]" if ":" in str(found.host) else str(found.host or ""), "")
    except (DsnError, AddressError):
        return None
    return found


ROWS = (
    Scheme(
        name="mysql",
        family="database",
        example="mysql://user:password@tcp(host:3306)/database",
        more_examples=("mysql://user:password@host/database?charset=utf8mb4",),
        driver="trunkline.actors.drivers.mysql.driver:MysqlDriver",
        port=3306,
        extra="mysql",
        packages=("mysql-connector-python",),
        mistaken=("mariadb",),
        options=(*RELINK, *TLS),
        defaults=(RECONNECTS,),
        refusals=(
            *DATABASE_REFUSALS,
            # mysql-connector-python compares a certificate only with the host of the address.
            (
                "servername",
                ", whose certificate must have the host's name as the address writes it",
            ),
        ),
        read_dsn=_read_dsn,
        # Go takes the last `@` as the end of the user info.
        last_at=True,
        dialect="mysql",
    ),
)
