"""What a read does next: the table of its phases, and each row of the decision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.proxy.next_step import (
    TRANSITIONS,
    Do,
    Form,
    Moment,
    Phase,
    ReadCall,
    Step,
    acknowledgement,
    ask,
)
from trunkline.proxy.pocket import EMPTY, LOST, Pocket
from trunkline.wire.envelope import Mark

DOWN, UP, END = int(Mark.DOWN), int(Mark.UP), int(Mark.END)
NOW = Moment()
OLDEST = (Form.WAIT, Form.NOW)
ALL = tuple(Form)


def streaming(*entries: str | int, more: bool = False) -> Pocket:
    """A pocket that entries come to unasked."""
    pocket = Pocket()
    assert pocket.feed(0, True, more, entries)
    return pocket


def asking(*entries: str | int) -> Pocket:
    """A pocket of a shared connection: each read has to ask."""
    pocket = Pocket()
    assert pocket.feed(0, False, False, entries)
    return pocket


def asked() -> Pocket:
    """The same with an ask out."""
    pocket = asking()
    pocket.ask()
    return pocket


def answered(*entries: str) -> Pocket:
    """The same when the worker has answered."""
    pocket = asked()
    assert pocket.feed(0, False, False, entries, answer=pocket.asked)
    return pocket


def down() -> Pocket:
    """A pocket whose link is known to be down, with nothing to read."""
    pocket = streaming(DOWN)
    pocket.take()
    return pocket


def lost_in_order() -> Pocket:
    return asking(DOWN, "a")


def crashed() -> Pocket:
    """The worker has crashed; one message of it is still to be read."""
    pocket = streaming("a")
    pocket.lose(Mark.DOWN)
    return pocket


MakePocket = Callable[[], Pocket]

ROWS: list[tuple[Phase, tuple[Form, ...], MakePocket, Moment, Step]] = [
    # the beginning: is there anything to be read from at all
    (Phase.START, ALL, streaming, Moment(closed=True), Step(Do.PACE, LOST)),
    (Phase.START, ALL, streaming, Moment(closed=True, usable=False), Step(Do.PACE, LOST)),
    (Phase.START, ALL, streaming, Moment(usable=False), Step(Do.REJOIN)),
    (Phase.START, ALL, streaming, Moment(usable=False, expired=True), Step(Do.RETURN, EMPTY)),
    (Phase.START, ALL, streaming, NOW, Step(Do.HEAR)),
    (Phase.START, ALL, lambda: streaming("a"), Moment(expired=True), Step(Do.HEAR)),
    # what is here is taken
    (Phase.HEARD, OLDEST, lambda: streaming("a", "b"), NOW, Step(Do.TAKE, "a")),
    (Phase.HEARD, OLDEST, lambda: asking("a", "b"), NOW, Step(Do.TAKE, "a")),
    (Phase.HEARD, OLDEST, lambda: streaming("a"), Moment(orphan=True), Step(Do.TAKE, "a")),
    (Phase.HEARD, (Form.NEWEST,), lambda: streaming("a", "b"), NOW, Step(Do.TAKE, "b")),
    (Phase.HEARD, (Form.NEWEST,), streaming, NOW, Step(Do.TAKE, EMPTY)),
    (Phase.HEARD, ALL, crashed, Moment(orphan=True), Step(Do.TAKE, "a")),
    # a loss is told in its place; one that lasts is listened to first
    (Phase.HEARD, OLDEST, lost_in_order, NOW, Step(Do.TAKE, LOST)),
    (Phase.HEARD, OLDEST, lambda: streaming(DOWN), NOW, Step(Do.LOOK, LOST)),
    (Phase.HEARD, OLDEST, down, NOW, Step(Do.LOOK, LOST)),
    (Phase.HEARD, OLDEST, lambda: streaming(END), NOW, Step(Do.LOOK, LOST)),
    (Phase.HEARD, (Form.NEWEST,), down, NOW, Step(Do.TAKE, LOST)),
    (Phase.HEARD, ALL, down, Moment(orphan=True), Step(Do.FIND, LOST)),
    (Phase.HEARD, ALL, streaming, Moment(orphan=True), Step(Do.FIND, LOST)),
    # nothing is here
    (Phase.HEARD, (Form.WAIT,), streaming, NOW, Step(Do.WAIT)),
    (Phase.HEARD, (Form.NOW,), streaming, NOW, Step(Do.TAKE, EMPTY)),
    (Phase.HEARD, (Form.NOW,), lambda: streaming(more=True), NOW, Step(Do.ASK)),
    (Phase.HEARD, ALL, asking, NOW, Step(Do.ASK)),
    (Phase.HEARD, (Form.NEWEST,), lambda: streaming("a", more=True), NOW, Step(Do.ASK)),
    (Phase.HEARD, (Form.NEWEST,), lambda: asking("a"), NOW, Step(Do.ASK)),
    (Phase.HEARD, (Form.NEWEST,), asking, Moment(expired=True), Step(Do.TAKE, EMPTY)),
    # something has come
    (Phase.WAITING, OLDEST, lambda: streaming("a"), NOW, Step(Do.TAKE, "a")),
    (Phase.WAITING, ALL, lambda: answered("a"), NOW, Step(Do.TAKE, "a")),
    (Phase.WAITING, ALL, lambda: answered("a"), Moment(orphan=True), Step(Do.TAKE, "a")),
    (Phase.WAITING, ALL, lambda: answered("a"), Moment(expired=True), Step(Do.TAKE, "a")),
    (Phase.WAITING, (Form.NEWEST,), lambda: answered("a", "b"), NOW, Step(Do.TAKE, "b")),
    (Phase.WAITING, (Form.NOW, Form.NEWEST), answered, NOW, Step(Do.TAKE, EMPTY)),
    (Phase.WAITING, OLDEST, lost_in_order, NOW, Step(Do.TAKE_SLOWLY, LOST)),
    (Phase.WAITING, OLDEST, lambda: streaming(DOWN), NOW, Step(Do.TAKE, LOST)),
    # nothing has come
    (Phase.WAITING, (Form.WAIT,), streaming, Moment(silent=True), Step(Do.WAIT)),
    (Phase.WAITING, (Form.WAIT,), answered, NOW, Step(Do.ASK)),
    (Phase.WAITING, ALL, asked, Moment(silent=True), Step(Do.ASK)),
    (Phase.WAITING, OLDEST, asked, Moment(silent=True, stale=True), Step(Do.REJOIN)),
    (Phase.WAITING, OLDEST, asked, Moment(stale=True), Step(Do.ASK)),
    (Phase.WAITING, (Form.NEWEST,), asked, Moment(silent=True, stale=True), Step(Do.ASK)),
    (Phase.WAITING, ALL, asked, Moment(orphan=True), Step(Do.REJOIN)),
    # the time is over
    (Phase.WAITING, (Form.WAIT,), streaming, Moment(expired=True), Step(Do.TAKE, EMPTY)),
    (Phase.WAITING, (Form.WAIT,), asked, Moment(expired=True), Step(Do.GIVE_UP)),
    (
        Phase.WAITING,
        (Form.WAIT,),
        asked,
        Moment(expired=True, stale=True, silent=True),
        Step(Do.GIVE_UP),
    ),
    (Phase.WAITING, (Form.NOW, Form.NEWEST), asked, Moment(expired=True), Step(Do.TAKE, EMPTY)),
    (Phase.WAITING, ALL, asked, Moment(closed=True), Step(Do.TAKE, EMPTY)),
    (Phase.GIVING_UP, (Form.WAIT,), asking, NOW, Step(Do.CONFIRM)),
    (Phase.GIVING_UP, (Form.WAIT,), lambda: asking("a"), NOW, Step(Do.CONFIRM)),
    (
        Phase.GIVING_UP,
        (Form.WAIT,),
        lambda: asking("a"),
        Moment(confirmed=True),
        Step(Do.TAKE, "a"),
    ),
    (Phase.GIVING_UP, (Form.WAIT,), asking, Moment(silent=True), Step(Do.TAKE, EMPTY)),
    (Phase.GIVING_UP, (Form.WAIT,), asking, Moment(expired=True), Step(Do.TAKE, EMPTY)),
    (Phase.GIVING_UP, (Form.WAIT,), asking, Moment(closed=True), Step(Do.TAKE, EMPTY)),
]
"""Phase, the forms of reading that behave alike, pocket, moment, and the step."""


@pytest.mark.parametrize(("phase", "forms", "make", "moment", "step"), ROWS)
def test_each_row_of_the_decision(
    phase: Phase, forms: tuple[Form, ...], make: MakePocket, moment: Moment, step: Step
) -> None:
    for form in forms:
        call = ReadCall(form)
        call.phase = phase
        assert call.next_step(make(), moment) == step, form
        assert call.phase is TRANSITIONS[phase][step.do]


def test_the_rows_walk_every_transition() -> None:
    walked = {(phase, step.do) for phase, _, _, _, step in ROWS}
    assert walked == {(phase, do) for phase, steps in TRANSITIONS.items() for do in steps}


def test_a_read_that_is_over_has_no_next_step() -> None:
    call = ReadCall(Form.NOW)
    pocket = streaming("a")
    assert [call.next_step(pocket, NOW).do for _ in range(2)] == [Do.HEAR, Do.TAKE]
    with pytest.raises(KeyError):
        call.next_step(pocket, NOW)


def test_what_was_taken_is_in_the_hand() -> None:
    pocket = streaming("a")
    call = ReadCall(Form.WAIT)
    call.phase = Phase.HEARD
    call.next_step(pocket, NOW)
    pocket.put_back(call.hand)
    assert pocket.take() == "a"


def test_to_give_up_ends_the_ask() -> None:
    pocket = asked()
    call = ReadCall(Form.WAIT)
    call.phase = Phase.WAITING
    assert call.next_step(pocket, Moment(expired=True)).do is Do.GIVE_UP
    assert not pocket.asks()
    assert pocket.answered == 1


def test_to_ask_for_the_newest_throws_away_what_is_here() -> None:
    pocket = asking("a", "b")
    call = ReadCall(Form.NEWEST)
    call.phase = Phase.HEARD
    assert call.next_step(pocket, NOW).do is Do.ASK
    assert (list(pocket.items), pocket.consumed, pocket.epoch) == ([], 0, 1)


moments = st.builds(Moment, *[st.booleans()] * len(Moment._fields))
pockets = st.sampled_from([streaming, asking, asked, answered, down, lost_in_order, crashed])


@given(form=st.sampled_from(Form), make=pockets, seen=st.lists(moments, min_size=1, max_size=8))
def test_any_course_of_events_follows_the_table(
    form: Form, make: MakePocket, seen: list[Moment]
) -> None:
    """A read comes to its end when its time is over, and only a read that waits for data gives up."""
    pocket, call = make(), ReadCall(form)
    for moment in [*seen, *[Moment(expired=True)] * 5]:
        before = call.phase
        step = call.next_step(pocket, moment)
        assert call.phase is TRANSITIONS[before][step.do]
        if step.do is Do.ASK:
            ask(pocket, b"h", form)
        assert step.do not in (Do.GIVE_UP, Do.CONFIRM, Do.WAIT) or form is Form.WAIT
        if call.phase is Phase.OVER:
            return
        assert step.taken is EMPTY
    pytest.fail(f"it goes on for ever: {call.phase}")


def test_an_ask_keeps_its_number_until_it_is_answered() -> None:
    pocket = asking("a")
    pocket.take()
    for _ in range(2):
        said, kept = ask(pocket, b"h", Form.WAIT)
        assert (said.number, said.consumed, said.wait, said.newest, kept) == (1, 1, True, False, [])
    assert pocket.acked == 1
    pocket.feed(0, False, False, ["b"], answer=1)
    assert ask(pocket, b"h", Form.NEWEST)[0][6:] == (True, 0, False)
    assert pocket.asked == 2


def test_an_acknowledgement_is_owed_once() -> None:
    pocket = streaming("a", "b")
    assert acknowledgement(pocket, b"h", waiting=False) is None
    pocket.take_newest()
    owed = acknowledgement(pocket, b"h", waiting=False)
    assert owed is not None
    assert tuple(owed[0]) == (b"h", 2, 1, 0)
    assert acknowledgement(pocket, b"h", waiting=False) is None


def test_an_ask_that_nobody_waits_for_is_over_with_the_acknowledgement() -> None:
    pocket = asked()
    assert acknowledgement(pocket, b"h", waiting=True) is None
    assert pocket.asks()
    owed = acknowledgement(pocket, b"h", waiting=False)
    assert owed is not None
    assert owed[0].over == 1
    assert not pocket.asks()


def test_messages_that_are_kept_are_told_before_they_count_as_consumed() -> None:
    pocket = Pocket()
    pocket.want_envelopes()
    assert pocket.feed(1, True, False, ["a"], 0, [(1, 5)])
    call = ReadCall(Form.NOW, keep=True)
    call.phase = Phase.HEARD
    call.next_step(pocket, NOW)
    owed = acknowledgement(pocket, b"h", waiting=False)
    assert owed is not None
    assert owed[1] == [(1, call.hand.ticket)]
