"""The ledger and `stats()` tell the same, and both go on from the figures of the workers before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.stream.rig import READER, Rig
from trunkline.actors.driver import Delivery
from trunkline.actors.stream.figures import Counters, Figures
from trunkline.wire.envelope import Kind
from trunkline.wire.ledger import COUNTERS, read_ledger
from trunkline.wire.stats import Stats

BASE = Stats(
    **{
        name: 10 * number
        for number, name in enumerate(COUNTERS, 1)
        if name not in ("queued", "buffered")
    }
)


def test_counters_go_on_with_the_last_words_of_the_workers_before() -> None:
    counters = Counters(Stats(last_error="x", last_message_at=3.0, messages_out=9))
    assert (counters.last_error, counters.last_message_at, counters.messages_out) == ("x", 3.0, 0)


def check(path: Path, *, comes_again: bool) -> tuple[Stats, dict[bytes, int]]:
    async def go() -> tuple[Stats, dict[bytes, int]]:
        again = classmethod(lambda cls, address: comes_again)
        async with Rig(
            ledger=path,
            base=BASE,
            succeeds=True,
            former={READER: 100},
            driver={"redelivers": again},
            interval=1,
        ) as rig:
            assert [type(part) for part in vars(rig.actor).values()].count(Figures) == 1
            await rig.open()
            await rig.host.until(lambda: rig.host.states)
            rig.actor.start(READER, down=True, had=103, envelopes=False)
            rig.driver.sink.messages(["abc", "de"])
            rig.driver.sink.deliver([Delivery("f", redelivered=True)])
            rig.driver.sink.dropped(4)
            rig.actor.receive(READER, Kind.ACK, 0, [READER, 2, None, 0], [])
            rig.actor.note()
            entry = read_ledger(path)
            assert entry is not None
            stats = rig.actor.stats()
            assert entry.counters == {name: getattr(stats, name) for name in COUNTERS}
            assert entry.incarnation == stats.incarnation == 2
            return stats, entry.holders

    return asyncio.run(go())


def test_the_ledger_is_the_counters_of_the_figures(tmp_path: Path) -> None:
    stats, holders = check(tmp_path / "ledger", comes_again=False)
    assert stats.messages_in == BASE.messages_in + 3 + 4
    assert stats.bytes_in == BASE.bytes_in + 6
    assert stats.redelivered == BASE.redelivered + 1
    assert stats.reconnects == BASE.reconnects + 1
    assert holders == {READER: 103 + 3}


def test_what_a_holder_had_after_all_was_not_dropped(tmp_path: Path) -> None:
    stats, _ = check(tmp_path / "ledger", comes_again=False)
    assert stats.dropped == BASE.dropped + 4 - 3
    assert stats.returned == BASE.returned


def test_what_a_holder_had_after_all_does_not_come_again(tmp_path: Path) -> None:
    stats, _ = check(tmp_path / "ledger", comes_again=True)
    assert stats.dropped == BASE.dropped + 4
    assert stats.returned == BASE.returned - 3


def test_the_bequest_stays_when_the_link_or_the_driver_cannot_tell_it() -> None:
    async def go() -> None:
        async with Rig(reconnect=False) as rig:
            assert rig.actor.bequest() == {}
            await rig.open()
            assert rig.actor.bequest() == {"link": 1}
            rig.driver.bequeath = lambda: 1 // 0  # type: ignore[method-assign, assignment, return-value]
            assert rig.actor.bequest() == {"link": 1}
            rig.driver.sink.lost(None)
            await rig.host.until(lambda: "lost" in rig.host.states)
            assert rig.actor.bequest() == {"link": 1}

    asyncio.run(go())
