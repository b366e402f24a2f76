"""Who may use a shared connection next: the line, and a transaction that has it to itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.database.line import (
    BARE,
    STAGES,
    Event,
    Expiry,
    Line,
    Settled,
    Stage,
    Waiting,
    decide_expiry,
)

A, B, C = b"holder a", b"holder b", b"holder c"
TOKEN = b"token"


def line_of(*jobs: tuple[bytes, bytes | None, str]) -> Line[str]:
    line: Line[str] = Line()
    for holder, token, job in jobs:
        line.add(Waiting(holder, token, job))
    return line


def drained(line: Line[str]) -> list[str]:
    found = []
    while (waiting := line.next()) is not None:
        found.append(waiting.job)
    return found


def test_first_come_first_served() -> None:
    assert drained(line_of((A, None, "1"), (B, None, "2"), (A, None, "3"))) == ["1", "2", "3"]


def test_a_transaction_passes_the_others_who_keep_their_places() -> None:
    line = line_of((B, None, "b1"), (A, TOKEN, "a1"), (C, None, "c1"), (A, TOKEN, "a2"))
    line.begin(TOKEN, A)
    assert drained(line) == ["a1", "a2"]
    line.end()
    assert drained(line) == ["b1", "c1"]


def test_another_thread_of_the_same_holder_waits_too() -> None:
    line = line_of((A, None, "thread"), (A, TOKEN, "block"))
    line.begin(TOKEN, A)
    assert drained(line) == ["block"]


def test_a_bare_transaction_belongs_to_its_holder() -> None:
    line = line_of((B, None, "b"), (A, None, "a1"), (A, BARE, "a2"), (B, BARE, "stray"))
    line.begin(BARE, A)
    assert drained(line) == ["a1", "a2"]


def test_what_comes_after_the_end_of_its_transaction_is_stale() -> None:
    line = line_of((A, TOKEN, "late"))
    assert line.stale(TOKEN)
    assert line.stale(BARE)
    assert not line.stale(None)
    line.begin(TOKEN, A)
    assert not line.stale(TOKEN)
    assert line.stale(b"another")


def test_a_holder_that_is_gone_leaves_the_line() -> None:
    line = line_of((A, None, "a1"), (B, None, "b"), (A, TOKEN, "a2"))
    assert [w.job for w in line.leave(A)] == ["a1", "a2"]
    assert drained(line) == ["b"]


def test_one_job_leaves_once() -> None:
    line = line_of((A, None, "same"), (A, None, "same"))
    first = line.waiting[0]
    assert line.remove(first)
    assert not line.remove(first)
    assert drained(line) == ["same"]


def test_what_was_found_may_be_gone_when_it_is_to_be_removed() -> None:
    line = line_of((A, None, "a"), (B, None, "b"))
    (found,) = line.find(lambda waiting: waiting.holder == A)
    assert found.job == "a"
    assert line.find(lambda waiting: waiting.holder == C) == []
    assert line.next() is found  # as the driver thread does
    assert not line.remove(found)


def test_a_holder_keeps_its_transaction_and_place_under_another_name() -> None:
    line = line_of((A, None, "a"))
    line.begin(BARE, A)
    line.rename(A, C)
    assert line.owner_holder == C
    assert drained(line) == ["a"]


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 4)), max_size=30))
def test_nobody_is_overtaken_but_by_the_open_transaction(
    demands: Sequence[tuple[bytes, int]],
) -> None:
    """Holders come again and again with blocks of some statements; each gets its turn as it came."""
    line: Line[int] = Line()
    for number, (holder, _) in enumerate(demands):
        line.add(Waiting(holder, None, number))
    served = []
    while (begin := line.next()) is not None:
        served.append(begin.job)
        holder, statements = demands[begin.job]
        token = str(begin.job).encode()
        line.begin(token, holder)
        line.add(Waiting(holder, None, -1))  # what the same holder wants next has no precedence
        for _ in range(statements):
            line.add(Waiting(holder, token, begin.job))
            inside = line.next()
            assert inside is not None
            assert inside.token == token
        assert line.next() is None
        line.end()
        line.waiting = type(line.waiting)(w for w in line.waiting if w.job != -1)
    assert served == list(range(len(demands)))


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", Event)
def test_a_statement_moves_by_the_table_alone(stage: Stage, event: Event) -> None:
    waiting = Waiting(A, None, "job", stage)
    if (stage, event) in STAGES:
        waiting.move(event)
        assert waiting.stage is STAGES[stage, event]
    else:
        with pytest.raises(KeyError):
            waiting.move(event)
        assert waiting.stage is stage


def test_a_statement_that_left_is_never_taken() -> None:
    assert not [event for stage, event in STAGES if stage is Stage.LEFT]


def test_a_failed_commit_of_several_is_next_again_in_its_order() -> None:
    line = line_of((A, None, "1"), (B, None, "2"), (C, None, "3"))
    first = line.next()
    assert first is not None
    group = [first, *line.take_along(lambda job: True, 1)]
    assert [w.stage for w in group] == [Stage.TAKEN, Stage.TAKEN]
    line.put_back(group)
    assert drained(line) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("stage", "is_rollback", "expiry"),
    [
        (Stage.WAITING, False, Expiry.LEAVE),
        (Stage.WAITING, True, Expiry.ANSWER),
        (Stage.TAKEN, False, Expiry.GIVE_UP),
        (Stage.TAKEN, True, Expiry.GIVE_UP),
        (Stage.LEFT, False, Expiry.IGNORE),
        (Stage.LEFT, True, Expiry.IGNORE),
    ],
)
def test_the_end_of_a_deadline(stage: Stage, is_rollback: bool, expiry: Expiry) -> None:
    assert decide_expiry(stage, is_answered=False, is_rollback=is_rollback) is expiry
    assert decide_expiry(stage, is_answered=True, is_rollback=is_rollback) is Expiry.IGNORE


def test_a_begin_gives_the_link_to_its_block_until_the_end() -> None:
    line = line_of()
    assert line.settle(A, TOKEN, is_inside=True, is_wanted=True) == Settled()
    assert (line.owner, line.owner_holder) == (TOKEN, A)
    assert line.settle(A, None, is_inside=True, is_wanted=True) == Settled()
    assert line.settle(A, None, is_inside=False, is_wanted=True) == Settled(ended=TOKEN)
    assert (line.owner, line.owner_holder) == (None, None)
    assert line.settle(A, None, is_inside=False, is_wanted=True) == Settled()


def test_a_statement_that_begins_a_transaction_gives_the_link_to_its_holder() -> None:
    line = line_of()
    assert line.settle(A, None, is_inside=True, is_wanted=True) == Settled()
    assert (line.owner, line.owner_holder) == (BARE, A)


@pytest.mark.parametrize("begins", [TOKEN, None])
def test_a_transaction_that_its_holder_does_not_wait_for_is_rolled_back(
    begins: bytes | None,
) -> None:
    line = line_of()
    token = begins or BARE
    assert line.settle(A, begins, is_inside=True, is_wanted=False) == Settled(roll_back=token)
    assert line.owner == token  # no other statement enters before the rollback
    line.add(Waiting(B, None, "other"))
    line.add(Waiting(A, token, "rollback"))
    taken = line.next()
    assert taken is not None
    assert taken.job == "rollback"


HOLDERS = st.sampled_from([A, B, C])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), HOLDERS, st.sampled_from([None, TOKEN])),
        st.tuples(st.just("run"), HOLDERS, st.sampled_from([None, TOKEN, BARE])),
        st.tuples(st.just("leave"), HOLDERS, st.none()),
        st.tuples(st.just("expire"), HOLDERS, st.none()),
        st.tuples(st.just("end"), HOLDERS, st.none()),
    ),
    max_size=60,
)


@given(EVENTS)
def test_each_statement_is_run_or_answered_once(
    events: list[tuple[str, bytes, bytes | None]],
) -> None:
    """Holders come, leave and run out of time. First come, first served; the link of a transaction serves
    this transaction alone; and a statement that has left the line is not run."""
    line: Line[int] = Line()
    added: list[Waiting[int]] = []
    run: list[Waiting[int]] = []
    gone: list[Waiting[int]] = []
    for event, holder, token in events:
        if event == "add":
            added.append(Waiting(holder, token, len(added)))
            line.add(added[-1])
        elif event == "leave":
            gone += line.leave(holder)
        elif event == "expire" and added:
            oldest_first = [w for w in added if w.holder == holder]
            for waiting in oldest_first[:1]:
                step = decide_expiry(waiting.stage, is_answered=False, is_rollback=False)
                removed = line.remove(waiting)
                assert removed == (step is Expiry.LEAVE)
                gone += [waiting] if removed else []
        elif event == "end":
            gone += line.leave_all()
        elif event == "run":
            before, owner, owner_holder = list(line.waiting), line.owner, line.owner_holder
            taken = line.next()
            if taken is None:
                assert owner is not None or not before
                continue
            allowed = [w for w in before if owner is None or line.may_enter(w.holder, w.token)]
            assert taken is allowed[0]
            if owner is not None:
                assert taken.token == owner or (taken.holder == owner_holder and not taken.token)
            run.append(taken)
            begins = token if taken.token is None else None
            inside = token is not None
            line.settle(taken.holder, begins, is_inside=inside, is_wanted=True)
            assert (line.owner is not None) == inside
    jobs = [w.job for w in [*run, *gone, *line.waiting]]
    assert sorted(jobs) == list(range(len(added)))
    assert all(w.stage is Stage.LEFT for w in gone)
    assert all(w.stage is Stage.TAKEN for w in run)
