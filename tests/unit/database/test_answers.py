"""Results as answers: batches of about the same size, parts ahead of an answer, and a bound for both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.database.scripted import ADDRESS, Script, driver_class, hosting, run
from trunkline.actors.database import answers
from trunkline.actors.database.answers import BATCH_BYTES, Batches, Results
from trunkline.actors.database.jobs import Job, do_nothing
from trunkline.actors.driver import Result, Rows
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import StatementError
from trunkline.wire import values
from trunkline.wire.table import unpack_rows


class Cells(Rows):
    """Rows of one cell each."""

    columns = ["cell"]  # noqa: RUF012

    def __init__(self, cell: Any, count: int) -> None:
        self.left = [[cell]] * count
        self.asked: list[int] = []
        self.closes = 0

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        self.asked.append(count)
        found, self.left = self.left[:count], self.left[count:]
        return found

    def close(self) -> None:
        self.closes += 1


def test_the_first_batch_is_small_and_the_next_ones_fit() -> None:
    rows = Cells("x" * 1000, 2000)
    batches = Batches(rows)
    sizes = []
    while batches.more:
        count, body = batches.pack_next()
        more, packed = values.unpack(body)
        assert more is batches.more
        assert len(unpack_rows(packed)) == count
        sizes.append(len(body))
    assert sum(rows.asked[:-1]) < 2000 <= sum(rows.asked)
    assert rows.asked[0] == answers.FIRST_ROWS
    assert all(BATCH_BYTES * 0.9 < size < BATCH_BYTES * 1.1 for size in sizes[1:-1])
    assert rows.closes == 1


def test_a_batch_is_never_empty_before_the_end_and_never_too_long() -> None:
    large = Cells(b"x" * (2 * BATCH_BYTES), 100)
    batches = Batches(large)
    batches.pack_next()
    batches.pack_next()
    assert large.asked[1] == 1
    tiny = Cells(None, 100)
    batches = Batches(tiny)
    batches.note_size(1_000_000, 1)
    batches.fetch_next()
    assert tiny.asked == [answers.MOST_ROWS]


def test_closing_gives_up_the_other_rows() -> None:
    rows = Cells(1, 100)
    batches = Batches(rows)
    batches.close()
    assert not batches.more
    assert rows.closes == 1


def job(sender: bytes = b"routed") -> Job:
    return Job(sender, 1, do_nothing, Deadline(None), Deadline(None))


def pack(
    result: Result, token: bytes | None = None, script: Script | None = None
) -> dict[str, Any]:
    driver = driver_class(script or Script())(parse_address(ADDRESS))
    answer: dict[str, Any] = values.unpack(Results(None).pack_result(driver, result, token))  # type: ignore[arg-type]
    return answer


def test_an_answer_has_what_the_driver_knows() -> None:
    assert pack(Result()) == {"columns": [], "values": []}
    known = Result(columns=["a"], values=[(1,)], affected=2, matched=3, last_id=4)
    assert pack(known) == {
        "columns": ["a"],
        "values": [[1]],
        "affected": 2,
        "matched": 3,
        "last_id": 4,
    }
    several = Result(columns=["a"], values=[[1]], more=[Result(columns=["b"], values=[(2,)])])
    assert pack(several)["more"] == [{"columns": ["b"], "values": [[2]]}]


def test_an_answer_tells_of_a_transaction_that_its_statement_has_begun() -> None:
    script = Script()
    script.is_inside = True
    assert pack(Result(), None, script)["in_transaction"] is True
    assert "in_transaction" not in pack(Result(), b"token", script)


def test_an_answer_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LARGEST_ANSWER", 100)
    with pytest.raises(StatementError, match="more than one answer holds"):
        pack(Result(values=[["x" * 100]]))


def test_rows_ahead_are_not_sent_to_a_client_that_has_left() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            driver = driver_class(host.script)(parse_address(ADDRESS))
            results = host.actor.results
            for gone in (job(b"direct-gone"), job()):
                gone.is_unwanted = gone.sender == b"routed"
                with pytest.raises(StatementError, match="does not take them"):
                    await asyncio.to_thread(
                        results.run_statement, driver, "ROWS 500", [], None, gone
                    )
            assert host.script.count("close rows") == 2  # The driver can run the next statement.

    run(body())


def test_rows_ahead_wait_for_a_client_that_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MUST_TAKE_S", 0.0)

    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client = await host.connect()
            driver = driver_class(host.script)(parse_address(ADDRESS))
            rows = Cells(b"x" * 200_000, 200)
            first, rows.left = rows.left[:1], rows.left[1:]
            monkeypatch.setattr(
                driver, "execute", lambda sql, binds: Result(["c"], first, rest=rows)
            )
            statement = asyncio.to_thread(
                host.actor.results.run_statement, driver, "SELECT", [], None, job(client.name)
            )
            with pytest.raises(StatementError, match="does not take them"):
                await statement
            assert rows.closes == 1

    run(body())
