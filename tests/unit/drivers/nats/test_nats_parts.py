"""Small parts of the driver without a server: waiting calls, rights, bytes from the server, jobs, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest

from trunkline.actors.drivers.nats.core_reader import earlier_topics
from trunkline.actors.drivers.nats.errors import is_login_error, is_violation, jetstream_right, said
from trunkline.actors.drivers.nats.incoming import Incoming
from trunkline.actors.drivers.nats.jobs import Jobs
from trunkline.actors.drivers.nats.plan import plan_of
from trunkline.actors.drivers.nats.rights import PublishRights
from trunkline.actors.drivers.nats.waits import Waits
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import RefusedError

# waiting calls


async def _wait(waits: Waits, seconds: float | None, subject: str = "") -> None:
    async with waits.until_answered(Deadline(seconds), subject):
        await asyncio.Event().wait()


def test_a_call_without_an_answer_ends_at_its_deadline() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            await _wait(Waits(), 0.01)

    asyncio.run(body())


def test_the_end_of_the_link_ends_all_calls_with_its_reason() -> None:
    async def body() -> None:
        waits = Waits()
        calls = [asyncio.create_task(_wait(waits, None, subject)) for subject in ("a", "")]
        await asyncio.sleep(0)
        waits.end(ConnectionError("gone"))
        for call in calls:
            with pytest.raises(ConnectionError, match="gone"):
                await call

    asyncio.run(body())


def test_a_refused_subject_ends_the_calls_that_published_to_it() -> None:
    async def body() -> None:
        waits = Waits()
        one, other = (asyncio.create_task(_wait(waits, None, subject)) for subject in ("a", "b"))
        await asyncio.sleep(0)
        waits.end(RefusedError("not there"), "a")
        with pytest.raises(RefusedError, match="not there"):
            await one
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other

    asyncio.run(body())


# rights


def test_the_own_subject_is_allowed_after_a_check() -> None:
    rights = PublishRights("Orders.new")
    rights.begin_check("Orders.new")
    assert rights.is_checking("orders.new")
    assert not rights.is_own_allowed
    assert rights.end_check("Orders.new") is None
    rights.note_own_allowed("another")
    assert not rights.is_own_allowed
    rights.note_own_allowed("Orders.new")
    assert rights.is_own_allowed


def test_a_refusal_belongs_to_the_check_that_is_under_way() -> None:
    rights = PublishRights("a")
    rights.note_refused("b", "an old word")
    rights.begin_check("B")
    rights.note_refused("b", "not allowed")
    assert rights.end_check("B") == "not allowed"
    assert rights.end_check("B") is None
    rights.note_refused("b", "an old word")
    rights.begin_check("b")
    assert rights.end_check("b") is None


def test_a_refusal_takes_back_what_was_known() -> None:
    rights = PublishRights("a")
    rights.note_own_allowed("a")
    rights.note_allowed("b")
    assert rights.is_known("b")
    rights.withdraw("b")
    assert not rights.is_known("b")
    assert not rights.is_own_allowed


def test_which_subjects_the_program_writes_to() -> None:
    rights = PublishRights("Mine")
    rights.begin_check("$JS.API.x")
    assert rights.is_writers("mine")
    assert rights.is_writers("$js.api.x")
    assert not rights.is_writers("$js.api.y")
    assert not PublishRights(None).is_writers("mine")


# bytes from the server


def test_lines_and_bytes_come_as_they_were_sent() -> None:
    async def body() -> None:
        incoming = Incoming()
        incoming.add(b"INFO {}\r\nPING")
        assert await incoming.readline() == b"INFO {}\r\n"
        reading = asyncio.create_task(incoming.readline())
        await asyncio.sleep(0)
        assert not reading.done()
        incoming.add(b"\r\nMSG")
        assert await reading == b"PING\r\n"
        assert await incoming.read() == b"MSG"
        assert incoming.count == len(b"INFO {}\r\nPING\r\nMSG")

    asyncio.run(body())


def test_the_end_gives_what_is_left() -> None:
    async def body() -> None:
        incoming = Incoming()
        reading = asyncio.create_task(incoming.readline())
        await asyncio.sleep(0)
        incoming.add(b"half a li")
        incoming.end()
        assert await reading == b"half a li"
        assert incoming.is_at_end
        assert await incoming.read() == b""

    asyncio.run(body())


def test_what_is_left_unread_has_a_limit() -> None:
    async def body() -> None:
        incoming = Incoming()
        incoming.add(b"x" * ((1 << 20) + 1))
        assert incoming.is_full
        assert len(await incoming.readline()) == (1 << 20) + 1, "a line without an end"
        assert not incoming.is_full
        incoming.add(b"y")
        incoming.clear()
        incoming.end()
        assert incoming.is_at_end

    asyncio.run(body())


# jobs


def test_jobs_run_in_order_and_a_lost_link_is_no_failure() -> None:
    async def body() -> None:
        failures: list[BaseException] = []
        jobs, done = Jobs(failures.append), []

        async def first() -> None:
            await asyncio.sleep(0)
            done.append("first")
            raise nats.errors.ConnectionClosedError

        async def second() -> None:
            done.append("second")

        async def broken() -> None:
            raise RuntimeError("unforeseen")

        jobs.run()
        jobs.run(first, second)
        jobs.run(broken)
        await jobs.wait(5)
        await asyncio.sleep(0)
        assert done == ["first", "second"]
        assert [str(each) for each in failures] == ["unforeseen"]

    asyncio.run(body())


def test_jobs_that_are_given_up_are_cancelled() -> None:
    async def body() -> None:
        jobs, ended = Jobs(pytest.fail), asyncio.Event()

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        jobs.run(waits)
        await jobs.wait(0.01)
        jobs.cancel()
        await ended.wait()
        await asyncio.sleep(0)

    asyncio.run(body())


# errors and topics


@pytest.mark.parametrize(
    ("text", "login", "violation"),
    [
        ("nats: 'Authorization Violation'", True, False),
        ("nats: authentication error - no creds", True, False),
        ("nats: 'Permissions Violation for Publish to \"a\"'", False, True),
        ("nats: 'Stale Connection'", False, False),
    ],
)
def test_the_servers_words_are_sorted(text: str, login: bool, violation: bool) -> None:
    error = nats.errors.Error(text)
    assert (is_login_error(said(error)), is_violation(error)) == (login, violation)


def test_a_right_is_named_as_it_is_given() -> None:
    assert jetstream_right("$js.ack.orders.reader.1.2.3.4.5") == "$JS.ACK.>"
    assert jetstream_right("$js.api.consumer.msg.next.s.c") == "$JS.API.CONSUMER.MSG.NEXT.>"


def test_topics_that_meet_are_known_by_their_subscription() -> None:
    def found(query: str) -> dict[int, list[str]]:
        address: Any = parse_address(f"nats://host?topic={query}", {})
        return earlier_topics(plan_of(address))

    assert found("a.*,b,a.b") == {3: ["a.*"]}
    assert found("a,b") == {}
    assert found("a.*,a.b&queue=q") == {}
