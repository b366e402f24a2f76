"""Writes and requests: their answers, their counts, and the error where the link or the time is over."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.unit.stream.rig import Rig, Sent
from trunkline.actors.driver import Delivery, PeerClosed
from trunkline.actors.stream.outbound import Outbound
from trunkline.errors import RefusedError
from trunkline.wire import values
from trunkline.wire.envelope import Kind
from trunkline.wire.outgoing import Outgoing

LONG_MS = 10_000


def on_open_link(job: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    async def go() -> None:
        async with Rig(**options) as rig:
            await rig.open()
            assert any(isinstance(part, Outbound) for part in vars(rig.actor).values())
            await job(rig)

    asyncio.run(go())


async def write(
    rig: Rig, data: bytes, *, ms: float = LONG_MS, text: bool = True, addressed: bytes = b""
) -> Sent:
    return await rig.answer(
        Kind.WRITE, ms, text, time.monotonic() + ms / 1000, addressed, body=data
    )


def error_of(sent: Sent) -> str:
    assert sent.kind is Kind.ERROR, sent
    return str(sent.fields)


def taken(sent: Sent) -> object:
    assert sent.kind is Kind.REPLY, sent
    return values.unpack(sent.body[0])


def test_a_write_is_answered_with_the_bytes_taken_in_a_task_or_at_once() -> None:
    for waits in (True, False):

        async def job(rig: Rig) -> None:
            assert taken(await write(rig, "€".encode())) == 1
            assert taken(await write(rig, b"ab", text=False)) == 2
            assert rig.driver.sent == ["€", b"ab"]
            stats = rig.actor.stats()
            assert (stats.messages_out, stats.bytes_out) == (2, 3)

        on_open_link(job, driver={"waits": waits})


def test_a_broken_link_is_told_in_words_in_a_task_or_at_once() -> None:
    for waits in (True, False):

        async def job(rig: Rig) -> None:
            assert "the link to ws://peer:1 broke: Broken pipe" in error_of(await write(rig, b"a"))

        on_open_link(job, driver={"waits": waits, "takes": BrokenPipeError(32, "Broken pipe")})


def test_an_error_of_the_driver_reaches_the_caller_as_it_is() -> None:
    for waits in (True, False):

        async def job(rig: Rig) -> None:
            assert "RefusedError" in error_of(await write(rig, b"a"))

        on_open_link(job, driver={"waits": waits, "takes": RefusedError("too large")})


def test_data_that_is_no_text_is_the_callers_error() -> None:
    async def job(rig: Rig) -> None:
        error_of(await write(rig, b"\xff", text=True))
        assert rig.driver.sent == []

    on_open_link(job, driver={"waits": False})


def test_without_a_link_nothing_is_written_and_the_cause_is_told() -> None:
    async def job(rig: Rig) -> None:
        rig.driver.sink.lost(PeerClosed(1001, "bye"))
        await rig.host.until(lambda: "lost" in rig.host.states)
        told = error_of(await write(rig, b"a"))
        assert "is down; nothing was written: closed by the peer: 1001 bye" in told
        assert "is down; nothing was asked" in error_of(
            await rig.answer(Kind.REQUEST, LONG_MS, True, time.monotonic() + 10, body=b"q")
        )

    on_open_link(job, reconnect=False)


def test_a_write_that_came_too_late_is_not_made() -> None:
    async def job(rig: Rig) -> None:
        assert "longer on its way to the worker" in error_of(await write(rig, b"a", ms=0))
        assert rig.driver.sent == []

    on_open_link(job, driver={"waits": False})


def test_data_that_the_driver_does_not_take_in_time_has_no_half_answer() -> None:
    async def job(rig: Rig) -> None:
        assert "did not take the data in the time allowed" in error_of(
            await write(rig, b"a", ms=50)
        )
        assert rig.actor.stats().messages_out == 0

    on_open_link(job, driver={"takes": 0})


def test_a_write_without_a_turn_in_its_time_is_not_made() -> None:
    async def job(rig: Rig) -> None:
        assert taken(await write(rig, b"a")) == 1
        assert "no turn came in the time allowed: limit=1/m" in error_of(
            await write(rig, b"b", ms=20)
        )
        assert rig.driver.sent == ["a"]

    on_open_link(job, limit="1/m")


def test_a_compressed_write_counts_what_the_caller_gave() -> None:
    async def job(rig: Rig) -> None:
        data = b"x" * 1000
        assert taken(await write(rig, data)) == 1000
        assert gzip.decompress(rig.driver.sent[0]) == data
        assert rig.actor.stats().bytes_out == 1000

    on_open_link(job, compress="gzip", mode="send")


def test_an_address_that_the_scheme_has_no_place_for_is_refused() -> None:
    async def job(rig: Rig) -> None:
        packed = Outgoing(topic="t", null=True).pack()
        told = error_of(await write(rig, b"a", addressed=packed))
        assert (
            "ws:// writes no message with no value (None), topic of its own: say it in the address"
            in told
        )

    on_open_link(job)


def test_a_request_gives_the_answer_in_the_form_that_was_asked_for() -> None:
    async def job(rig: Rig) -> None:
        sent = await rig.answer(Kind.REQUEST, LONG_MS, True, time.monotonic() + 10, body=b"q")
        assert taken(sent) == b"answer to 'q'"
        assert rig.actor.stats().messages_out == 1

    on_open_link(job, decode="bytes")


def test_an_answer_that_cannot_be_unpacked_is_an_error() -> None:
    async def answer(self: Any, data: Any, deadline: Any) -> Delivery:
        return Delivery(gzip.compress(b"x" * 100)[:-9])

    async def job(rig: Rig) -> None:
        told = error_of(
            await rig.answer(Kind.REQUEST, LONG_MS, True, time.monotonic() + 10, body=b"q")
        )
        assert "could not be decompressed" in told

    on_open_link(job, compress="gzip", driver={"request": answer})


def test_a_driver_that_takes_for_ever_does_not_hold_up_its_caller() -> None:
    async def wait(self: Any, data: Any, deadline: Any) -> int:
        await asyncio.Event().wait()
        return 0

    async def job(rig: Rig) -> None:
        assert "did not take the data" in error_of(await write(rig, b"a", ms=10))

    on_open_link(job, driver={"send": wait})
