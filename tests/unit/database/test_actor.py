"""The actor of a database: requests in, answers out, with a scripted driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.database.scripted import HOLDER, OTHER, Host, Script, exec_frame, hosting, run
from trunkline.actors.database import actor as module
from trunkline.actors.database.admission import OVER
from trunkline.deadline import Deadline
from trunkline.errors import (
    BrokenError,
    ClosedError,
    DialError,
    DialTimeout,
    OutcomeUnknown,
    StatementError,
    Unsupported,
    from_wire,
)
from trunkline.wire import messages
from trunkline.wire.envelope import Kind, parse
from trunkline.wire.state import State

TOKEN = b"token"
DRIVER_THREAD = {"trunkline-driver"}


def values_of(answer: Any) -> Any:
    return answer["values"]


# statements


def test_a_statement_is_run_and_answered() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            assert values_of(await host.answer(host.exec("a"))) == [["a"]]
            figures = host.actor.stats()
            assert (figures.state, figures.statements, figures.rows, figures.holders) == (
                "open",
                1,
                1,
                2,
            )

    run(body())


def test_a_refused_statement_is_answered_with_the_servers_code() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            error = await host.error(host.exec("FAIL"))
            assert (type(error), error.code) == (StatementError, "42000")  # type: ignore[attr-defined]
            assert host.actor.stats().last_error == "the server refused it"

    run(body())


def test_statements_run_in_the_order_in_which_they_came() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            numbers = [
                host.exec(text, holder=holder)
                for text, holder in [("1", HOLDER), ("2", OTHER)] * 20
            ]
            for number in numbers:
                await host.answer(number)
            assert host.script.texts == ["1", "2"] * 20

    run(body())


def test_a_long_result_is_sent_ahead_in_parts() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            number = host.exec("ROWS 1000")
            assert values_of(await host.answer(number)) == []
            assert await host.parts(number) == [[each] for each in range(1000)]
            assert host.actor.stats().rows == 1000

    run(body())


def test_many_rows_of_values_are_one_statement() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            from trunkline.wire.table import pack_rows

            chunks = [pack_rows([[1], [2]]), pack_rows([[3]])]
            number = host.ask(Kind.EXECUTEMANY, host.statement(), "INSERT", chunks, 2, 3)
            assert (await host.answer(number))["affected"] == 3
            assert host.script.texts == ["INSERT"] * 3
            assert host.script.count("begin") == host.script.count("commit") == 1

    run(body())


def test_a_database_has_no_write_and_nothing_to_read() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            written = host.ask(Kind.WRITE, messages.Write(1000, True, 0, b""))
            assert isinstance(await host.error(written), Unsupported)
            host.ask(Kind.READ, messages.Read(HOLDER, 7, 0, 0, 0, True, False, 0, False))
            kind, _, fields = parse(host.worker.mailbox.sent[-1][1])
            assert kind is Kind.PUSH
            push = messages.Push(*fields)
            assert (push.stream, push.more, push.answer) == (True, False, 7)

    run(body())


def test_a_request_that_was_too_long_on_its_way_is_not_run() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            assert "longer on its way" in str(await host.error(host.exec("late", timeout_ms=-1)))
            assert host.script.texts == []

    run(body())


def test_a_shared_connection_refuses_a_bare_begin() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            assert "this connection is shared" in str(await host.error(host.exec("BEGIN")))
            del host.worker.holders[OTHER]
            assert (await host.answer(host.exec("BEGIN")))["in_transaction"] is True

    run(body())


# groups


def test_statements_that_wait_together_share_a_commit() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            first = host.exec("WAIT")
            await host.begun()
            group = [host.exec(text) for text in ("JOIN 1", "JOIN FAIL", "JOIN 3")]
            host.script.may_end.set()
            await host.answer(first)
            assert (await host.answer(group[0]))["affected"] == 1
            assert str(await host.error(group[1])) == "refused"
            assert (await host.answer(group[2]))["affected"] == 1
            assert host.script.count("execute_together") == 1

    run(body())


def test_what_a_group_has_left_is_run_alone() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            first = host.exec("WAIT")
            await host.begun()
            group = [host.exec(text) for text in ("JOIN 1", "JOIN STOP", "JOIN 3")]
            host.script.may_end.set()
            for number in [first, *group]:
                await host.answer(number)
            assert host.script.texts == ["WAIT", "JOIN 1", "JOIN STOP", "JOIN 3"]

    run(body())


def test_the_outcome_of_a_group_on_a_lost_link_is_unknown() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            host.exec("WAIT")
            await host.begun()
            group = [host.exec(text) for text in ("JOIN LOSE", "JOIN 2")]
            host.script.may_end.set()
            for number in group:
                assert isinstance(await host.error(number), OutcomeUnknown)
            await host.answer(host.exec("after"))
            assert host.actor.stats().reconnects == 1

    run(body())


# transactions


def test_a_transaction_has_the_link_to_itself() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            other = host.exec("other", holder=OTHER)
            await host.answer(host.exec("own", token=TOKEN))
            await host.answer(host.transaction(TOKEN, "commit"))
            await host.answer(other)
            assert host.script.texts == ["own", "other"]
            late = await host.error(host.exec("late", token=TOKEN))
            assert (type(late), late.code) == (StatementError, OVER)  # type: ignore[attr-defined]

    run(body())


def test_a_transaction_begins_with_modes() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin READ ONLY"))
            await host.answer(host.transaction(TOKEN, "rollback"))
            assert host.script.count("begin READ ONLY") == host.script.count("rollback") == 1

    run(body())


def test_the_transaction_of_a_holder_that_is_gone_is_rolled_back() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            other = host.exec("other", holder=OTHER)
            del host.worker.holders[HOLDER]
            host.actor.detach(HOLDER, None)
            await host.answer(other)
            assert host.script.count("rollback") == 1
            assert host.worker.lines == ["a holder was gone in a transaction; it is rolled back"]

    run(body())


def test_a_begin_that_its_rollback_has_overtaken_is_not_run() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "rollback"))
            error = await host.error(host.transaction(TOKEN, "begin"))
            assert "given up before its turn" in str(error)
            assert host.script.count("begin") == 0

    run(body())


def test_a_begin_in_the_line_is_forgotten_when_its_rollback_comes() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            first = host.exec("WAIT")
            await host.begun()
            begin = host.transaction(TOKEN, "begin")
            await host.answer(host.transaction(TOKEN, "rollback"))
            assert "given up" in str(await host.error(begin))
            host.script.may_end.set()
            await host.answer(first)
            assert host.script.count("begin") == 0

    run(body())


def test_a_transaction_that_the_server_does_not_end_loses_its_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(driver: Any) -> None:
        raise StatementError("XAER_RMFAIL")

    async def body() -> None:
        async with hosting(Script(), commit=refuse, rollback=refuse) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            assert str(await host.error(host.transaction(TOKEN, "commit"))) == "XAER_RMFAIL"
            assert host.actor.state is State.DOWN
            host.script.is_inside = False
            await host.answer(host.exec("after"))
            assert host.script.threads_of("close") == DRIVER_THREAD
            assert "its link is broken instead" in host.worker.lines[0]

    run(body())


# the link


def test_a_lost_link_is_dialled_for_the_next_statement() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            assert isinstance(await host.error(host.exec("LOSE")), OutcomeUnknown)
            assert host.worker.states == ["down"]
            await host.answer(host.exec("again"))
            assert host.worker.states == ["down", "open"]
            figures = host.actor.stats()
            assert (figures.outages, figures.reconnects) == (1, 1)

    run(body())


def test_a_link_that_the_server_has_ended_is_dialled_before_the_statement() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            host.script.is_alive = False
            assert values_of(await host.answer(host.exec("a"))) == [["a"]]
            assert host.script.texts == ["a"]
            assert host.script.count("open") == 2

    run(body())


def test_a_transaction_on_a_link_that_the_server_has_ended_is_over() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            host.script.is_alive = host.script.is_inside = False
            error = await host.error(host.exec("a", token=TOKEN))
            assert (type(error), error.code) == (StatementError, OVER)  # type: ignore[attr-defined]
            assert "begin it again" in str(error)
            assert host.script.texts == []

    run(body())


def test_reconnect_false_ends_the_connection_at_its_first_loss() -> None:
    async def body() -> None:
        async with hosting(Script(), options={"reconnect": False}) as host:
            await host.error(host.exec("LOSE"))
            assert host.worker.states == ["lost"]
            assert isinstance(await host.error(host.exec("after")), BrokenError)
            assert host.script.count("open") == 1

    run(body())


def test_with_reconnect_false_a_loss_is_found_without_a_statement() -> None:
    async def body() -> None:
        async with hosting(Script(), options={"reconnect": False}) as host:
            host.actor.tick()
            host.script.is_alive = False
            host.actor.tick()
            await host.until(lambda: host.worker.states == ["lost"])
            assert host.script.threads_of("alive", "close") == DRIVER_THREAD

    run(body())


def test_a_first_dial_that_fails_is_told() -> None:
    async def body() -> None:
        script = Script()
        script.failures.append(DialError("refused"))
        with pytest.raises(DialError, match="refused"):
            async with hosting(script) as host:
                pass
        script.failures.append(TimeoutError())
        with pytest.raises(DialTimeout, match="could not be opened in the time allowed"):
            async with hosting(script) as host:
                assert host.actor.state is State.FAILED

    run(body())


def test_a_first_dial_that_takes_too_long_is_told() -> None:
    async def body() -> None:
        script = Script()
        script.may_open.clear()
        async with hosting(script, opens=False) as host:
            with pytest.raises(DialTimeout):
                await host.actor.open(Deadline(0.01))
            assert host.actor.state is State.FAILED

    run(body())


def test_the_worker_after_a_crashed_one_dials_with_its_first_statement() -> None:
    async def body() -> None:
        script = Script()
        script.failures.append(DialError("refused"))
        async with hosting(script, succeeds=True) as host:
            assert host.actor.state is State.DOWN
            await host.answer(host.exec("a"))
            assert host.actor.state is State.OPEN

    run(body())


# threads


def test_every_call_of_the_driver_is_made_on_its_thread() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            await host.answer(host.exec("a", token=TOKEN))
            await host.answer(host.transaction(TOKEN, "commit"))
            await host.error(host.exec("LOSE"))
            await host.answer(host.exec("b"))
            await host.error(host.exec("FAIL"))
        assert host.script.count("close") == 2
        assert host.script.threads_of() == DRIVER_THREAD

    run(body())


def test_the_driver_thread_reads_the_next_statement_itself(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client = await host.connect()
            seen = count_receipts(host)
            for number in range(50):
                assert values_of(await client.exec(f"{number}")) == [[f"{number}"]]
            assert host.script.texts == [f"{number}" for number in range(50)]
            assert (
                len(seen) < 50
            )  # The event loop has seen fewer: the first, and those after a long pause.
            assert host.actor.stats().statements == 50

    run(body())


def count_receipts(host: Host) -> list[Kind]:
    """The kinds of the requests that come to the event loop from now on."""
    seen: list[Kind] = []
    receive = host.actor.receive

    def note(sender: bytes, kind: Kind, *rest: Any) -> None:
        seen.append(kind)
        receive(sender, kind, *rest)

    host.actor.receive = note  # type: ignore[method-assign, assignment]
    return seen


def test_the_event_loop_takes_what_the_driver_thread_must_not_run(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client = await host.connect()
            await client.exec("a")
            await client.send(exec_frame(2, "BEGIN"))  # refused, for the connection is shared
            kind, number, told = await client.receive()
            assert (kind, number) == (Kind.ERROR, 2)
            assert "this connection is shared" in str(from_wire(told))
            assert values_of(await client.exec("b")) == [["b"]]

    run(body())


def test_a_statement_by_another_way_calls_the_driver_thread_from_the_client(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client = await host.connect()
            for number in range(20):
                await client.exec(f"client {number}")
                await host.answer(host.exec(f"routed {number}"))
            assert len(host.script.texts) == 40

    run(body())


def test_a_client_that_hangs_up_stops_its_statement(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client = await host.connect()
            await client.send(exec_frame(1, "WAIT"))
            await host.begun()
            client.close()
            host.actor.tick()  # The event loop watches the socket of a statement that takes long.
            await host.until(lambda: host.actor.handover.running is None)
            assert host.script.count("interrupt") >= 1
            assert values_of(await host.answer(host.exec("after"))) == [["after"]]

    run(body())


# the end


def test_a_holder_that_is_gone_has_its_statements_stopped_or_not_run() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            running, waiting = host.exec("WAIT"), host.exec("waits")
            await host.begun()
            del host.worker.holders[HOLDER]
            host.actor.detach(HOLDER, None)
            assert isinstance(await host.error(waiting), ClosedError)
            assert "its object was closed" in str(await host.error(running))
            assert host.script.texts == ["WAIT"]

    run(body())


def test_the_statements_of_a_client_that_left_are_not_begun() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            running = host.exec("WAIT")
            await host.begun()
            left = host.ask(Kind.EXEC, host.statement(), "left", [], sender=b"gone")
            host.actor.left(b"gone")
            assert "nobody waits" in str(await host.error(left))
            host.script.may_end.set()
            await host.answer(running)
            assert host.script.texts == ["WAIT"]

    run(body())


def test_a_statement_of_a_client_that_left_is_stopped_though_it_has_just_begun() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            running = host.exec("WAIT")
            await host.begun()
            taken = host.actor.handover.running
            # The driver thread took the statement between the look at the line and the removal.
            host.actor.line.find = lambda matches: [taken]  # type: ignore[method-assign]
            host.actor.left(b"gone")
            assert await host.error(running)
            assert host.script.count("interrupt")

    run(body())


@pytest.mark.parametrize("waits", [False, True])
def test_closing_stops_the_running_statement_and_answers_the_others(waits: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), interrupt_waits=waits) as host:
            running, waiting = host.exec("WAIT"), host.exec("waits")
            await host.begun()
            await host.actor.close(module.Ending.CLOSED)
            assert "its connection was ended" in str(await host.error(running))
            assert isinstance(await host.error(waiting), BrokenError)
            assert isinstance(await host.error(host.exec("late")), BrokenError)
            assert host.actor.state is State.CLOSED
            assert host.script.threads_of("close", "execute") == DRIVER_THREAD

    run(body())


def test_a_holder_keeps_its_transaction_under_another_name() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            running = host.exec("WAIT", token=TOKEN)
            await host.begun()
            host.worker.holders[b"new"] = host.worker.holders.pop(HOLDER)
            host.actor.attach(b"new", b"", HOLDER, 0, 0, [])
            host.script.may_end.set()
            await host.answer(running)
            await host.answer(host.transaction(TOKEN, "commit", holder=b"new"))
            assert host.script.count("rollback") == 0
            host.actor.start(b"new", False, 0, False)
            host.actor.note()
            assert host.actor.bequest() == {}

    run(body())


def test_a_text_that_is_too_long_for_an_error_is_cut() -> None:
    def execute(driver: Any, sql: str, binds: Any) -> Any:
        raise StatementError(f"near {sql}")

    async def body() -> None:
        async with hosting(Script(), execute=execute) as host:
            error = await host.error(host.exec("x" * 100_000))
            assert len(str(error)) < 2000

    run(body())
