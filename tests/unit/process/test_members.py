"""The holders of a connection as its worker knows them."""

from __future__ import annotations

import pytest

from trunkline.actors.process.members import MOST_EARLY, Members, Message
from trunkline.wire.messages import HolderCame, HolderLeft


def came(holder: bytes, former: bytes = b"", control: bytes = b"c") -> HolderCame:
    return HolderCame(holder, control, former, 0, 0, [])


def left(holder: bytes, closed: bool | None = None) -> HolderLeft:
    return HolderLeft(holder, 0, closed)


def message(text: bytes) -> Message:
    return Message(b"direct-1", text, [])


@pytest.fixture
def members() -> Members:
    return Members({b"a": b"control of a"})


def test_holders_come_and_go(members: Members) -> None:
    members.come(came(b"b", control=b"control of b"))
    assert members.controls == {b"a": b"control of a", b"b": b"control of b"}
    members.leave(left(b"a"))
    assert members.controls == {b"b": b"control of b"}
    members.leave(left(b"a"))  # told twice: by its process's end and by its DETACH
    assert members.controls == {b"b": b"control of b"}


def test_a_holder_is_known_by_all_its_former_names(members: Members) -> None:
    members.come(came(b"a2", former=b"a"))
    members.come(came(b"a3", former=b"a2"))
    assert [members.current_name(name) for name in (b"a", b"a2", b"a3")] == [b"a3"] * 3
    assert list(members.controls) == [b"a3"]
    assert members.current_name(b"stranger") == b"stranger"


def test_a_former_name_that_nobody_has_renames_nobody(members: Members) -> None:
    members.come(came(b"b", former=b"gone"))
    assert members.current_name(b"gone") == b"gone"
    assert set(members.controls) == {b"a", b"b"}


def test_a_message_ahead_of_its_holder_is_handed_over_when_the_holder_comes(
    members: Members,
) -> None:
    members.keep_early(b"b", message(b"first"))
    members.keep_early(b"b", message(b"last"))
    assert members.come(came(b"b")) == message(b"last")
    assert members.come(came(b"b", former=b"b")) is None


def test_messages_of_strangers_are_bounded_and_the_oldest_go(members: Members) -> None:
    names = [b"s%d" % number for number in range(MOST_EARLY + 1)]
    for name in names:
        members.keep_early(name, message(name))
    assert members.come(came(names[0])) is None
    assert members.come(came(names[1])) == message(names[1])


def test_a_message_of_a_holder_that_goes_before_it_came_is_forgotten(members: Members) -> None:
    members.keep_early(b"b", message(b"x"))
    members.leave(left(b"b"))
    assert members.come(came(b"b")) is None


class TestGoodEnd:
    def test_without_a_word_of_close_it_is_none(self, members: Members) -> None:
        assert not members.all_have_closed()
        members.leave(left(b"a", closed=None))
        assert not members.all_have_closed()

    def test_the_last_holder_closed_it(self, members: Members) -> None:
        members.leave(left(b"a", closed=True))
        assert members.all_have_closed()

    def test_the_word_came_by_the_pipe_alone(self, members: Members) -> None:
        members.note_closing(b"a")
        assert members.all_have_closed()
        members.leave(left(b"a", closed=None))  # the program was killed before its DETACH had left
        assert members.all_have_closed()

    def test_one_of_two_has_not_closed_it(self, members: Members) -> None:
        members.come(came(b"b"))
        members.note_closing(b"a")
        assert not members.all_have_closed()
        members.note_closing(b"b")
        assert members.all_have_closed()

    def test_the_word_goes_with_the_holder_to_its_next_name(self, members: Members) -> None:
        members.note_closing(b"a")
        members.come(came(b"a2", former=b"a"))
        assert members.all_have_closed()

    def test_a_strangers_word_counts_for_nothing(self, members: Members) -> None:
        members.note_closing(b"stranger")
        members.come(came(b"b"))
        members.note_closing(b"a")
        assert not members.all_have_closed()
