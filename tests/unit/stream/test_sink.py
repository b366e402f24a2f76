"""Early arrivals wait in their order, within the limits of the buffer, until the link counts as open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.unit.stream.rig import Rig
from trunkline.actors.driver import Delivery, Overflow
from trunkline.actors.stream.sink import LinkSink


def admitted(early: Callable[[Any], object], **options: Any) -> Rig:
    """An actor with an open link, whose driver has put something into its sink before."""

    async def go() -> Rig:
        async with Rig(early, **options) as rig:
            rig.read_on()
            await rig.open()
            assert isinstance(rig.driver.sink, LinkSink)
            await rig.host.until(lambda: not rig.actor.stats().queued)
            return rig

    return asyncio.run(go())


def test_messages_with_and_without_envelopes_keep_their_order() -> None:
    def early(driver: Any) -> None:
        driver.sink.message("1")
        driver.sink.deliver([Delivery("2", topic="t"), Delivery("3")])
        driver.sink.messages(["4", "5"])

    assert admitted(early).entries() == ["1", "2", "3", "4", "5"]


def test_the_oldest_messages_are_dropped_and_counted() -> None:
    rig = admitted(lambda driver: driver.sink.messages(["1", "2", "3"]), buffer=2)
    assert rig.entries() == ["2", "3"]
    stats = rig.actor.stats()
    assert (stats.messages_in, stats.dropped) == (3, 1)
    assert "1 message was dropped, 1 in all (the reader is too slow" in rig.host.lines[0]


def test_a_peer_that_can_wait_is_paused_and_resumed() -> None:
    rig = admitted(
        lambda driver: driver.sink.messages(["1", "2", "3"]),
        buffer=4,
        driver={"overflow": Overflow.BACK_PRESSURE},
    )
    assert rig.driver.pauses == []
    rig = admitted(
        lambda driver: driver.sink.messages(["1", "2", "3", "4"]),
        buffer=4,
        driver={"overflow": Overflow.BACK_PRESSURE},
    )
    assert rig.driver.pauses[0] is True
    assert rig.entries() == ["1", "2", "3", "4"]


def test_messages_lost_elsewhere_are_counted_as_dropped() -> None:
    rig = admitted(lambda driver: driver.sink.dropped(3))
    stats = rig.actor.stats()
    assert (stats.messages_in, stats.dropped) == (3, 3)
    assert "(they were lost before they could be buffered)" in rig.host.lines[0]


def test_a_warning_is_written_once_in_a_while() -> None:
    def early(driver: Any) -> None:
        driver.sink.warn("the topic has vanished")
        driver.sink.warn("the topic has vanished")
        driver.sink.warn("the topic is there again")

    rig = admitted(early)
    assert rig.host.lines == [
        "warning: the topic has vanished",
        "warning: the topic is there again",
    ]
    assert rig.actor.stats().last_error == "the topic is there again"
