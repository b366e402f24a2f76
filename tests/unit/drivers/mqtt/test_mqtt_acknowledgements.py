"""Which messages the broker is told of. No broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trunkline.actors.drivers.mqtt.acknowledgements import Acknowledgements
from trunkline.actors.drivers.mqtt.session import Session


class Link:
    """Both a client and a socket; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def ack(self, mid: int, qos: int) -> None:
        self.sent.append(f"PUBACK {mid}")

    def received(self, number: int) -> None:
        self.sent.append(f"PUBREC {number}")

    @contextmanager
    def together(self) -> Iterator[None]:
        self.sent.append("[")
        yield
        self.sent.append("]")


def _linked() -> tuple[Session, Link, Acknowledgements]:
    session, link = Session("c"), Link()
    acknowledgements = Acknowledgements(session)
    acknowledgements.begin_link(link, link)
    return session, link, acknowledgements


def test_each_quality_has_its_packet_and_all_go_together() -> None:
    session, link, acknowledgements = _linked()
    acknowledgements.send([(1, 1, 10), (2, 2, 20)])
    assert link.sent == ["[", "PUBACK 1", "PUBREC 2", "]"]
    assert session.is_received(2, 20)
    assert not session.is_received(1, 10)


def test_a_copy_of_a_message_that_was_read_is_acknowledged_again() -> None:
    _, link, acknowledgements = _linked()
    acknowledgements.send([(2, 2, 20)])
    link.sent.clear()
    assert acknowledgements.repeat_if_known(2, 2, 20)
    assert link.sent == ["PUBREC 2"]
    assert not acknowledgements.repeat_if_known(2, 2, 21), "another message with the same packet id"
    assert not acknowledgements.repeat_if_known(2, 1, 20), "QoS 1 promises at least once"


def test_without_a_link_only_qos_2_is_remembered() -> None:
    session, link, acknowledgements = _linked()
    acknowledgements.end_link()
    assert not acknowledgements.has_link
    before = session.identity(1, 10)
    acknowledgements.send([(1, 1, 10), (2, 2, 20)])
    assert link.sent == []
    assert session.is_received(2, 20)
    assert session.identity(1, 10) == before, (
        "the broker sends it again, and it is the same message"
    )
    assert acknowledgements.repeat_if_known(2, 2, 20)
