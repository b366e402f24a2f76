"""The link as the actor keeps it: what the driver, the readers and the log are told, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.stream.rig import Rig
from trunkline.actors.driver import Delivery, Ending, FatalError, PeerClosed
from trunkline.actors.stream.keeper import LinkKeeper
from trunkline.errors import DialError, DialTimeout
from trunkline.wire.envelope import Kind, Mark

QUICK = {"reconnect": True, "interval": 1, "maxInterval": 1}


def run(job: Any) -> None:
    asyncio.run(job)


def test_an_actor_has_one_keeper() -> None:
    async def check() -> None:
        async with Rig() as rig:
            assert [type(part) for part in vars(rig.actor).values()].count(LinkKeeper) == 1

    run(check())


def test_the_first_link_is_told_when_it_is_open_and_ended_at_close() -> None:
    async def check() -> None:
        rig = Rig()
        assert rig.actor.stats().state == "dialing"
        await rig.open()
        assert rig.host.states == ["open"]
        assert (rig.driver.had_link, rig.driver.inherited) == (False, {})
        assert rig.actor.stats().opened_at > 0
        await rig.actor.close(Ending.ABANDONED)
        assert rig.driver.endings == [Ending.ABANDONED]
        assert (rig.actor.stats().state, rig.host.lines) == ("closed", [])

    run(check())


def test_a_first_attempt_that_fails_is_raised_in_words_and_not_made_again() -> None:
    async def check() -> None:
        async with Rig(ConnectionRefusedError(111, "Connection refused"), **QUICK) as rig:
            with pytest.raises(DialError, match=r"peer.* could not be opened: Connection refused"):
                await rig.open()
            assert len(rig.drivers.made) == 1
            assert rig.driver.endings == [Ending.LOST]
            assert "Connection refused" in (rig.actor.stats().last_error or "")
            assert rig.host.states == [], "the worker tells of a failed dial itself"
        assert rig.actor.stats().state == "failed"

    run(check())


def test_a_lost_link_is_told_once_and_replaced() -> None:
    async def check() -> None:
        async with Rig(None, OSError(113, "No route to host"), **QUICK) as rig:
            rig.read_on()
            await rig.open()
            first = rig.driver
            first.sink.message("before")
            first.sink.lost(PeerClosed(1001, "bye"))
            first.sink.lost(OSError("told twice"))
            await rig.host.until(lambda: "is there again" in str(rig.host.lines))
            rig.driver.sink.message("after")
            first.sink.message("too late")
            assert rig.host.states == ["open", "down", "open"]
            lost, failed, again = rig.host.lines
            assert "was lost (closed by the peer: 1001 bye); reconnecting" in lost
            assert "could not be opened: No route to host; the next attempt is in" in failed
            assert "is there again after 0." in again
            assert first.endings == [Ending.LOST]
            assert [driver.had_link for driver in rig.drivers.made] == [False, True, True]
            stats = rig.actor.stats()
            assert (stats.outages, stats.reconnects, stats.messages_in) == (1, 1, 2)
            await rig.host.until(lambda: "after" in rig.entries())
            assert rig.entries() == ["before", Mark.DOWN, Mark.UP, "after"]

    run(check())


def test_without_reconnect_the_loss_is_the_end_and_stays_to_be_seen() -> None:
    async def check() -> None:
        rig = Rig(reconnect=False)
        await rig.open()
        rig.driver.sink.lost(None)
        await rig.host.until(lambda: rig.host.lines)
        assert "(closed by the peer); dial again, or give reconnect=true" in rig.host.lines[0]
        await rig.actor.close(Ending.CLOSED)
        assert rig.host.states == ["open", "lost"]
        assert rig.actor.stats().state == "lost"
        assert rig.driver.endings in ([], [Ending.LOST])

    run(check())


def test_after_enough_failures_the_link_is_given_up() -> None:
    async def check() -> None:
        failure = OSError(113, "No route to host")
        async with Rig(None, failure, failure, retry=2, **QUICK) as rig:
            rig.read_on()
            await rig.open()
            rig.driver.sink.lost(PeerClosed(4000, "go"))
            await rig.host.until(lambda: "is given up" in str(rig.host.lines))
            assert rig.host.states == ["open", "down", "failed"]
            assert "2 attempts in a row have failed" in rig.host.lines[-1]
            await rig.host.until(lambda: int(Mark.END) in rig.entries())
            push = [sent for sent in rig.host.mailbox.sent if sent.kind is Kind.PUSH][-1]
            assert str(push.fields).count("4000") == 1, "the code of the loss stands beside its end"
            assert len(rig.drivers.made) == 3

    run(check())


def test_a_worker_that_replaces_another_dials_until_it_has_a_link() -> None:
    async def check() -> None:
        refusals = [OSError(111, "Connection refused"), FatalError("HTTP 403")]
        async with Rig(*refusals, succeeds=True, **QUICK) as rig:
            assert rig.actor.stats().state == "down"
            await rig.open()
            await rig.host.until(lambda: rig.host.states)
            assert rig.host.states == ["open"]
            assert {driver.had_link for driver in rig.drivers.made} == {True}
            assert rig.driver.inherited == {"from": "before"}
            assert rig.actor.bequest() == {"link": 3}

    run(check())


def test_closing_stops_the_attempts() -> None:
    async def check() -> None:
        rig = Rig(*[OSError(113, "No route to host")] * 100, succeeds=True, **QUICK)
        await rig.open()
        await rig.host.until(lambda: rig.host.lines)
        await rig.actor.close(Ending.CLOSED)
        made = len(rig.drivers.made)
        await asyncio.sleep(0.02)  # several waits of 1 ms
        assert len(rig.drivers.made) == made
        assert rig.actor.stats().state == "closed"

    run(check())


def test_payloads_go_out_before_the_link_counts_as_open_and_answers_wait_until_then() -> None:
    async def check() -> None:
        states: list[str] = []

        async with Rig(lambda driver: driver.sink.message("hello"), payload=["a", "b"]) as rig:
            rig.read_on()
            rig.host.state = lambda: states.append(str(rig.driver.sent)) or ""
            await rig.open()
            assert states == ["['a', 'b']"]
            await rig.host.until(rig.entries)
            assert rig.entries() == ["hello"]
            assert rig.actor.stats().messages_out == 2

    run(check())


def test_a_payload_that_is_not_taken_fails_the_attempt() -> None:
    async def check() -> None:
        async with Rig(payload=["a"], driver={"takes": 0}) as rig:
            with pytest.raises(DialTimeout, match="did not take the payload within 10 s"):
                await rig.open()

    run(check())


def test_what_the_peer_says_before_it_refuses_is_in_the_error_of_the_first_attempt() -> None:
    async def check() -> None:
        def refuse(driver: Any) -> None:
            driver.sink.message("too many sessions\nmore")
            raise ConnectionResetError(104, "reset")

        async with Rig(refuse) as rig:
            with pytest.raises(DialError, match=r"reset; it said last: too many sessions$"):
                await rig.open()
            assert rig.actor.stats().messages_in == 0

    run(check())


def test_what_the_peer_says_before_it_refuses_again_is_read() -> None:
    async def check() -> None:
        def refuse(driver: Any) -> None:
            driver.sink.message("maintenance")
            driver.sink.deliver([Delivery("comes again", token=1), Delivery("comes once")])
            raise ConnectionResetError(104, "reset")

        async with Rig(None, refuse, **QUICK) as rig:
            rig.read_on()
            await rig.open()
            rig.driver.sink.lost(None)
            await rig.host.until(lambda: "is there again" in str(rig.host.lines))
            await rig.host.until(lambda: int(Mark.UP) in rig.entries())
            assert rig.entries() == [Mark.DOWN, "maintenance", "comes once", Mark.UP]

    run(check())
