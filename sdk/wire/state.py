"""The states of a connection, and all ways from state to state."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TRANSITIONS", "State", "check"]


class State(StrEnum):
    """The state of a connection."""

    DIALING = "dialing"  # the first link is being established
    OPEN = "open"  # the link is up
    DOWN = "down"  # the link is lost and being re-established
    LOST = "lost"  # the link is lost for good; buffered messages can still be read
    FAILED = "failed"  # given up: the first dial failed, or too many failures in a row
    CLOSED = "closed"  # ended on request


TRANSITIONS: dict[State, frozenset[State]] = {
    State.DIALING: frozenset({State.OPEN, State.FAILED, State.CLOSED}),
    State.OPEN: frozenset({State.DOWN, State.LOST, State.CLOSED, State.FAILED}),
    State.DOWN: frozenset({State.OPEN, State.FAILED, State.LOST, State.CLOSED}),
    State.LOST: frozenset({State.CLOSED}),
    State.FAILED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


def check(old: State, new: State) -> State:
    """Return `new` if it may follow `old`. Raises ValueError otherwise."""
    if new is not old and new not in TRANSITIONS[old]:
        raise ValueError(f"a connection cannot go from {old.value} to {new.value}")
    return new
