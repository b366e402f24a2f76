"""What the end-to-end suite made links live through, replayed against the machine."""

from __future__ import annotations

from typing import Any

from tests.support.replays import Waits, differences, recordings
from trunkline.actors.net.backoff import Backoff
from trunkline.actors.stream.flapping import Flapping
from trunkline.actors.stream.link import LinkLife, Phase


def test_each_recorded_life_of_a_link_goes_the_same_way() -> None:
    phases: set[str] = set()
    for recording in recordings("LinkLife"):
        backoff, flapping, waits = Backoff(100), Flapping(), Waits()
        backoff.next_wait = waits  # type: ignore[method-assign]
        flapping.wait = waits  # type: ignore[method-assign]

        def prepare(answers: list[Any], waits: Waits = waits) -> None:
            assert not waits.answers, "the machine no longer asks for a wait"
            waits.answers = list(answers)

        machine = LinkLife(recording[0]["new"]["reconnects"], backoff, flapping)
        assert not differences(machine, recording, prepare)
        phases.update(step["phase"] for step in recording[1:])
    assert phases >= set(Phase) - {Phase.NEW}
