"""ClickHouse: clickhouse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from trunkline.address import clickhouse
from trunkline.address.golang import Dsn
from trunkline.address.schemes.model import DATABASE_REFUSALS, NAMED_TLS, RECONNECTS, RELINK, Scheme

__all__ = ["ROWS"]


def _read_dsn(rest: str, environ: Mapping[str, str]) -> tuple[str, Dsn]:
    """The DSN and its fields. Text that begins with another scheme is a DSN by itself."""
    dsn = rest if re.match("[a-z]+://", rest) else f"clickhouse://{rest}"
    found = clickhouse.parse(dsn)
    port = clickhouse.default_port(found.fields) if found.port is None else found.port
    return dsn, replace(found, port=port, user=found.user or None)


ROWS = (
    Scheme(
        name="clickhouse",
        family="database",
        example="clickhouse://user:password@host:9000/database",
        more_examples=("clickhouse://tcp://host:9000?username=u&password=p",),
        driver="trunkline.actors.drivers.clickhouse.driver:ClickhouseDriver",
        port=9000,
        extra="clickhouse",
        packages=("clickhouse-driver",),
        options=(*RELINK, *NAMED_TLS),
        defaults=(RECONNECTS,),
        refusals=DATABASE_REFUSALS,
        read_dsn=_read_dsn,
        dialect="clickhouse",
    ),
)
