"""Four processes write into one SQLite file at the same time, through one connection.

Run it with `python shared_sqlite.py`; it needs nothing else, and leaves nothing behind. Each process opening the
file itself would work too, but they would wait for each other's locks; here one connection writes for all.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import trunkline

WRITERS, ORDERS = 4, 250


def write(handle, writer):
    with trunkline.connect(handle) as db:
        for number in range(ORDERS):
            db.exec("INSERT INTO orders VALUES (?, ?, ?)", writer, number, 100 + number / 4)

        # Two statements that belong together: the other processes wait until the block has ended.
        with db.transaction():
            total = db.exec("SELECT sum(price) FROM orders WHERE writer = ?", writer)["values"][0][0]
            db.exec("INSERT INTO totals VALUES (?, ?)", writer, total)

        # Many rows in one message, all of them or none.
        db.executemany("INSERT INTO log VALUES (?, ?)", [(writer, line) for line in range(1000)])
    return writer


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "orders.db")
        with trunkline.connect(f"sqlite3://{path}?_journal_mode=WAL") as db:
            db.exec(
                "CREATE TABLE orders (writer INTEGER, number INTEGER, price REAL);"
                "CREATE TABLE totals (writer INTEGER PRIMARY KEY, total REAL);"
                "CREATE TABLE log (writer INTEGER, line INTEGER)"
            )
            # The handle is a number: it is all that another process needs.
            handle = db.fd()
            with ProcessPoolExecutor(WRITERS, mp_context=get_context("spawn")) as pool:
                for writer in pool.map(write, [handle] * WRITERS, range(WRITERS)):
                    print("writer", writer, "is done")

            print("orders:", db.exec("SELECT count(*) FROM orders")["values"][0][0])
            print("lines:", db.exec("SELECT count(*) FROM log")["values"][0][0])
            with db.query("SELECT writer, total FROM totals ORDER BY writer") as rows:
                for writer, total in rows:
                    print("writer", writer, "ordered for", total)
        trunkline.shutdown()  # else the connection would wait 5 minutes for others who know its handle
    print("removed", path.name, not path.exists())


if __name__ == "__main__":
    main()
