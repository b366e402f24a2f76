"""PostgreSQL: postgres."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trunkline.address import postgres
from trunkline.address.golang import Dsn
from trunkline.address.schemes.model import (
    DATABASE_REFUSALS,
    RECONNECTS,
    RELINK,
    TLS,
    AddressParts,
    Scheme,
)

__all__ = ["ROWS"]


def _read_dsn(rest: str, environ: Mapping[str, str]) -> tuple[str, Dsn]:
    """The DSN and its fields. Pairs such as `host=h dbname=d` are a DSN without a scheme."""
    dsn = rest if re.match(r"\s*\w+\s*=|\s+$", rest) else f"postgres://{rest}"
    return dsn, postgres.parse(dsn, environ)


def _resolve_files(parts: AddressParts, folder: str) -> dict[str, Any]:
    return {"params": postgres.resolve(parts.params, folder)}


ROWS = (
    Scheme(
        name="postgres",
        family="database",
        example="postgres://user:password@host:5432/database",
        more_examples=("postgres://user=u dbname=db host=h",),
        driver="trunkline.actors.drivers.postgres.driver:PostgresDriver",
        port=5432,
        extra="postgres",
        packages=("psycopg2-binary",),
        aliases=("postgresql",),
        mistaken=("pg", "pgsql"),
        options=(*RELINK, *TLS),
        defaults=(RECONNECTS,),
        read_dsn=_read_dsn,
        resolve_files=_resolve_files,
        refusals=(
            *DATABASE_REFUSALS,
            # libpq compares a certificate only with the host of the address.
            (
                "servername",
                ", whose certificate must have the address's host "
                "(host=NAME hostaddr=IP dials another place)",
            ),
        ),
        dialect="postgres",
    ),
)
