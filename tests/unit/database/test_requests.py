"""From a request to a job, on either thread."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.database.scripted import HOLDER, OTHER, Script, hosting, run
from trunkline.actors.database.requests import Requests
from trunkline.wire import messages, values
from trunkline.wire.envelope import Kind, header


class Socket:
    name = b"direct-1"


def plain(**changes: Any) -> bytes:
    """The header of an EXEC that the driver thread may run."""
    return header(Kind.EXEC, 7, *messages.Statement(HOLDER, None, None, None)._replace(**changes))


def body_of(sql: str = "SELECT 1") -> bytes:
    return values.pack([sql, [1]])


def test_a_job_has_the_time_of_its_request_or_of_the_option() -> None:
    async def body() -> None:
        async with hosting(Script(), options={"timeout": 50}) as host:
            job = host.actor.requests.make_job(b"sender", 1, 60_000, what="fetch")
            assert 30 < job.deadline.left() <= 60
            assert abs(job.dials_until.at - job.deadline.at) < 5
            unlimited = host.actor.requests.make_job(b"sender", 1, None)
            assert unlimited.deadline.timeout() is None
            assert 30 < unlimited.dials_until.left() <= 50

    run(body())


def test_the_time_that_is_left_is_known_where_both_clocks_are() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            requests: Requests = host.actor.requests
            host.worker.mailbox.left_ms = lambda timeout_ms, until: until  # type: ignore[method-assign]
            assert requests.left_ms(500, None) == 500
            assert requests.left_ms(None, 7) is None
            assert requests.left_ms(500, 7) == 7

    run(body())


def test_the_driver_thread_reads_a_plain_statement() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            client: Any = Socket()
            waiting = host.actor.requests.read_plain_exec(client, plain(), body_of())
            assert waiting is not None
            assert (waiting.holder, waiting.token) == (HOLDER, None)
            job = waiting.job
            assert (job.sender, job.request_id, job.client, job.what) == (
                client.name,
                7,
                client,
                "exec",
            )
            driver = host.actor.link.driver
            assert driver is not None
            answer = values.unpack(await host.actor.thread.call(lambda: job.run(driver)))
            assert answer["values"] == [["SELECT 1"]]

    run(body())


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (header(Kind.STATS, 7), b""),
        (header(Kind.EXEC, 7, HOLDER), body_of()),
        (header(Kind.QUERY, 7, *messages.Statement(HOLDER, None, None, None)), body_of()),
        (plain(transaction=b"token"), body_of()),
        (plain(timeout_ms=1000, until=1), body_of()),
        (plain(), b""),
        (plain(), values.pack(["SELECT 1"])),
        (plain(), values.pack([7, []])),
        (plain(), body_of("BEGIN")),
        (b"", b""),
        (b"no header at all", body_of()),
    ],
)
def test_every_other_request_is_left_to_the_event_loop(head: bytes, body: bytes) -> None:
    async def read() -> None:
        async with hosting(Script()) as host:
            client: Any = Socket()
            assert host.actor.requests.read_plain_exec(client, head, body) is None

    run(read())


def test_a_connection_is_shared_by_its_holders_its_handle_or_a_link_apart() -> None:
    async def body() -> None:
        async with hosting(Script()) as host:
            refusal = host.actor.requests.find_refusal
            assert refusal("BEGIN", HOLDER, None) is not None
            del host.worker.holders[OTHER]
            assert refusal("BEGIN", HOLDER, None) is None
            assert refusal("BEGIN", HOLDER, None, is_apart=True) is not None
            host.worker.record["handle"] = 5
            assert refusal("BEGIN", HOLDER, None) is not None
            assert refusal("SELECT 1", HOLDER, b"token that is over") is not None

    run(body())
