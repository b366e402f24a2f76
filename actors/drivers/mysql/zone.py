"""The time zone of a MySQL session, and how the session is fitted to the address's `loc`.

The server converts TIMESTAMP columns between UTC and the session's `time_zone`, and `NOW()` is in
that zone. A datetime with a zone is written in `loc` (UTC if the address has no `loc`). If the
two zones differ, a moment is hours off.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from mysql.connector import errors

from trunkline.actors.drivers.mysql.errors import is_lost

__all__ = ["fit", "zone_of"]

Ask = Callable[[str], list[tuple[bytes | None, ...]]]
"""Runs a statement of the driver's own and returns its rows.
`errors.Error` if the statement is refused.
"""
_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d\d)")
_told: set[str] = set()
"""Lines that are in the log already. A link that is dialled again does not repeat them."""


def zone_of(loc: str | None) -> tzinfo | None:
    """The zone of a `loc`: UTC without a `loc`, None for this machine's zone."""
    if loc == "Local":
        return None
    return UTC if loc in (None, "UTC") else ZoneInfo(str(loc))


def fit(
    ask: Ask, peer: str, loc: str | None, given: str | None, warn: Callable[[str], None]
) -> tzinfo | None:
    """Set the session's time zone to that of `loc`, once, when the link begins.

    `given`: `time_zone` of the address, which is not changed. `warn` writes a line into the
    user's log.
    Returns the zone in which datetimes with a zone are to be written: that of `loc`, or of
    `given` if the address has no `loc`. None stands for this machine's zone.
    """
    wanted = zone_of(loc)
    found = _session_moments(ask)
    if found is None or found == _moments(wanted):
        return wanted
    if given is None:
        _set(ask, peer, loc, wanted, warn)
        return wanted
    if loc is None:
        own = _given_zone(given, found)
        if own is not None:
            return own
    _say(
        warn,
        f"{peer}: time_zone={given} of the address is not the zone of loc={loc or 'UTC'}, so what is written"
        " into TIMESTAMP columns is hours off; give both the same zone",
    )
    return wanted


def _set(
    ask: Ask, peer: str, loc: str | None, wanted: tzinfo | None, warn: Callable[[str], None]
) -> None:
    """Set the session's zone by name, or by offset if the server does not know the name."""
    name = _name(loc, wanted)
    offset = _written(_utcoffset(wanted, datetime.now(UTC)))
    changes = len(set(_offsets(wanted))) > 1
    refusal: errors.Error | None = None
    for value in [name, offset] if changes else [offset]:
        try:
            ask(f"SET time_zone = '{value}'")
        except errors.Error as error:
            if is_lost(error):
                raise
            refusal = error
        else:
            by_offset = changes and value == offset
            _say(warn, _only_today(peer, name, offset) if by_offset else _set_to(peer, loc, value))
            return
    _say(
        warn,
        f"{peer} keeps its time in another zone than loc={loc or 'UTC'} and does not let it be set"
        f" ({refusal}): what is written into TIMESTAMP columns is hours off",
    )


def _set_to(peer: str, loc: str | None, value: str) -> str:
    return (
        f"{peer} keeps its time in another zone; this connection's time_zone is set to {value}, which is"
        f" loc={loc or 'UTC'}. To have another one write loc= or time_zone= into the address"
    )


def _only_today(peer: str, name: str, offset: str) -> str:
    return (
        f"{peer} does not know the time zone {name}, so the session has its offset of today, {offset}:"
        " times on the other side of a clock change are an hour off in TIMESTAMP columns. Load the"
        " server's zone tables (mysql_tzinfo_to_sql), or use loc=UTC"
    )


def _session_moments(ask: Ask) -> list[float] | None:
    """Two local times in the session's zone, as seconds since 1970.

    None if the server cannot tell.
    """
    texts = ", ".join(f"UNIX_TIMESTAMP('{moment:%Y-%m-%d %H:%M:%S}')" for moment in _samples())
    try:
        row = ask(f"SELECT {texts}")[0]
        return [float(value or 0) for value in row]
    except errors.Error as error:
        if is_lost(error):
            raise
    except (ValueError, LookupError):
        pass
    return None


def _samples() -> list[datetime]:
    """Noon in winter and in summer. Zones that agree on both are taken for the same zone."""
    year = datetime.now(UTC).year
    return [datetime(year, 1, 1, 12), datetime(year, 7, 1, 12)]


def _moments(zone: tzinfo | None) -> list[float]:
    """The sample times in a zone, as seconds since 1970. None for this machine's zone."""
    return [
        (moment if zone is None else moment.replace(tzinfo=zone)).timestamp()
        for moment in _samples()
    ]


def _offsets(zone: tzinfo | None) -> list[timedelta]:
    return [_utcoffset(zone, moment.replace(tzinfo=UTC)) for moment in _samples()]


def _utcoffset(zone: tzinfo | None, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _written(offset: timedelta) -> str:
    """An offset in MySQL's form, such as `+09:00`."""
    minutes = round(offset / timedelta(minutes=1))
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _name(loc: str | None, wanted: tzinfo | None) -> str:
    """The name of the zone. For this machine's zone: from TZ or /etc/localtime."""
    if wanted is not None:
        return loc or "UTC"
    place = os.environ.get("TZ", "").lstrip(":") or str(Path("/etc/localtime").resolve())
    return place.rpartition("zoneinfo/")[2] if re.fullmatch(r"[\w+/-]+", place) else time.tzname[0]


def _given_zone(given: str, found: list[float]) -> tzinfo | None:
    """The zone that `time_zone` of an address names; None for a zone that is not known here."""
    name = given.strip("'\" ")
    if match := _OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError):
        # SYSTEM, for example.
        shifts = {
            moment.replace(tzinfo=UTC).timestamp() - at
            for moment, at in zip(_samples(), found, strict=True)
        }
        return timezone(timedelta(seconds=shifts.pop())) if len(shifts) == 1 else None


def _say(warn: Callable[[str], None], text: str) -> None:
    """Write a line into the log unless it was written before."""
    if text not in _told:
        _told.add(text)
        warn(text)
