"""What the driver thread does with jobs: who is told, and by which thread."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.database.scripted import HOLDER, Client, Host, Script, exec_frame, hosting, run
from trunkline.actors.database.jobs import Finished
from trunkline.actors.database.runner import Runner
from trunkline.wire.envelope import Kind


def note_ends(host: Host) -> list[int]:
    """The numbers of the requests whose ends the driver thread tells the event loop from now on."""
    told: list[int] = []
    finish = host.actor.finish

    def note(finished: Finished) -> None:
        told.append(finished.waiting.job.request_id)
        finish(finished)

    host.actor.finish = note  # type: ignore[method-assign]
    host.actor.interrupts._finish = note
    return told


async def answers_of(client: Client, count: int) -> list[int]:
    return [(await client.receive())[1] for _ in range(count)]


def test_an_answer_to_the_door_needs_no_event_loop(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client, told = await host.connect(), note_ends(host)
            await client.exec("a")
            await host.actor.thread.call(lambda: None)  # The end is left after the answer.
            assert host.actor.handover.running is not None
            assert told == []
            host.actor.collect()
            assert told == [1]
            assert host.actor.handover.running is None

    run(body())


def test_statements_that_wait_are_run_one_after_the_other(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            clients, told = [await host.connect() for _ in range(5)], note_ends(host)
            await clients[0].send(exec_frame(1, "WAIT"))
            await host.begun()
            for number, client in enumerate(clients[1:], 2):
                await client.send(exec_frame(number, f"{number}"))
                await host.until(lambda number=number: len(host.actor.line.waiting) == number - 1)
            host.script.may_end.set()
            for number, client in enumerate(clients, 1):
                assert await answers_of(client, 1) == [number]
            assert host.script.texts == ["WAIT", "2", "3", "4", "5"]
            assert told == []
            for client in clients:  # Each socket is watched again.
                await client.exec("again")

    run(body())


def test_the_event_loop_is_told_of_an_error_and_of_a_transaction(tmp_path: Path) -> None:
    async def body() -> None:
        async with hosting(Script(), folder=tmp_path) as host:
            client, told = await host.connect(), note_ends(host)
            await client.send(exec_frame(1, "FAIL"))
            assert (await client.receive())[0] is Kind.ERROR
            host.worker.holders.pop(b"other holder")
            await client.send(exec_frame(2, "BEGIN"))
            assert (await client.receive())[0] is Kind.REPLY
            assert told == [1, 2]
            assert host.actor.line.owner_holder == HOLDER
            await client.send(exec_frame(3, "COMMIT"))
            await client.receive()
            assert host.actor.line.owner is None

    run(body())


def test_a_job_that_is_unwanted_before_it_begins_is_not_run() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            hold = asyncio.ensure_future(
                host.actor.thread.call(lambda: host.script.may_end.wait(10))
            )
            await asyncio.sleep(0)
            number = host.exec("late", timeout_ms=10)
            assert "nothing was run" in str(await host.error(number))
            host.script.may_end.set()
            await hold
            await host.answer(host.exec("after"))
            assert host.script.texts == ["after"]

    run(body())


def test_the_driver_thread_does_not_run_what_a_closing_connection_reads() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            runner: Runner = host.actor.runner
            client: Any = type("Socket", (), {"name": b"direct-1"})()
            frame = exec_frame(1, "a")
            head = frame[6 : 6 + int.from_bytes(frame[4:6], "big")]
            body = frame[6 + len(head) :]
            run_message = host.actor.thread.call(lambda: runner.run_message(client, head, body))
            assert not await run_message  # There is no end that is unnoted.
            await host.error(host.exec("LOSE"))
            assert not await host.actor.thread.call(lambda: runner.run_message(client, head, body))
            assert host.script.texts == ["LOSE"]

    run(body())
