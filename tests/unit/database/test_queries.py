"""The open queries of a connection, on the shared link and on links of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.database.scripted import HOLDER, OTHER, Host, Script, hosting, run
from trunkline.actors.database import queries
from trunkline.errors import BrokenError, ClosedError, DialError, OperationTimeout, StatementError
from trunkline.wire import messages
from trunkline.wire.envelope import Kind
from trunkline.wire.table import unpack_rows

TOKEN = b"token"


def begin(host: Host, sql: str, number: int = 1, **more: Any) -> int:
    return host.ask(Kind.QUERY, host.statement(**more), sql, [], number)


def fetch(
    host: Host, number: int = 1, holder: bytes = HOLDER, timeout_ms: float | None = None
) -> int:
    return host.ask(Kind.FETCH, messages.Fetch(holder, number, timeout_ms))


def end(host: Host, number: int = 1, holder: bytes = HOLDER) -> int:
    return host.ask(Kind.END_QUERY, messages.EndQuery(holder, number))


async def all_rows(host: Host, request: int, number: int = 1, holder: bytes = HOLDER) -> list[Any]:
    """The rows of a query that was begun by `request`."""
    _, _, more, packed = await host.answer(request)
    rows = [*unpack_rows(packed)]
    while more:
        more, packed = await host.answer(fetch(host, number, holder))
        rows += unpack_rows(packed)
    return rows


both_kinds = pytest.mark.parametrize("apart", [False, True], ids=["beside", "apart"])


@both_kinds
def test_rows_come_batch_by_batch(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            assert await all_rows(host, begin(host, "ROWS 500")) == [[each] for each in range(500)]
            await host.until(lambda: not host.actor.queries.count)
            assert host.actor.stats().rows == 500
            assert host.actor.stats().statements == 1

    run(body())


@both_kinds
def test_each_call_of_the_driver_of_a_query_is_made_on_its_thread(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            made = len(host.script.calls)
            await all_rows(host, begin(host, "ROWS 500"))
            await host.until(lambda: not host.actor.queries.count)
            await host.until(lambda: not apart or host.script.count("close"))
            names = {thread for _, thread in host.script.calls[made:]}
            assert names == {"trunkline-query" if apart else "trunkline-driver"}

    run(body())


@both_kinds
def test_a_query_that_has_ended_gives_no_rows(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            await host.answer(begin(host, "ROWS 500"))
            assert await host.answer(end(host)) is None
            error = await host.error(fetch(host))
            assert (type(error), error.code) == (StatementError, queries.OVER)  # type: ignore[attr-defined]
            await host.until(lambda: host.script.count("close rows"))
            assert host.actor.queries.count == 0

    run(body())


@both_kinds
def test_the_end_may_come_before_its_query(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            await host.answer(end(host))
            request = begin(host, "ROWS 500")
            if apart:
                assert isinstance(await host.error(request), ClosedError)
            else:
                await host.answer(request)
                assert host.script.count("close rows") == 1
            assert host.actor.queries.count == 0

    run(body())


@both_kinds
def test_the_queries_of_a_holder_that_is_gone_are_closed(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            await host.answer(begin(host, "ROWS 500"))
            await host.answer(begin(host, "ROWS 500", holder=OTHER))
            host.actor.detach(HOLDER, None)
            assert host.actor.queries.count == 1
            await host.until(lambda: host.script.count("close rows"))
            await host.answer(fetch(host, holder=OTHER))

    run(body())


@both_kinds
def test_a_holder_keeps_its_queries_under_another_name(apart: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            await host.answer(begin(host, "ROWS 500"))
            host.actor.attach(b"new", b"", HOLDER, 0, 0, [])
            await host.answer(fetch(host, holder=b"new"))
            assert isinstance(await host.error(fetch(host)), StatementError)

    run(body())


@both_kinds
def test_a_lost_server_is_told(apart: bool) -> None:
    def lose(rows: Any, count: int) -> Any:
        raise ConnectionError("gone")

    async def body() -> None:
        async with hosting(Script(), queries_apart=apart) as host:
            await host.answer(begin(host, "ROWS 500"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tests.unit.database.scripted.ScriptedRows.fetch", lose)
                requests = [fetch(host), fetch(host)] if apart else [fetch(host)]
                error = await host.error(requests[-1])
            assert isinstance(error, (BrokenError, ClosedError, StatementError))
            await host.until(lambda: not host.actor.queries.count)

    run(body())


def test_queries_on_the_shared_link_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_OPEN", 2)

    async def body() -> None:
        async with hosting(Script()) as host:
            for number in (1, 2):
                await host.answer(begin(host, "ROWS 500", number))
            assert "2 queries are open" in str(await host.error(begin(host, "ROWS 500", 3)))
            await host.answer(end(host, 1))
            await host.answer(begin(host, "ROWS 500", 3))

    run(body())


def test_a_query_in_a_transaction_is_on_its_link_and_ends_with_it() -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=True) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            await host.answer(begin(host, "ROWS 500", token=TOKEN))
            assert host.script.threads_of("query") == {"trunkline-driver"}
            await host.answer(host.transaction(TOKEN, "commit"))
            assert host.actor.queries.count == 0
            await host.answer(host.exec("after"))
            assert host.script.threads_of("close rows") == {"trunkline-driver"}

    run(body())


def test_a_query_waits_for_a_link_until_another_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_APART", 1)

    async def body() -> None:
        async with hosting(Script(), queries_apart=True) as host:
            await host.answer(begin(host, "ROWS 500", 1))
            late = begin(host, "ROWS 500", 2, timeout_ms=10)
            assert "each on its own link" in str(await host.error(late))
            ended, left, waits = (
                begin(host, "ROWS 4", 3),
                begin(host, "ROWS 4", 4, holder=OTHER),
                begin(host, "ROWS 4", 5),
            )
            await host.answer(end(host, 3))
            assert isinstance(await host.error(ended), ClosedError)
            host.actor.detach(OTHER, None)
            assert isinstance(await host.error(left), ClosedError)
            host.actor.attach(b"new", b"", HOLDER, 0, 0, [])
            await host.answer(end(host, 1, holder=b"new"))
            assert await all_rows(host, waits, 5, b"new") == [[each] for each in range(4)]

    run(body())


def test_the_link_of_a_query_serves_the_next_one_if_it_can_be_reset() -> None:
    async def body() -> None:
        script = Script()
        script.can_reset = True
        async with hosting(script, queries_apart=True) as host:
            await all_rows(host, begin(host, "ROWS 4", 1))
            await host.until(lambda: script.count("reset"))
            await host.until(lambda: host.actor.queries._spare)
            await all_rows(host, begin(host, "ROWS 4", 2), 2)
            assert script.count("open") == 2  # the shared link, and one of their own
        assert script.count("close") == 2
        assert "trunkline-close" in script.threads_of("close")

    run(body())


def test_a_link_that_nobody_uses_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "SPARE_S", 0.01)

    async def body() -> None:
        script = Script()
        script.can_reset = True
        async with hosting(script, queries_apart=True) as host:
            await all_rows(host, begin(host, "ROWS 4"))
            await host.until(lambda: script.count("close") == 1)
            assert script.threads_of("close") == {"trunkline-close"}

    run(body())


def test_rows_that_do_not_come_in_time_stop_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "STOP_S", 0.05)

    async def body() -> None:
        async with hosting(Script(), queries_apart=True, interrupt_waits=True) as host:
            error = await host.error(begin(host, "WAIT", timeout_ms=200))
            assert isinstance(error, OperationTimeout)
            await host.until(lambda: host.script.count("close"))
            assert host.script.threads_of("interrupt") == {"trunkline-interrupt"}
            deaf = await host.error(begin(host, "DEAF", 2, timeout_ms=200))
            assert isinstance(deaf, OperationTimeout)
            await host.until(lambda: host.script.count("close") == 2)
            assert host.script.count("abort") == 1
            assert host.script.threads_of("close") == {"trunkline-query"}

    run(body())


def test_a_query_whose_server_cannot_be_reached_says_so() -> None:
    async def body() -> None:
        async with hosting(Script(), queries_apart=True) as host:
            host.script.failures.append(DialError("refused"))
            assert str(await host.error(begin(host, "ROWS 4", timeout_ms=5_000))) == "refused"
            await host.until(lambda: not host.actor.queries.count)

    run(body())


def test_no_query_begins_on_a_connection_that_has_ended() -> None:
    async def body() -> None:
        options = {"reconnect": False}
        async with hosting(Script(), queries_apart=True, options=options) as host:
            await host.error(host.exec("LOSE"))
            assert "the connection has ended" in str(await host.error(begin(host, "ROWS 4")))

    run(body())


def test_only_so_many_ended_queries_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_OVER", 2)

    async def body() -> None:
        async with hosting(Script()) as host:
            for number in (1, 2, 3):
                await host.answer(end(host, number))
            assert await all_rows(host, begin(host, "ROWS 4", 1), 1) == [
                [each] for each in range(4)
            ]

    run(body())
