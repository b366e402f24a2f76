"""PostgreSQL: postgres."""

from __future__ import annotations

from trunkline.address.schemes.model import DATABASE_REFUSALS, RECONNECTS, RELINK, TLS, Scheme

__all__ = ["ROWS"]

ROWS = (
    Scheme(
        name="postgres",
        family="database",
        example="postgres://user:password@host:5432/database",
        driver="trunkline.actors.drivers.postgres.driver:PostgresDriver",
        port=5432,
        extra="postgres",
        packages=("psycopg2-binary",),
        aliases=("postgresql",),
        mistaken=("pg", "pgsql"),
        options=(*RELINK, *TLS),
        defaults=(RECONNECTS,),
        refusals=(
            *DATABASE_REFUSALS,
            # libpq compares a certificate with the host of the address only
            (
                "servername",
                ", whose certificate must have the address's host "
                "(host=NAME hostaddr=IP dials another place)",
            ),
        ),
        dialect="postgres",
    ),
)
