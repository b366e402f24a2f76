"""Everything that may be asked of one database connection, at once, from several objects and threads: the
driver's thread reads some requests itself, and none may be lost between it and the loop."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import trunkline

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) SELECT max(i) FROM n"
THREADS, STEPS = 6, 120


def test_mixed_requests_from_many_threads_are_all_answered(
    tmp_path: Path, rng: random.Random
) -> None:
    first = trunkline.connect(f"sqlite3://{tmp_path}/mixed.db")
    first.exec("CREATE TABLE t (thread, step)")
    handle = first.fd()
    failures: list[BaseException] = []
    inserted = [0] * THREADS

    def work(number: int, seed: int) -> None:
        mine = random.Random(seed)
        connection = trunkline.connect(handle)
        try:
            for step in range(STEPS):
                connection = _step(connection, mine, number, step, inserted, handle)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(k, rng.random())) for k in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a request was never answered"
    assert not failures
    found = first.exec("SELECT count(*) FROM t")
    assert found is not None
    assert found["values"] == [[sum(inserted)]]


def _step(
    connection: trunkline.Connection,
    mine: random.Random,
    number: int,
    step: int,
    inserted: list[int],
    handle: int,
) -> trunkline.Connection:
    choice = mine.randrange(10)
    if choice < 5:
        connection.exec("INSERT INTO t VALUES (?, ?)", number, step)
        inserted[number] += 1
    elif choice == 5:
        with connection.transaction():
            connection.exec("INSERT INTO t VALUES (?, ?)", number, step)
        inserted[number] += 1
    elif choice == 6:
        assert connection.exec("SELECT ?", step, timeout=20_000) is not None
    elif choice == 7:
        assert connection.stats().state == "open"
        connection.exec(SLOW)
    elif choice == 8:
        try:
            connection.exec("SELECT * FROM missing")
        except trunkline.StatementError:
            pass
        else:
            raise AssertionError("a missing table was found")
    else:
        connection.close()
        return trunkline.connect(handle)
    return connection
