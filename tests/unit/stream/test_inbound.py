"""What comes over a link is unpacked and decoded as the options say, and known again when it comes twice."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

from tests.unit.stream.rig import READER, Rig
from trunkline.actors.driver import Delivery
from trunkline.actors.stream.inbound import TORN_CHARACTER_S
from trunkline.wire.envelope import Kind, Mark

EURO = "€".encode()
QUICK = {"reconnect": True, "interval": 1, "maxInterval": 1}


def arrived(*batches: list[str | bytes], byte_stream: bool = False, **options: Any) -> list[Any]:
    """What a reader gets of these batches."""

    async def go() -> list[Any]:
        async with Rig(driver={"byte_stream": byte_stream}, **options) as rig:
            rig.read_on()
            await rig.open()
            for batch in batches:
                rig.driver.sink.messages(batch)
            return rig.entries()

    return asyncio.run(go())


def test_whole_messages_are_text_where_they_can_be() -> None:
    assert arrived([b"a", b"\xff"], ["c"], [b"d"]) == ["a", b"\xff", "c", "d"]


def test_decode_bytes_and_decode_text_make_all_messages_one_kind() -> None:
    assert arrived([b"a", "b"], decode="bytes") == [b"a", b"b"]
    assert arrived([b"a\xff", "b"], decode="text") == ["a�", "b"]


def test_a_character_of_a_byte_stream_may_be_split_between_two_chunks() -> None:
    for decode in ("auto", "text"):
        got = arrived([b"1" + EURO[:1]], [EURO[1:] + b"2"], byte_stream=True, decode=decode)
        assert got == ["1", "€2"]


def test_the_beginning_of_a_character_is_handed_over_when_its_rest_does_not_come() -> None:
    async def go() -> None:
        async with Rig(driver={"byte_stream": True}) as rig:
            rig.read_on()
            await rig.open()
            rig.driver.sink.message(EURO[:2])
            began = rig.host.loop.time()
            await rig.host.until(rig.entries)
            assert rig.entries() == [EURO[:2]]
            assert rig.host.loop.time() - began >= TORN_CHARACTER_S * 0.9

    asyncio.run(go())


def test_the_beginning_of_a_character_is_handed_over_when_the_link_ends() -> None:
    async def go() -> None:
        async with Rig(driver={"byte_stream": True}, **QUICK) as rig:
            rig.read_on()
            await rig.open()
            rig.driver.sink.message(EURO[:2])
            rig.driver.sink.lost(None)
            await rig.host.until(lambda: int(Mark.UP) in rig.entries())
            assert rig.entries() == [EURO[:2], Mark.DOWN, Mark.UP]

    asyncio.run(go())


def test_compressed_messages_are_unpacked_and_broken_ones_counted() -> None:
    async def go() -> None:
        async with Rig(compress="gzip") as rig:
            rig.read_on()
            await rig.open()
            broken = gzip.compress(b"x" * 100)[:-9]
            rig.driver.sink.messages([gzip.compress(b"a"), broken, "b"])
            rig.driver.sink.deliver(
                [
                    Delivery(broken, token=1),
                    Delivery(broken),
                    Delivery(gzip.compress(b"c"), token=2),
                ]
            )
            assert rig.entries() == ["a", "b", "c"]
            assert rig.driver.settled == [1], (
                "a message that cannot be unpacked must not come again"
            )
            stats = rig.actor.stats()
            assert (stats.errors, stats.messages_in) == (3, 3)
            assert "was discarded" in rig.host.lines[0]

    asyncio.run(go())


def test_a_message_that_comes_again_over_the_next_link_is_known() -> None:
    async def go() -> None:
        async with Rig(**QUICK) as rig:
            rig.read_on()
            await rig.open()
            first = [Delivery(text, token=text, identity=text) for text in ("read", "unread")]
            rig.driver.sink.deliver(first)
            rig.driver.sink.lost(None)
            await rig.host.until(lambda: "is there again" in str(rig.host.lines))
            # The reader has the first message, and says so when the link that gave it is gone.
            rig.actor.receive(READER, Kind.ACK, 0, [READER, 1, None, 0], [])
            again = [each._replace(redelivered=True, token=f"{each.data} again") for each in first]
            rig.driver.sink.deliver(
                [*again, Delivery("new", token="new", redelivered=True, identity="new")]
            )
            assert rig.driver.settled == ["read again"]
            assert rig.entries() == ["read", "unread", Mark.DOWN, Mark.UP, "new"]
            rig.actor.receive(READER, Kind.ACK, 0, [READER, 5, None, 0], [])
            await rig.host.loop.run_in_executor(None, lambda: None)
            assert rig.driver.settled == ["read again", "unread again", "new"]
            assert rig.drivers.made[0].settled == [], "tokens of a lost link mean nothing"
            stats = rig.actor.stats()
            assert (stats.messages_in, stats.read, stats.redelivered) == (3, 3, 1)

    asyncio.run(go())
