"""A MySQL session's time zone and `loc`: a moment stays what it is, wherever the server's clock is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import trunkline
from tests.servers.mariadb import MariaDb
from tests.support.statements import rows
from tests.support.waiting import until
from trunkline import dbapi
from trunkline.proxy.connection import Connection

PARIS = "Europe/Paris"
A_MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def tokyo(server_run: Any) -> Iterator[MariaDb]:
    """A server whose clock is nine hours before UTC's, and which knows no zone by its name."""
    with server_run.private(MariaDb, arguments=["--default-time-zone=+09:00"]) as server:
        yield server


Dialled = Callable[..., Connection]


@pytest.fixture
def dial(tokyo: MariaDb) -> Iterator[Dialled]:
    opened: list[Connection] = []

    def dial(parameters: str = "") -> Connection:
        opened.append(
            trunkline.connect(f"mysql://u:p@tcp({tokyo.address})/t?{parameters}", linger=0.2)
        )
        return opened[-1]

    yield dial
    for connection in opened:
        connection.close()


def moment_of(connection: Connection) -> datetime:
    """What the server takes the only TIMESTAMP for, whatever zone the session has."""
    return datetime.fromtimestamp(
        float(rows(connection, "SELECT UNIX_TIMESTAMP(at) FROM m")[0][0]), UTC
    )


@pytest.mark.parametrize(
    ("parameters", "zone"),
    [
        ("", UTC),
        ("loc=UTC", UTC),
        ("loc=Asia%2FTokyo", ZoneInfo("Asia/Tokyo")),
        ("loc=Asia%2FKolkata", ZoneInfo("Asia/Kolkata")),
        ("loc=America%2FPhoenix", ZoneInfo("America/Phoenix")),
        ("loc=Local", None),
        ("time_zone=%27%2B03%3A00%27", ZoneInfo("Europe/Istanbul")),
        ("time_zone=%27SYSTEM%27", None),
        ("loc=Asia%2FTokyo&time_zone=%27%2B09%3A00%27", ZoneInfo("Asia/Tokyo")),
    ],
)
def test_a_moment_is_the_same_at_the_server(dial: Dialled, parameters: str, zone: Any) -> None:
    db = dial(parameters)
    db.exec("CREATE TEMPORARY TABLE m (at TIMESTAMP(6) NULL)")
    for moment in (datetime.now(UTC), datetime(2024, 7, 1, 12, tzinfo=ZoneInfo(PARIS))):
        db.exec("INSERT INTO m VALUES (?)", moment)
        assert moment_of(db) == moment
        (got,) = rows(db, "SELECT at FROM m")[0]
        if "loc" in parameters:
            assert got == moment
        else:
            assert got == moment.astimezone(zone).replace(tzinfo=None)
        db.executemany("INSERT INTO m VALUES (?)", [[moment], [moment]])
        assert rows(db, "SELECT count(DISTINCT at) FROM m") == [[1]]
        db.exec("DELETE FROM m")


@pytest.mark.parametrize("loc", ["UTC", "Asia%2FTokyo", "Local"])
def test_now_of_the_server_is_now(dial: Dialled, loc: str) -> None:
    (now,) = rows(dial(f"loc={loc}"), "SELECT NOW()")[0]
    assert abs(now - datetime.now(UTC)) < A_MINUTE


def test_queries_and_links_that_are_made_anew_have_the_same_zone(
    dial: Dialled, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    db = dial("loc=UTC")
    assert abs(next(iter(db.query("SELECT NOW()")))[0] - datetime.now(UTC)) < A_MINUTE
    (link,) = rows(db, "SELECT CONNECTION_ID()")[0]
    with dial("loc=UTC") as other:
        other.exec(f"KILL {link}")
    assert abs(rows(db, "SELECT NOW()")[0][0] - datetime.now(UTC)) < A_MINUTE
    until(lambda: "time_zone is set to +00:00" in caplog.text, "the line in the log")
    assert caplog.text.count("this connection's time_zone") == 2, (
        "one for each of the two connections"
    )


def test_a_session_that_fits_is_left_alone(dial: Dialled, caplog: pytest.LogCaptureFixture) -> None:
    for parameters in ("loc=Asia%2FTokyo", "time_zone=%27%2B05%3A00%27"):
        db = dial(parameters)
        assert rows(db, "SELECT @@time_zone")[0][0] in ("+09:00", "+05:00")
        db.close()
    assert "time_zone" not in caplog.text


def test_two_zones_in_one_address_are_told(dial: Dialled, caplog: pytest.LogCaptureFixture) -> None:
    db = dial("loc=UTC&time_zone=%27%2B05%3A00%27")
    assert rows(db, "SELECT @@time_zone") == [["+05:00"]]
    until(lambda: "give both the same zone" in caplog.text, "the line in the log")


def test_a_zone_with_summer_time_goes_by_its_name_where_the_server_knows_it(
    dial: Dialled, caplog: pytest.LogCaptureFixture
) -> None:
    winter, summer = datetime(2025, 1, 15, 12, tzinfo=UTC), datetime(2025, 7, 15, 12, tzinfo=UTC)
    address = "loc=Europe%2FParis"
    db = dial(address)
    until(lambda: "does not know the time zone Europe/Paris" in caplog.text, "the line in the log")
    offset = datetime.now(ZoneInfo(PARIS)).strftime("%z")
    assert rows(db, "SELECT @@time_zone") == [[f"{offset[:3]}:{offset[3:]}"]]
    assert abs(rows(db, "SELECT NOW()")[0][0] - datetime.now(UTC)) < A_MINUTE
    db.close()
    teach_paris(dial())
    db = dial(address)
    assert rows(db, "SELECT @@time_zone") == [[PARIS]]
    db.exec("CREATE TEMPORARY TABLE m (at TIMESTAMP NULL)")
    for moment in (winter, summer):
        db.exec("INSERT INTO m VALUES (?)", moment)
        assert moment_of(db) == moment
        assert rows(db, "SELECT at FROM m") == [[moment]]
        db.exec("DELETE FROM m")


def teach_paris(db: Connection) -> None:
    """Put the zone into the server's tables, as mysql_tzinfo_to_sql does, for the years around now."""
    zone, hour = ZoneInfo(PARIS), timedelta(hours=1)
    kinds = {hour: 0, 2 * hour: 1}
    db.exec("INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (77, 'N')")
    db.exec("INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES (?, 77)", PARIS)
    for offset, kind in kinds.items():
        db.exec(
            "INSERT INTO mysql.time_zone_transition_type VALUES (77, ?, ?, ?, ?)",
            *(kind, int(offset.total_seconds()), kind, "CEST" if kind else "CET"),
        )
    at = datetime(2020, 1, 1, tzinfo=UTC)
    db.exec("INSERT INTO mysql.time_zone_transition VALUES (77, ?, 0)", int(at.timestamp()))
    while at.year < datetime.now(UTC).year + 2:
        before, at = at, at + hour
        if at.astimezone(zone).utcoffset() != before.astimezone(zone).utcoffset():
            kind = kinds[at.astimezone(zone).utcoffset() or hour]
            db.exec(
                "INSERT INTO mysql.time_zone_transition VALUES (77, ?, ?)",
                int(at.timestamp()),
                kind,
            )


def test_a_zone_that_a_session_sets_itself_is_its_own(dial: Dialled) -> None:
    """`SET time_zone` through dbapi, everybody's line after connecting, begins no transaction."""
    conn = dbapi.connect(dial())
    cursor = conn.cursor().execute("SET time_zone = '+05:00'")
    assert not conn.in_transaction
    assert cursor.execute("SELECT @@time_zone").fetchall() == [("+05:00",)]
    conn.close()
