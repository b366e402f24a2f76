"""Who may use a shared connection next: the line, and a transaction that has it to itself."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database.turns import BARE, Turns, Waiting

A, B, C = b"holder a", b"holder b", b"holder c"
TOKEN = b"token"


def line(*jobs: tuple[bytes, bytes | None, str]) -> Turns[str]:
    turns: Turns[str] = Turns()
    for holder, token, job in jobs:
        turns.add(Waiting(holder, token, job))
    return turns


def drained(turns: Turns[str]) -> list[str]:
    found = []
    while (waiting := turns.next()) is not None:
        found.append(waiting.job)
    return found


def test_first_come_first_served() -> None:
    assert drained(line((A, None, "1"), (B, None, "2"), (A, None, "3"))) == ["1", "2", "3"]


def test_a_transaction_passes_the_others_who_keep_their_places() -> None:
    turns = line((B, None, "b1"), (A, TOKEN, "a1"), (C, None, "c1"), (A, TOKEN, "a2"))
    turns.begin(TOKEN, A)
    assert drained(turns) == ["a1", "a2"]
    turns.end()
    assert drained(turns) == ["b1", "c1"]


def test_another_thread_of_the_same_holder_waits_too() -> None:
    turns = line((A, None, "thread"), (A, TOKEN, "block"))
    turns.begin(TOKEN, A)
    assert drained(turns) == ["block"]


def test_a_bare_transaction_belongs_to_its_holder() -> None:
    turns = line((B, None, "b"), (A, None, "a1"), (A, BARE, "a2"), (B, BARE, "stray"))
    turns.begin(BARE, A)
    assert drained(turns) == ["a1", "a2"]


def test_what_comes_after_the_end_of_its_transaction_is_stale() -> None:
    turns = line((A, TOKEN, "late"))
    assert turns.stale(TOKEN)
    assert turns.stale(BARE)
    assert not turns.stale(None)
    turns.begin(TOKEN, A)
    assert not turns.stale(TOKEN)
    assert turns.stale(b"another")


def test_a_holder_that_is_gone_leaves_the_line() -> None:
    turns = line((A, None, "a1"), (B, None, "b"), (A, TOKEN, "a2"))
    assert [w.job for w in turns.leave(A)] == ["a1", "a2"]
    assert drained(turns) == ["b"]


def test_one_job_leaves_once() -> None:
    turns = line((A, None, "same"), (A, None, "same"))
    first = turns.line[0]
    assert turns.remove(first)
    assert not turns.remove(first)
    assert drained(turns) == ["same"]


def test_a_holder_keeps_its_transaction_and_place_under_another_name() -> None:
    turns = line((A, None, "a"))
    turns.begin(BARE, A)
    turns.rename(A, C)
    assert turns.owner_holder == C
    assert drained(turns) == ["a"]


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 4)), max_size=30))
def test_nobody_is_overtaken_but_by_the_open_transaction(demands: Sequence[tuple[bytes, int]]) -> None:
    """Holders come again and again with blocks of some statements; each gets its turn as it came."""
    turns: Turns[int] = Turns()
    for number, (holder, _) in enumerate(demands):
        turns.add(Waiting(holder, None, number))
    served = []
    while (begin := turns.next()) is not None:
        served.append(begin.job)
        holder, statements = demands[begin.job]
        token = str(begin.job).encode()
        turns.begin(token, holder)
        turns.add(Waiting(holder, None, -1))  # what the same holder wants next has no precedence
        for _ in range(statements):
            turns.add(Waiting(holder, token, begin.job))
            inside = turns.next()
            assert inside is not None
            assert inside.token == token
        assert turns.next() is None
        turns.end()
        turns.line = type(turns.line)(w for w in turns.line if w.job != -1)
    assert served == list(range(len(demands)))
