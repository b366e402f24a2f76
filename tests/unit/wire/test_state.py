"""The table of states: every transition that is in it, and none that is not."""

from __future__ import annotations

from itertools import product

import pytest

from trunkline.wire.state import TRANSITIONS, State, check


@pytest.mark.parametrize(("old", "new"), list(product(State, State)))
def test_only_the_table_decides(old: State, new: State) -> None:
    if new is old or new in TRANSITIONS[old]:
        assert check(old, new) is new
    else:
        with pytest.raises(ValueError, match=f"from {old.value} to {new.value}"):
            check(old, new)


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.DIALING}
    while more := {new for old in reached for new in TRANSITIONS[old]} - reached:
        reached |= more
    assert reached == set(State)


def test_closed_is_the_end_and_can_be_reached_from_everywhere() -> None:
    assert not TRANSITIONS[State.CLOSED]
    assert all(State.CLOSED in TRANSITIONS[state] for state in State if state is not State.CLOSED)
