"""Which OPEN and ATTACH are heeded at all."""

from __future__ import annotations

from tests.support.brokers import CONTROL, HOLDER, StagedBroker
from trunkline.broker.admission import ABANDONED_S, Admission
from trunkline.wire.envelope import Kind


def admission(staged: StagedBroker) -> Admission:
    return staged.core.admission


def test_a_dial_that_was_given_up_is_not_heeded_once(staged: StagedBroker) -> None:
    admission(staged).abandon(HOLDER)
    assert admission(staged).forget_abandoned(HOLDER)
    assert not admission(staged).forget_abandoned(HOLDER)


def test_a_dial_that_never_came_is_forgotten_in_time(staged: StagedBroker) -> None:
    admission(staged).abandon(HOLDER)
    staged.now += ABANDONED_S
    admission(staged).abandon(b"another")
    assert not admission(staged).forget_abandoned(HOLDER)
    assert admission(staged).forget_abandoned(b"another")


def test_a_program_has_to_introduce_itself_first(staged: StagedBroker) -> None:
    message = staged.message(HOLDER, Kind.OPEN)
    assert admission(staged).refuse_stranger(message, CONTROL)
    [word] = staged.heard_by(HOLDER)
    assert (word.kind, word.fields[0]["name"]) == (Kind.FAILED, "BrokerGone")
    staged.hello()
    assert not admission(staged).refuse_stranger(message, CONTROL)
    assert staged.heard_by(HOLDER) == []
