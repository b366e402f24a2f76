"""Statements that are stopped: at a deadline, with and without a server that has to be asked."""

from __future__ import annotations

import pytest

from tests.unit.database.scripted import HOLDER, Script, hosting, run
from trunkline.actors.database import interrupts
from trunkline.errors import DialError, OperationTimeout, OutcomeUnknown
from trunkline.wire.state import State

TOKEN = b"token"
both_kinds = pytest.mark.parametrize(
    "waits", [False, True], ids=["at once", "by asking the server"]
)


@both_kinds
def test_a_statement_is_interrupted_at_its_deadline(waits: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), interrupt_waits=waits) as host:
            error = await host.error(host.exec("WAIT", timeout_ms=200))
            assert isinstance(error, OperationTimeout)
            assert "was stopped" in str(error)
            await host.answer(host.exec("after"))
            assert host.script.count("abort") == 0
            assert host.script.count("open") == 1

    run(body())


def test_an_interrupt_that_does_not_wait_is_called_by_the_loop_and_one_that_waits_by_a_thread() -> (
    None
):
    async def body() -> None:
        for waits, name in [(False, "MainThread"), (True, "trunkline-interrupt")]:
            async with hosting(Script(), interrupt_waits=waits) as host:
                await host.error(host.exec("WAIT", timeout_ms=200))
                assert host.script.threads_of("interrupt") == {name}

    run(body())


@both_kinds
def test_the_next_statement_begins_only_after_the_interrupt_has_returned(waits: bool) -> None:
    async def body() -> None:
        async with hosting(Script(), interrupt_waits=waits) as host:
            host.script.may_interrupt.clear()
            stopped = host.exec("WAIT", timeout_ms=200)
            await host.begun()
            after = host.exec("after")
            await host.until(lambda: host.script.count("interrupt"))
            host.script.may_end.set()  # The statement ends by itself while the interrupt is on its way.
            if waits:
                await host.actor.thread.call(lambda: None)
                assert host.script.texts == ["WAIT"]
                host.script.may_interrupt.set()
            await host.answer(after)
            assert isinstance(await host.answer_or_error(stopped), (dict, OperationTimeout))
            assert host.script.texts == ["WAIT", "after"]

    run(body())


@both_kinds
def test_a_statement_that_does_not_react_loses_its_link(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "INTERRUPT_S", 0.1)
    monkeypatch.setattr(interrupts, "AGAIN_ASKED_S", 0.01)

    async def body() -> None:
        async with hosting(Script(), interrupt_waits=waits) as host:
            error = await host.error(host.exec("DEAF", timeout_ms=200))
            assert isinstance(error, OutcomeUnknown)
            assert "could not be stopped" in str(error)
            await host.answer(host.exec("after"))
            assert host.script.count("abort") == 1
            assert host.script.threads_of("abort") == {"MainThread"}
            assert host.script.threads_of("close") == {"trunkline-driver"}
            assert host.script.count("interrupt") > 1  # It was repeated.
            assert host.script.count("open") == 2

    run(body())


def test_a_statement_in_the_line_is_taken_out_at_its_deadline() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            running = host.exec("WAIT")
            await host.begun()
            error = await host.error(host.exec("late", timeout_ms=10))
            assert "while it waited for the statements before it" in str(error)
            host.script.may_end.set()
            await host.answer(running)
            assert host.script.texts == ["WAIT"]

    run(body())


def test_a_rollback_in_the_line_is_answered_at_its_deadline_and_done_all_the_same() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.transaction(TOKEN, "begin"))
            running = host.exec("WAIT", token=TOKEN)
            await host.begun()
            error = await host.error(host.transaction(TOKEN, "rollback", ms=10))
            assert "before the rollback was done" in str(error)
            host.script.may_end.set()
            await host.answer(running)
            await host.answer(host.exec("after"))
            assert host.script.count("rollback") == 1

    run(body())


def test_a_statement_that_waits_for_a_lost_server_is_not_run_after_its_deadline() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.error(host.exec("LOSE"))
            host.script.may_open.clear()
            error = await host.error(host.exec("late", timeout_ms=10))
            assert "could be reached; nothing was run" in str(error)
            host.script.may_open.set()
            await host.answer(host.exec("after"))
            assert host.script.texts == ["LOSE", "after"]

    run(body())


def test_the_reason_of_the_last_dial_is_told_with_the_deadline() -> None:
    async def body() -> None:
        async with hosting(Script(), options={"reconnect": True, "interval": 60_000}) as host:
            await host.error(host.exec("LOSE"))
            host.script.failures.append(OSError("no route"))
            waits = host.exec("late", timeout_ms=2_000)
            await host.until(lambda: host.actor.link.redial.reason)
            host.script.may_open.clear()  # The next attempt gets no answer.
            assert "(no route); nothing was run" in str(await host.error(waits))

    run(body())


def test_a_begin_that_is_given_up_while_it_runs_is_rolled_back() -> None:
    async def body() -> None:
        script = Script()

        def begin(driver: object) -> None:
            script.has_begun.release()
            assert script.may_end.wait(10)
            script.is_inside = True

        async with hosting(script, begin=begin) as host:
            begins = host.transaction(TOKEN, "begin")
            await host.begun()
            await host.answer(host.transaction(TOKEN, "rollback"))
            script.may_end.set()
            assert isinstance(await host.error(begins), OperationTimeout)
            await host.answer(host.exec("after"))
            assert script.count("rollback") == 1
            assert host.actor.line.owner is None

    run(body())


def test_an_interrupt_that_never_returns_does_not_keep_the_connection_from_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "CLOSE_S", 0.05)

    async def body() -> None:
        async with hosting(Script(), interrupt_waits=True) as host:
            host.script.may_interrupt.clear()
            host.exec("DEAF")
            await host.begun()
            await host.actor.close(None)  # type: ignore[arg-type]
            assert host.actor.state is State.CLOSED
            assert host.script.count("interrupt") == 1
            host.script.may_end.set()

    run(body())


def test_a_statement_that_has_ended_is_not_interrupted() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.answer(host.exec("a", timeout_ms=5_000))
            host.actor.detach(HOLDER, None)
            await host.answer(host.exec("b", holder=b"other holder"))
            assert host.script.count("interrupt") == 0

    run(body())


def test_a_failed_dial_is_an_answer_too() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            await host.error(host.exec("LOSE"))
            host.script.failures.extend([DialError("refused"), DialError("refused")])
            assert str(await host.error(host.exec("a", timeout_ms=5_000))) == "refused"

    run(body())
