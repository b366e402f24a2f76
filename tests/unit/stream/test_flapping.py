"""The common pace of links that flap."""

from __future__ import annotations

import math
import os
import struct

import pytest

from trunkline.actors.net.backoff import STABLE_S
from trunkline.actors.stream.flapping import FREE, MOST_S, Flapping, Turns


def test_the_first_retries_are_free_and_a_link_that_held_begins_anew() -> None:
    flapping = Flapping(Turns(1.0))
    waits = []
    for _ in range(FREE + 3):
        flapping.link_lasted(0.1)
        waits.append(flapping.wait(100.0))
    assert waits == [0.0] * (FREE + 1) + [1.0, 2.0]
    flapping.link_lasted(STABLE_S)
    assert flapping.wait(100.0) == 0.0


def test_all_that_flap_share_one_pace() -> None:
    turns = Turns(10.0)
    several = [Flapping(turns) for _ in range(20)]
    for flapping in several:
        for _ in range(FREE + 1):
            flapping.link_lasted(0.0)
    assert [flapping.wait(5.0) for flapping in several] == pytest.approx(
        [n / 10 for n in range(20)]
    )
    assert several[0].wait(7.5) == 0.0


def test_a_forked_process_takes_its_turn_among_the_others() -> None:
    turns = Turns(1.0)
    pid = os.fork()
    if not pid:
        turns.reserve(10.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert turns.reserve(10.0) == 1.0


@pytest.mark.parametrize("written", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_what_nobody_of_ours_wrote_holds_up_nobody_for_long(written: float) -> None:
    turns = Turns(1.0)
    struct.pack_into("=d", turns._memory, 0, written)
    assert 0 <= turns.reserve(10.0) <= MOST_S
    assert 0 <= turns.reserve(10.0) <= MOST_S
    assert turns.reserve(10.0 + 2 * MOST_S) == 0.0
