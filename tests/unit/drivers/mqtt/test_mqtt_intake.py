"""Messages that wait for room in the buffer. No broker."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.support.recorder import Recorder
from trunkline.actors.driver import Delivery
from trunkline.actors.drivers.mqtt import intake as intake_module
from trunkline.actors.drivers.mqtt.intake import PACKET_IDS, Intake


class Sink(Recorder):
    """Keeps the data of deliveries."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.messages([each.data for each in batch])


def _message(text: str, number: int | None = None) -> Delivery:
    """A message of QoS 0, or of QoS 1 with a packet id."""
    return Delivery(text.encode(), "t", token=None if number is None else (number, 1, 0))


def _opened(
    buffer: int = 3, *, qos: int = 1, early: bool = False, v5: bool = False
) -> tuple[Sink, Intake]:
    sink = Sink()
    intake = Intake(sink, buffer)
    intake.begin_link()
    intake.set_limits(has_limit=bool(qos), v5=v5, acks_early=early)
    intake.is_open = True
    return sink, intake


def test_nothing_is_handed_over_before_the_link_is_open() -> None:
    sink, intake = _opened()
    intake.is_open = False
    intake.add(_message("a", 1))
    assert intake.deliver() == ()
    assert sink.received == []
    intake.is_open = True
    intake.deliver()
    assert sink.received == [b"a"]


def test_another_server_begins_with_nothing() -> None:
    sink, intake = _opened()
    intake.is_open = False
    intake.add(_message("of the first server", 1))
    intake.begin_link()
    intake.is_open = True
    intake.deliver()
    assert sink.received == []


def test_no_more_is_handed_over_than_the_buffer_holds() -> None:
    sink, intake = _opened(buffer=3)
    for number in range(5):
        intake.add(_message(str(number), number + 1))
    intake.deliver()
    assert sink.received == [b"0", b"1", b"2"]
    assert intake.held_count == 2
    intake.add(_message("5", 6))
    intake.note_read(1)
    intake.deliver()
    assert sink.received == [b"0", b"1", b"2", b"3"], "in their order"


def test_qos_0_has_no_limit_but_that_of_the_buffer_itself() -> None:
    sink, intake = _opened(buffer=3, qos=0)
    for number in range(10):
        intake.add(_message(str(number)))
    intake.deliver()
    assert len(sink.received) == 10


def test_a_paused_buffer_takes_nothing_and_the_newest_of_qos_0_are_dropped() -> None:
    sink, intake = _opened()
    intake.is_paused = True
    for number in range(2100):
        intake.add(_message(str(number)))
    intake.add(_message("owed", 1))
    intake.deliver()
    assert (sink.received, sink.drops, intake.held_count) == ([], 100, 2001)
    intake.is_paused = False
    intake.is_over = True
    intake.deliver()
    assert sink.received[-2:] == [b"1999", b"owed"], (
        "the link is over: all that came is handed over"
    )


def test_where_the_broker_never_sends_again_messages_are_acknowledged_early() -> None:
    _, intake = _opened(early=True)
    intake.add(_message("a", 7))
    intake.add(_message("of QoS 0"))
    assert list(intake.deliver()) == [(7, 1, 0)]
    _, intake = _opened(early=False)
    intake.add(_message("a", 7))
    assert list(intake.deliver()) == []


def test_the_link_is_not_read_while_too_much_waits() -> None:
    _, intake = _opened(buffer=3)
    intake.is_paused = True
    for number in range(2000):
        assert not intake.has_too_much
        intake.add(_message("x", number + 1))
    assert intake.has_too_much
    intake.deliver()
    intake.is_throttled = True
    assert not intake.may_read_on
    intake.is_paused = False
    while not intake.may_read_on:
        before = intake.held_count
        intake.deliver()
        intake.note_read(before - intake.held_count)
    assert intake.held_count <= 1000
    assert not intake.has_too_much


def test_large_messages_count_by_their_bytes() -> None:
    _, intake = _opened(v5=True)
    intake.is_paused = True
    intake.add(Delivery(bytes(intake_module._MOST_BYTES), "t", token=(1, 1, 0)))
    assert intake.has_too_much


def test_a_broker_that_breaks_the_protocol_is_found() -> None:
    _, intake = _opened(v5=True)
    for number in range(PACKET_IDS):
        intake.add(_message("x", number))
    assert not intake.has_too_many
    intake.add(_message("x", 1))
    assert intake.has_too_many


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans())))
def test_all_come_in_order_and_never_too_many(
    buffer: int, turns: list[tuple[int, int, bool]]
) -> None:
    sink, intake = _opened(buffer)
    sent = unread = 0
    for come, read, paused in turns:
        intake.is_paused = paused
        for _ in range(come):
            intake.add(_message(str(sent), sent + 1))
            sent += 1
        before = len(sink.received)
        intake.deliver()
        unread += len(sink.received) - before
        assert unread <= buffer
        count = min(read, unread)
        intake.note_read(count)
        unread -= count
    intake.is_paused, intake.is_over = False, True
    intake.deliver()
    assert sink.received == [str(number).encode() for number in range(sent)]
