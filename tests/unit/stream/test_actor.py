"""The actor gives each message to the part that deals with it, and answers each request once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit.stream.rig import CONTROL, READER, Rig
from trunkline.actors.driver import Delivery, Ending, Overflow
from trunkline.actors.stream.actor import StreamActor
from trunkline.wire.envelope import Kind

SECOND = b"second"


def on_open_link(job: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    async def go() -> None:
        async with Rig(**options) as rig:
            assert isinstance(rig.actor, StreamActor)
            await rig.open()
            await job(rig)

    asyncio.run(go())


def test_an_operation_of_databases_is_refused() -> None:
    async def job(rig: Rig) -> None:
        for kind, what in ((Kind.EXEC, "exec"), (Kind.TRANSACTION, "this operation")):
            answer = await rig.answer(kind)
            assert answer.kind is Kind.ERROR
            assert f"ws:// has no {what}: use read and write" in str(answer.fields)

    on_open_link(job)


def test_a_scheme_without_seek_says_so() -> None:
    async def job(rig: Rig) -> None:
        answer = await rig.answer(Kind.SEEK, 1000, time.monotonic() + 1, None, None, None, None)
        assert answer.kind is Kind.ERROR
        assert "has no seek" in str(answer.fields)
        late = await rig.answer(Kind.SEEK, 0, time.monotonic(), None, None, None, None)
        assert "longer on its way" in str(late.fields)

    on_open_link(job)


def test_a_malformed_settlement_is_an_error_of_its_sender_alone() -> None:
    async def job(rig: Rig) -> None:
        for fields in ([], [1, "shred", 0], ["x", "ack", 0]):
            assert (await rig.answer(Kind.SETTLE, *fields)).kind is Kind.ERROR

    on_open_link(job)


def test_a_kept_message_is_acknowledged_after_the_work() -> None:
    async def job(rig: Rig) -> None:
        rig.read_on()
        rig.driver.sink.deliver([Delivery("work", token="t")])
        rig.actor.receive(READER, Kind.KEEP, 0, [READER, 1, 77], [])
        rig.actor.receive(READER, Kind.ACK, 0, [READER, 1, None, 0], [])
        assert rig.driver.settled == []
        answer = await rig.answer(Kind.SETTLE, 77, "ack", 0)
        assert (answer.kind, answer.body) == (Kind.REPLY, (b"",))
        assert rig.driver.settled == ["t"]

    on_open_link(job)


def test_a_second_holder_recalls_what_was_sent_ahead_and_each_ask_is_answered() -> None:
    async def job(rig: Rig) -> None:
        rig.read_on()
        rig.driver.sink.messages(["1", "2"])
        rig.host.holders[SECOND] = CONTROL
        rig.actor.start(SECOND, down=False, had=0, envelopes=False)
        await rig.host.until(lambda: [s for s in rig.host.mailbox.sent if s.kind is Kind.RECALL])
        recall = next(sent for sent in rig.host.mailbox.sent if sent.kind is Kind.RECALL)
        assert recall.to == CONTROL
        rig.actor.receive(
            CONTROL, Kind.RECALLED, 0, [READER, recall.fields[1], 1, 0, [], False], []
        )
        rig.actor.receive(SECOND, Kind.READ, 0, [SECOND, 1, 0, 0, 0, True, False, 0, False], [])
        pushes = [sent for sent in rig.host.mailbox.sent if sent.kind is Kind.PUSH]
        assert pushes[-1].to == SECOND
        assert rig.entries() == ["1", "2", "2"]
        rig.actor.receive(SECOND, Kind.CANCEL, 0, [SECOND, 2], [])
        assert rig.host.mailbox.sent[-1].kind is Kind.CANCELLED

    on_open_link(job)


def test_a_full_buffer_pauses_a_peer_that_can_wait() -> None:
    async def job(rig: Rig) -> None:
        rig.driver.sink.messages(["1", "2"])
        assert rig.driver.pauses == [True]
        rig.read_on()
        rig.actor.receive(READER, Kind.ACK, 0, [READER, 2, None, 0], [])
        await rig.host.until(rig.entries)
        rig.actor.receive(READER, Kind.ACK, 0, [READER, 2, None, 0], [])
        await asyncio.sleep(0)
        assert rig.driver.pauses == [True, False]

    on_open_link(job, buffer=2, driver={"overflow": Overflow.BACK_PRESSURE})


def test_closing_acknowledges_what_was_read_and_ends_what_waits() -> None:
    async def go() -> None:
        rig = Rig(driver={"send": never}, interval=1)
        await rig.open()
        rig.read_on()
        rig.driver.sink.deliver([Delivery("a", token="t")])
        rig.actor.receive(
            b"thread", Kind.WRITE, 9, [60_000, True, time.monotonic() + 60, b""], [b"x"]
        )
        await asyncio.sleep(0)
        rig.actor.receive(READER, Kind.ACK, 0, [READER, 1, None, 0], [])
        await rig.actor.close(Ending.CLOSED)
        assert rig.driver.settled == ["t"]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert not [sent for sent in rig.host.mailbox.sent if sent.request_id == 9]

    asyncio.run(go())


async def never(self: Any, data: Any, deadline: Any) -> int:
    await asyncio.Event().wait()
    return 0
