"""When a worker takes its broker for lost, and when it ends without one."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from trunkline.actors.process.contact import (
    BEAT_S,
    FORSAKEN_S,
    MISSED_BEATS,
    ORPHAN_S,
    BrokerWatch,
    Contact,
)

NOW = 1000.0


class TestContact:
    def test_a_broker_that_answers_is_not_silent(self) -> None:
        contact = Contact(NOW)
        assert not contact.is_silent(NOW + BEAT_S * (MISSED_BEATS + 1))
        assert contact.is_silent(NOW + BEAT_S * (MISSED_BEATS + 1) + 0.01)
        contact.hear(NOW + 4.0)
        assert not contact.is_silent(NOW + 8.0)

    def test_a_loss_is_told_once(self) -> None:
        contact = Contact(NOW)
        assert contact.lose(NOW + 1)
        assert not contact.lose(NOW + 2)
        assert contact.is_lost
        assert not contact.is_silent(NOW + 100)  # it is lost, and is not lost once more

    def test_another_broker_ends_the_loss(self) -> None:
        contact = Contact(NOW)
        contact.lose(NOW)
        contact.hear(NOW + 5)
        assert not contact.is_lost
        assert not contact.has_waited_long_enough(NOW + 500, may_come_back=False)
        assert contact.lose(NOW + 6)

    @pytest.mark.parametrize(("may_come_back", "limit_s"), [(False, ORPHAN_S), (True, FORSAKEN_S)])
    def test_the_wait_for_another_broker_has_an_end(
        self, may_come_back: bool, limit_s: float
    ) -> None:
        contact = Contact(NOW)
        assert not contact.has_waited_long_enough(NOW + 500, may_come_back)
        contact.lose(NOW)
        assert not contact.has_waited_long_enough(NOW + limit_s, may_come_back)
        assert contact.has_waited_long_enough(NOW + limit_s + 0.01, may_come_back)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no pidfd")
class TestBrokerWatch:
    def test_it_tells_the_end_of_the_process_that_it_watches_now(self) -> None:
        async def body(first: subprocess.Popen[bytes], second: subprocess.Popen[bytes]) -> None:
            ended = asyncio.Event()
            watch = BrokerWatch(asyncio.get_running_loop(), ended.set)
            watch.watch(first.pid)
            watch.watch(second.pid)
            first.kill()
            await asyncio.to_thread(first.wait, 10)
            assert not ended.is_set()
            second.kill()
            await asyncio.wait_for(ended.wait(), 10)
            watch.stop()

        with (
            subprocess.Popen(["sleep", "60"]) as first,
            subprocess.Popen(["sleep", "60"]) as second,
        ):
            try:
                asyncio.run(body(first, second))
            finally:
                first.kill()
                second.kill()

    def test_a_process_that_has_ended_before_is_told_at_once(self) -> None:
        async def body() -> None:
            ended = asyncio.Event()
            watch = BrokerWatch(asyncio.get_running_loop(), ended.set)
            watch.watch(process.pid)
            await asyncio.wait_for(ended.wait(), 10)
            watch.stop()
            watch.stop()

        with subprocess.Popen(["true"]) as process:
            process.wait(10)
        asyncio.run(body())
