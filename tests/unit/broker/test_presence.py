"""Whether a client is there, told by its beats and its socket."""

from __future__ import annotations

from trunkline.broker.directory import Client
from trunkline.broker.presence import CUT_S, LONGEST_LOOK_S, is_cut_off
from trunkline.broker.process import Watch


class Look:
    """A client, and whether something can be sent to it."""

    def __init__(self) -> None:
        self.client = Client(b"c", 1, Watch(0))
        self.there = True
        self.sent: list[float] = []

    def at(self, now: float) -> bool:
        def reach(to: bytes) -> bool:
            assert to == self.client.id
            self.sent.append(now)
            return self.there

        return is_cut_off(self.client, now, reach)

    def over(self, start: float, end: float) -> list[float]:
        """When it counted as cut off, looking four times a second."""
        ticks = [start + step / 4 for step in range(int((end - start) * 4))]
        return [now for now in ticks if self.at(now)]


def test_who_beats_is_never_asked() -> None:
    look = Look()
    look.there = False
    for now in range(100):
        look.client.heard = float(now)
        assert not look.at(now + 0.9)
    assert not look.sent


def test_who_is_silent_with_a_socket_is_there_and_asked_less_and_less_often() -> None:
    look = Look()
    assert not look.over(0, 3600)
    assert 3600 / LONGEST_LOOK_S < len(look.sent) < 3600 / LONGEST_LOOK_S + 20


def test_who_is_silent_without_a_socket_is_gone_within_five_seconds() -> None:
    look = Look()
    look.there = False
    assert 2 + CUT_S <= look.over(0, 10)[0] < 5


def test_who_comes_back_in_time_was_never_gone() -> None:
    look = Look()
    look.there = False
    assert not look.over(0, 3)
    look.there = True
    assert not look.over(3, 60)
