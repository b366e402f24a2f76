"""Two processes write frames into one database, a third reads them: all through one connection.

Run it with `python pandas_shared.py`; it needs pandas and SQLAlchemy, and makes ticks.db in the current folder.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd
from sqlalchemy import Engine, create_engine, text

import trunkline
from trunkline import dbapi


def engine_of(handle: int) -> Engine:
    # The name says which SQL is spoken; the connection itself is the one of the handle.
    return create_engine("sqlite+trunkline://", creator=lambda: dbapi.connect(handle))


def record(handle: int, symbol: str) -> str:
    engine = engine_of(handle)
    for day in range(5):
        times = pd.date_range(f"2024-01-0{day + 1}", periods=1000, freq="s")
        frame = pd.DataFrame({"symbol": symbol, "at": times, "price": range(1000)})
        # One transaction for each frame: the other process waits for its turn, nobody sees half a frame.
        frame.to_sql("ticks", engine, index=False, if_exists="append")
    engine.dispose()
    return symbol


def main() -> None:
    with trunkline.connect("sqlite3://ticks.db?_journal_mode=WAL") as db:
        db.exec("DROP TABLE IF EXISTS ticks")
        db.exec("CREATE TABLE ticks (symbol TEXT, at DATETIME, price REAL)")
        handle = db.fd()
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for symbol in pool.map(record, [handle, handle], ["EURUSD", "BTCUSD"]):
                print("recorded", symbol)

        engine = engine_of(handle)
        print(pd.read_sql("SELECT symbol, count(*) AS ticks, max(price) AS high FROM ticks GROUP BY symbol", engine))
        query = text("SELECT * FROM ticks WHERE symbol = :symbol ORDER BY at")
        for part in pd.read_sql(query, engine, params={"symbol": "EURUSD"}, chunksize=2000):
            print("a part of", len(part), "rows")
        engine.dispose()


if __name__ == "__main__":
    main()
