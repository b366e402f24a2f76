"""MySQL and MariaDB: mysql."""

from __future__ import annotations

from trunkline.address.schemes.model import DATABASE_REFUSALS, RECONNECTS, RELINK, TLS, Scheme

__all__ = ["ROWS"]

ROWS = (
    Scheme(
        name="mysql",
        family="database",
        example="mysql://user:password@tcp(host:3306)/database",
        driver="trunkline.actors.drivers.mysql.driver:MysqlDriver",
        port=3306,
        extra="mysql",
        packages=("mysql-connector-python",),
        mistaken=("mariadb",),
        options=(*RELINK, *TLS),
        defaults=(RECONNECTS,),
        refusals=(
            *DATABASE_REFUSALS,
            # mysql-connector-python compares a certificate with the host of the address only
            ("servername", ", whose certificate must have the host's name as the address writes it"),
        ),
        dialect="mysql",
    ),
)
