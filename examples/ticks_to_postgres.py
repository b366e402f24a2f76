"""Writes every tick of Binance into PostgreSQL, a second's worth at a time, and goes on where either is lost.

    TICKS_DB="postgres://user:password@localhost/ticks" trunkline run ticks_to_postgres.py
"""

import json
import os
import time
from datetime import UTC, datetime
from decimal import Decimal

import trunkline

FEED = "wss://stream.binance.com:9443/ws/!ticker@arr|reconnect=true"
CREATE = """CREATE TABLE IF NOT EXISTS ticks (
    symbol text, at timestamptz, last numeric, bid numeric, ask numeric, PRIMARY KEY (symbol, at))"""
INSERT = "INSERT INTO ticks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
LATEST = "SELECT DISTINCT ON (symbol) symbol, last, at FROM ticks ORDER BY symbol, at DESC LIMIT 10"


def row(tick):
    at = datetime.fromtimestamp(int(tick["E"]) / 1000, UTC)
    return tick["s"], at, Decimal(tick["c"]), Decimal(tick["b"]), Decimal(tick["a"])


def main():
    db = Dial(os.environ["TICKS_DB"])
    feed = Dial(FEED)
    if not db or not feed or db.exec(CREATE) is None:
        Log("cannot begin:", trunkline.last_error())
        return
    rows, written, flush_at = [], 0, 0.0
    while True:
        message = feed.read(200)
        if message:
            rows += [row(tick) for tick in json.loads(message)]
        if rows and time.monotonic() >= flush_at:
            # all or none: should this fail, the same rows are tried again, and ON CONFLICT passes over
            # those that were written although no answer came
            if db.executemany(INSERT, rows, timeout=5000) is not None:
                written += len(rows)
                rows = []
            flush_at = time.monotonic() + 1
            show(db, written, len(rows))


def show(db, written, waiting):
    latest = db.exec(LATEST, timeout=1000)
    if latest is not None:
        cells = [[symbol, str(last), at.isoformat()] for symbol, last, at in latest["values"]]
        title = f"{written} ticks written, {waiting} waiting"
        table = {"type": "table", "title": title, "cols": ["symbol", "last", "at"], "rows": cells}
        LogStatus("`" + json.dumps(table) + "`")
