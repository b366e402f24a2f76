"""What the end-to-end suite made connections live through in the broker, replayed against the machine."""

from __future__ import annotations

from tests.support.replays import Recording, differences, recordings
from trunkline.broker.lifecycle import Life, Phase
from trunkline.wire.state import State


def as_called(recording: Recording) -> Recording:
    """With states in place of their names."""
    for step in recording[1:]:
        if "state" in step["with"]:
            step["with"]["state"] = State(step["with"]["state"])
    return recording


def test_each_recorded_life_goes_the_same_way() -> None:
    phases: set[str] = set()
    for recording in map(as_called, recordings("Life")):
        machine = Life(**recording[0]["new"])
        assert not differences(machine, recording, lambda waits: None)
        phases.update(step["phase"] for step in recording[1:])
    assert phases >= set(Phase) - {Phase.NEW}
