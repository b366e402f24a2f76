"""ClickHouse: clickhouse."""

from __future__ import annotations

from trunkline.address.schemes.model import DATABASE_REFUSALS, NAMED_TLS, RECONNECTS, RELINK, Scheme

__all__ = ["ROWS"]

ROWS = (
    Scheme(
        name="clickhouse",
        family="database",
        example="clickhouse://user:password@host:9000/database",
        driver="trunkline.actors.drivers.clickhouse.driver:ClickhouseDriver",
        port=9000,
        extra="clickhouse",
        packages=("clickhouse-driver",),
        options=(*RELINK, *NAMED_TLS),
        defaults=(RECONNECTS,),
        refusals=DATABASE_REFUSALS,
        dialect="clickhouse",
    ),
)
