"""What an object says to its worker about reading and what it hears, over a route that notes what is sent."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from trunkline.deadline import Deadline
from trunkline.proxy import reasons
from trunkline.proxy.about import About
from trunkline.proxy.dialogue import Dialogue
from trunkline.proxy.next_step import Form
from trunkline.proxy.pocket import LOST, Pocket
from trunkline.proxy.turn import Turn
from trunkline.wire import messages
from trunkline.wire.envelope import Kind, Mark


class Wire:
    """A route whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.came: list[Any] = []
        self.is_chosen = self.is_joined = self.has_stream = True
        self.is_marked_stale = False
        self.flushed = 0

    def send(self, kind: Kind, *fields: Any) -> None:
        self.sent.append((kind, *fields))

    def peek(self, _: float) -> Any:
        return self.came[0] if self.came else None

    def done(self) -> None:
        del self.came[0]

    def mark_stale(self) -> None:
        self.is_marked_stale = True

    def close_stream(self) -> None:
        self.has_stream = False

    def try_door_again(self) -> None:
        self.is_chosen = False

    def has_unsent(self) -> bool:
        return False

    def flush(self) -> None:
        self.flushed += 1


class Member(SimpleNamespace):
    """As much of a membership as a dialogue needs."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.pocket, self.lock, self.turn = Wire(), Pocket(), threading.RLock(), Turn()
        self.about = About.of({"peer": "there"}, raising=False)
        self.client = SimpleNamespace(rejoin_soon=self.rejoin_soon)
        self.holder_id, self.serving, self.gone = b"h", 1, None
        self.orphan = self.unsure = self.closed = False
        self.start_at = self.unheard_at = 0.0
        self.starts = self.rejoins = 0

    def rejoin_soon(self) -> None:
        self.rejoins += 1

    def start(self) -> None:
        self.starts += 1

    def in_order(self) -> bool:
        return not self.unsure


def push(*entries: str | int, first: int | None = 0, epoch: int = 0) -> Any:
    fields = messages.Push(epoch, True, False, first, False, [], 0)
    return b"", Kind.PUSH, 0, list(fields), [msgpack.packb(entries)]


def gone(*, goes_on: bool, serving: int) -> Any:
    return b"", Kind.GONE, 0, [goes_on, "killed", serving], []


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def dialogue(member: Any) -> Dialogue:
    return Dialogue(member)


def test_messages_that_arrive_are_in_the_pocket(member: Member, dialogue: Dialogue) -> None:
    member.orphan = True
    member.route.came = [push("a"), push("b", first=1)]
    assert dialogue.await_push(Deadline(1))
    assert ([*member.pocket.items], member.orphan, member.route.came) == (["a", "b"], False, [])
    assert not dialogue.drain()


def test_a_gap_makes_the_object_join_anew(member: Member, dialogue: Dialogue) -> None:
    assert not dialogue.handle(push("c", first=2))
    assert (member.route.is_marked_stale, member.rejoins, member.pocket.gap) == (True, 1, False)


def test_what_was_read_is_acknowledged_once(member: Member, dialogue: Dialogue) -> None:
    dialogue.handle(push("a", "b"))
    member.pocket.take()
    dialogue.acknowledge_when_idle(None)  # type: ignore[arg-type]
    dialogue.acknowledge_if_free()
    assert member.route.sent == [(Kind.ACK, b"h", 1, 0, 0)]
    assert member.route.flushed == 1
    assert not member.unsure


def test_nothing_is_said_out_of_order_or_by_a_closed_object(
    member: Member, dialogue: Dialogue
) -> None:
    dialogue.handle(push("a"))
    member.pocket.take()
    member.unsure = True
    dialogue.acknowledge_if_free()
    member.unsure, member.closed = False, True
    dialogue.acknowledge_if_idle()
    assert member.route.sent == []


def test_an_object_that_asks_first_says_that_it_is_there(
    member: Member, dialogue: Dialogue
) -> None:
    member.route.is_chosen = False
    dialogue.ask(Form.WAIT)
    kind, holder, number, *_ = member.route.sent[0]
    assert (member.starts, kind, holder, number) == (1, Kind.READ, b"h", 1)


def test_a_message_that_is_kept_is_told_before_it_counts_as_read(
    member: Member, dialogue: Dialogue
) -> None:
    pocket = member.pocket
    pocket.want_envelopes()
    pocket.feed(1, True, False, ["a"], 0, [(1, 5)])
    pocket.take(keep=True)
    dialogue.acknowledge()
    assert [kind for kind, *_ in member.route.sent] == [Kind.KEEP, Kind.ACK]


def test_a_worker_that_is_replaced_leaves_a_loss(member: Member, dialogue: Dialogue) -> None:
    dialogue.handle(push("a"))
    assert dialogue.handle(gone(goes_on=True, serving=2))
    assert (member.orphan, member.serving, member.gone, member.route.has_stream) == (
        True,
        2,
        None,
        False,
    )
    assert [member.pocket.take(), member.pocket.take()] == ["a", LOST]
    assert not member.pocket.ended


def test_a_loss_that_is_told_twice_counts_once(member: Member, dialogue: Dialogue) -> None:
    for _ in range(2):
        dialogue.handle(gone(goes_on=True, serving=2))
    assert [*member.pocket.items] == [int(Mark.DOWN)]


def test_a_worker_that_is_gone_for_good_ends_the_connection(
    member: Member, dialogue: Dialogue
) -> None:
    dialogue.handle(gone(goes_on=False, serving=0))
    assert member.pocket.take() is LOST
    assert (member.gone, member.orphan, member.pocket.ended) == ("killed", False, True)
    assert reasons.last() == "the connection to there has ended: killed; dial again"


def test_a_broker_that_does_not_know_the_connection_is_joined_anew(
    member: Member, dialogue: Dialogue
) -> None:
    dialogue.handle(gone(goes_on=True, serving=0))
    assert (member.rejoins, [*member.pocket.items]) == (1, [])


def test_an_orphan_says_start_now_and_then_until_it_has_a_stream(
    member: Member, dialogue: Dialogue
) -> None:
    member.route.has_stream = False
    dialogue.find_worker()
    dialogue.find_worker()
    assert member.starts == 1  # the second is too soon after the first
    member.route.has_stream = True
    dialogue.find_worker()
    assert member.unsure  # the worker has not answered in time: join anew
