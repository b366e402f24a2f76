"""One query: beside the statements of the shared link, or apart on a link and a thread of its own."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from tests.support.waiting import until
from tests.unit.database.scripted import ADDRESS, Script, ScriptedDriver, ScriptedRows, driver_class
from trunkline.actors.database.query import Apart, Beside, Outcome
from trunkline.actors.database.redial import Redial
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import BrokenError, ClosedError, OutcomeUnknown, StatementError
from trunkline.wire import values
from trunkline.wire.table import unpack_rows


class Asker:
    """Asks a query of its own, and waits for the outcomes."""

    def __init__(self, script: Script, spare: ScriptedDriver | None = None) -> None:
        self.script = script
        self.kept: list[Any] = []
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        address = parse_address(ADDRESS)
        make = driver_class(script)
        self.query = Apart(
            spare, lambda: make(address), Redial(address, (OSError,)), self.kept.append
        )

    def begin(self, sql: str) -> Outcome:
        self.send(sql)
        return self.outcome()

    def send(self, sql: str) -> None:
        self.query.begin(sql, [], Deadline(10), self.outcomes.put)

    def fetch(self) -> Outcome:
        self.query.fetch(self.outcomes.put)
        return self.outcome()

    def outcome(self) -> Outcome:
        return self.outcomes.get(timeout=10)

    def end(self) -> None:
        self.query.end()
        self.script.may_end.set()
        self.query.join(10)


def spare_driver(script: Script) -> ScriptedDriver:
    return driver_class(script)(parse_address(ADDRESS))


def test_a_query_beside_gives_its_rows_batch_by_batch() -> None:
    driver = spare_driver(Script())
    query = Beside(None, driver.query("ROWS 100", []))
    outcome = query.fetch_batch("before")
    before, more, packed = values.unpack(outcome.body)
    assert (before, more, outcome.more, outcome.rows) == ("before", True, True, 64)
    assert unpack_rows(packed) == [[each] for each in range(64)]
    rest = query.fetch_batch()
    assert (rest.rows, rest.more) == (36, False)


def test_a_query_beside_closes_quietly() -> None:
    rows = spare_driver(Script()).query("ROWS 100", [])
    rows.close = lambda: 1 // 0  # type: ignore[method-assign, assignment]
    Beside(None, rows).close()


def test_a_query_apart_makes_its_driver_on_its_own_thread() -> None:
    asker = Asker(Script())
    outcome = asker.begin("ROWS 100")
    columns, inside, more, packed = values.unpack(outcome.body)
    assert (columns, inside, more) == (["n"], False, True)
    assert unpack_rows(packed) == [[each] for each in range(64)]
    assert asker.fetch().rows == 36
    asker.query.join(10)
    assert asker.script.threads_of() == {"trunkline-query"}
    assert asker.script.count("make") == asker.script.count("close") == 1


def test_the_next_batch_is_fetched_before_it_is_asked_for() -> None:
    asker = Asker(Script())
    asker.begin("ROWS 100")
    until(lambda: asker.script.count("fetch") >= 2)
    asker.end()


def test_a_fetch_after_the_last_row_is_refused() -> None:
    asker = Asker(Script())
    assert not asker.begin("ROWS 3").more
    assert isinstance(asker.fetch().error, ClosedError)
    asker.query.join(10)
    assert isinstance(asker.fetch().error, ClosedError)


def test_a_refused_query_has_the_servers_error() -> None:
    asker = Asker(Script())
    error = asker.begin("FAIL").error
    assert isinstance(error, StatementError)
    assert error.code == "42000"
    asker.query.join(10)


def test_a_server_that_is_lost_before_the_first_row_leaves_the_outcome_unknown() -> None:
    asker = Asker(Script())
    assert isinstance(asker.begin("LOSE").error, OutcomeUnknown)
    asker.query.join(10)


def test_a_server_that_is_lost_with_the_first_batch_breaks_the_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(rows: Any, count: int) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(ScriptedRows, "fetch", lose)
    asker = Asker(Script())
    assert isinstance(asker.begin("ROWS 100").error, BrokenError)
    asker.query.join(10)


def test_the_loss_of_a_prefetched_batch_is_told_with_the_fetch() -> None:
    asker = Asker(Script())
    fetched = ScriptedRows.fetch
    counts: list[int] = []

    def lose_second(rows: ScriptedRows, count: int) -> Any:
        counts.append(count)
        if len(counts) > 1:
            raise ConnectionError("gone")
        return fetched(rows, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedRows, "fetch", lose_second)
        assert asker.begin("ROWS 100").rows == 64
        error = asker.fetch().error
    assert isinstance(error, BrokenError)
    assert "before all rows were read" in str(error)
    asker.query.join(10)


def test_ending_a_query_interrupts_it_and_does_not_keep_its_link() -> None:
    script = Script()
    script.can_reset = True
    asker = Asker(script)
    asker.send("WAIT")
    assert script.has_begun.acquire(timeout=10)
    asker.query.end()
    assert isinstance(asker.outcome().error, StatementError)
    asker.query.join(10)
    until(lambda: script.count("interrupt") == 1)
    assert script.threads_of("interrupt") == {"trunkline-interrupt"}
    assert asker.kept == []
    assert script.count("close") == 1


def test_aborting_breaks_the_link_of_a_query_that_does_not_react() -> None:
    script = Script()
    asker = Asker(script)
    asker.query.abort()
    asker.send("DEAF")
    assert script.has_begun.acquire(timeout=10)
    asker.query.end()
    asker.query.abort()
    assert isinstance(asker.outcome().error, OutcomeUnknown)
    asker.query.join(10)
    assert script.count("abort") == 1


def test_a_link_in_good_order_is_kept_for_the_next_query() -> None:
    script = Script()
    script.can_reset = True
    asker = Asker(script)
    asker.begin("ROWS 3")
    asker.query.join(10)
    (kept,) = asker.kept
    after = Asker(script, kept)
    after.begin("ROWS 3")
    after.query.join(10)
    assert after.kept == [kept]
    assert script.count("open") == 1


def test_a_link_with_an_open_transaction_is_rolled_back_before_it_is_kept() -> None:
    script = Script()
    script.can_reset = script.is_inside = True
    asker = Asker(script)
    asker.begin("ROWS 3")
    asker.query.join(10)
    assert script.count("rollback") == len(asker.kept) == 1


def test_a_spare_link_that_the_server_has_ended_is_replaced() -> None:
    script = Script()
    script.is_alive = False
    asker = Asker(script, spare_driver(script))
    assert asker.begin("ROWS 3").error is None
    asker.query.join(10)
    assert script.count("open") == 1
    assert script.count("close") == 2


def test_a_query_that_ends_while_its_server_is_dialled_gives_up() -> None:
    script = Script()
    script.failures.extend([OSError("no route")] * 100)
    asker = Asker(script)
    asker.send("ROWS 3")
    until(lambda: script.count("open"))
    asker.query.end()
    assert asker.outcome().error is not None
    asker.query.join(10)
    assert script.texts == []


def test_a_query_that_is_closed_while_its_link_opens_runs_nothing() -> None:
    script = Script()
    asker = Asker(script)
    open_link = ScriptedDriver.open

    def open_and_close_the_query(driver: ScriptedDriver, deadline: Deadline) -> None:
        open_link(driver, deadline)
        asker.query.end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedDriver, "open", open_and_close_the_query)
        outcome = asker.begin("ROWS 3")
    assert isinstance(outcome.error, ClosedError)
    asker.query.join(10)
    assert script.texts == []
