"""A holder is served when the broker has introduced it and it has said START, in either order."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.stream.rig import CONTROL, READER, Rig
from trunkline.actors.stream.buffer import Buffer
from trunkline.actors.stream.handover import Handover
from trunkline.actors.stream.readers import Readers
from trunkline.wire.envelope import Kind, Mark

NEW = b"new name"


class Served:
    """Stands for the serving of the holders: says who was welcomed."""

    def __init__(self) -> None:
        self.welcomed: list[bytes] = []

    def flush_soon(self) -> None:
        pass

    def welcome(self, holder: bytes) -> None:
        self.welcomed.append(holder)


class Known:
    """The holders that the broker has introduced."""

    def __init__(self, *holders: bytes) -> None:
        self.holders = dict.fromkeys(holders, CONTROL)


def readers(*known: bytes, given: Any = ()) -> tuple[Readers, Buffer, Handover, Known, Served]:
    host, buffer, handover, served = Known(*known), Buffer(), Handover(dict(given)), Served()
    return Readers(host, buffer, handover, served), buffer, handover, host, served  # type: ignore[arg-type]


def test_a_known_holder_is_served_at_its_start() -> None:
    made, buffer, *_ = readers(READER)
    made.start(READER, down=False, had=0, envelopes=True)
    assert buffer.holders[READER].envelopes


def test_a_start_that_comes_first_waits_for_the_word_of_the_broker() -> None:
    made, buffer, _, host, _ = readers()
    made.start(READER, down=False, had=0, envelopes=True)
    assert not buffer.holders
    host.holders[READER] = CONTROL
    made.attach(READER, b"", 0, 0, [])
    assert buffer.holders[READER].envelopes


def test_a_holder_that_says_start_again_is_welcomed_again() -> None:
    made, buffer, _, _, served = readers(READER)
    made.start(READER, down=False, had=0, envelopes=False)
    made.start(READER, down=False, had=0, envelopes=False)
    assert served.welcomed == [READER]
    assert list(buffer.holders) == [READER]


def test_a_holder_that_was_here_goes_on_under_its_new_name() -> None:
    made, buffer, handover, host, _ = readers(READER, given={READER: 3})
    made.start(READER, down=False, had=5, envelopes=False)
    host.holders[NEW] = CONTROL
    made.attach(NEW, READER, 4, 0, [])
    assert list(buffer.holders) == [NEW]
    assert buffer.holders[NEW].epoch == 4
    assert (handover.given, handover.settled) == ({NEW: 5}, 2)


def test_a_holder_of_a_former_worker_goes_on_where_it_was() -> None:
    for start_first in (False, True):
        made, buffer, _, host, _ = readers()
        host.holders[NEW] = CONTROL
        if start_first:
            del host.holders[NEW]
            made.start(NEW, down=True, had=9, envelopes=True)
            host.holders[NEW] = CONTROL
            made.attach(NEW, READER, 2, 9, [])
        else:
            made.attach(NEW, READER, 2, 9, [])
            assert not buffer.holders
            made.start(NEW, down=True, had=9, envelopes=True)
        holder = buffer.holders[NEW]
        assert (holder.epoch, holder.consumed, holder.envelopes) == (2, 9, True)


def test_a_holder_that_leaves_is_forgotten_wherever_it_was() -> None:
    made, buffer, handover, host, _ = readers(READER, given={READER: 1})
    made.attach(NEW, READER, 2, 9, [])
    made.detach(NEW, 9)
    host.holders[NEW] = CONTROL
    made.start(NEW, down=False, had=0, envelopes=False)
    assert buffer.holders[NEW].consumed == 0
    made.detach(NEW, None)
    assert (buffer.holders, handover.given) == ({}, {})


def test_an_ask_of_a_holder_whose_start_this_worker_did_not_get_serves_it() -> None:
    async def go() -> None:
        async with Rig() as rig:
            await rig.open()
            rig.driver.sink.message("a")
            rig.actor.receive(READER, Kind.READ, 0, [READER, 1, 0, 0, 0, True, False, 0, False], [])
            # It does not say what it takes the link for, so it is told.
            assert rig.entries() == [Mark.UP, "a"]
            rig.actor.attach(NEW, CONTROL, READER, 1, 2, [])
            rig.actor.detach(NEW, 2)
            assert rig.actor.stats().read == 1

    asyncio.run(go())
