"""How many messages may be given out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.drivers.kafka.room import Room


def test_room_shrinks_by_what_is_given_and_grows_by_what_is_consumed() -> None:
    room = Room(10)
    assert room.left == 10
    room.note_given(7)
    assert room.left == 3
    room.note_consumed(2)
    assert room.left == 5


def test_a_paused_reader_has_no_room() -> None:
    room = Room(10)
    room.is_paused = True
    assert room.left == 0
    room.is_paused = False
    assert room.left == 10


def test_the_seconds_without_room_count_from_the_first_turn_without() -> None:
    room = Room(1)
    assert not room.is_full
    assert room.seconds_full(100.0) == 0
    assert room.is_full
    assert room.seconds_full(101.5) == 1.5
    room.note_free()
    assert not room.is_full
    assert room.seconds_full(200.0) == 0


def test_another_link_begins_with_all_its_room() -> None:
    room = Room(10)
    room.note_given(10)
    room.seconds_full(1.0)
    room.begin_link()
    assert room.left == 10
    assert not room.is_full


@given(st.integers(1, 50), st.lists(st.integers(0, 20)))
def test_what_is_not_consumed_never_exceeds_the_limit(limit: int, wanted: list[int]) -> None:
    room = Room(limit)
    unread = 0
    for number, want in enumerate(wanted):
        count = min(want, room.left)
        room.note_given(count)
        unread += count
        assert 0 <= unread <= limit
        if number % 2:
            room.note_consumed(unread // 2)
            unread -= unread // 2
    assert room.left == limit - unread
