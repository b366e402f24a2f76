"""Messages that no reader has, and those that readers had lately. No server."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.actors.drivers.nats import held as held_module
from trunkline.actors.drivers.nats.held import Held, HeldMessages
from trunkline.actors.drivers.nats.place import Place


def _held(stamp: int, told: float = 0.0) -> Held:
    msg: Any = object()
    return Held(msg, told, stamp)


def test_a_message_is_taken_once() -> None:
    messages = HeldMessages(Place(), 10)
    messages.add(1, _held(100))
    assert len(messages) == 1
    assert [each.stamp for each in messages.all()] == [100]
    taken = messages.take(1)
    assert taken is not None
    assert taken.stamp == 100
    assert messages.take(1) is None
    assert messages.get(1) is None


def test_a_message_that_was_read_is_known_by_sequence_and_time() -> None:
    messages = HeldMessages(Place(), 10)
    messages.note_read(1, 100)
    assert messages.was_read(1, 100)
    assert not messages.was_read(1, 101), "another message with the same sequence"
    assert not messages.was_read(2, 100)


def test_the_latest_that_were_read_are_known_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "_REMEMBERED", 10)
    messages = HeldMessages(Place(), 10)
    for sequence in range(35):
        messages.note_read(sequence, sequence)
    assert all(messages.was_read(sequence, sequence) for sequence in range(20, 35))
    assert not messages.was_read(5, 5)


def test_the_next_link_knows_what_was_read_and_what_was_handed_over() -> None:
    place = Place()
    first = HeldMessages(place, 10)
    first.note_read(1, 100)
    first.add(2, _held(200))
    first.leave_to_next_link()
    second = HeldMessages(place, 10)
    assert second.was_read(1, 100)
    assert not second.was_handed_over(2, 201)
    first.leave_to_next_link()
    assert second.was_handed_over(2, 200)
    assert not second.was_handed_over(2, 200), "told once"
    place.forget()
    assert not second.was_read(1, 100)


def test_the_server_hears_of_messages_that_wait() -> None:
    messages = HeldMessages(Place(), 10)
    messages.add(1, _held(100, told=0.0))
    messages.add(2, _held(200, told=8.0))
    assert [each.stamp for each in messages.due_for_progress(10.0, 9.0)] == [100]
    assert messages.due_for_progress(10.0, 9.0) == []
    assert [each.stamp for each in messages.due_for_progress(18.0, 9.0)] == [200]
    messages.clear()
    assert messages.due_for_progress(100.0, 9.0) == []
