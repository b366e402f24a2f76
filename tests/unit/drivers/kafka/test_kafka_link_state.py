"""What librdkafka's errors mean for the link, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.unit.drivers.kafka.owner import KeepingOwner, at_once
from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.kafka import link_state
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.loop_side import LoopSide
from trunkline.actors.drivers.kafka.plan import Plan, plan_of
from trunkline.address import parse_address
from trunkline.deadline import Deadline
from trunkline.errors import DialError, DialTimeout


@pytest.fixture
def told() -> Iterator[tuple[Any, KeepingOwner]]:
    with at_once() as both:
        yield both


Told = tuple[LoopSide, KeepingOwner]


def _plan(address: str = "kafka://host:9092/prices") -> Plan:
    return plan_of(parse_address(address, {}))


def _opening(told: Told, address: str = "kafka://host:9092/prices") -> LinkState:
    link = LinkState(_plan(address), told[0], knows_positions=False)
    link.begin_opening()
    return link


def _opened(told: Told, address: str = "kafka://host:9092/prices") -> LinkState:
    link = _opening(told, address)
    link.finish_opening()
    return link


def test_an_open_link_is_lost_once(told: Told) -> None:
    link = _opened(told)
    assert link.is_open
    link.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    link.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert not link.is_open
    assert [str(each) for each in told[1].losses] == ["host:9092 closed the connection"]


def test_a_recent_error_of_a_broker_explains_the_loss(told: Told) -> None:
    link = _opened(told)
    link.note_error(KafkaError(KafkaError._TRANSPORT, "Disconnected"))
    assert link.is_open, "librdkafka connects again"
    link.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert isinstance(told[1].losses[0], DialError)


def test_a_refused_login_is_final_while_opening(told: Told) -> None:
    link = _opening(told)
    link.note_error(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: no"))
    with pytest.raises(FatalError):
        link.check_opening(Deadline(10), "no answer")
    with pytest.raises(FatalError):
        link.begin_opening()
    assert told[1].losses == []


def test_opening_waits_for_a_better_word_and_then_tells_the_last_one(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = _opening(told)
    link.note_error(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    link.check_opening(Deadline(10), "no answer")  # another address of the host may answer
    monkeypatch.setattr(link_state, "_GRACE_S", 0.0)
    with pytest.raises(DialError, match="refused"):
        link.check_opening(Deadline(10), "no answer")


def test_all_brokers_down_without_a_word_is_told_at_the_deadline(told: Told) -> None:
    link = _opening(told)
    link.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    link.check_opening(Deadline(10), "no answer")
    with pytest.raises(DialError, match="closed the connection; check the port"):
        link.check_opening(Deadline(0), "no answer")


def test_the_deadline_alone_is_a_timeout(told: Told) -> None:
    with pytest.raises(DialTimeout, match="no answer in the time allowed"):
        _opening(told).check_opening(Deadline(0), "no answer")


def test_trouble_ends_one_opening_and_not_the_next(told: Told) -> None:
    link = _opening(told)
    link.lose(DialError("a topic is away"))
    with pytest.raises(DialError, match="a topic is away"):
        link.check_opening(Deadline(10), "")
    link.begin_opening()
    link.check_opening(Deadline(10), "")


def test_a_fenced_member_stays_fenced(told: Told) -> None:
    link = _opened(told, "kafka://host:9092/prices?group=g&group_instance_id=one")
    link.end(KafkaError(KafkaError.FENCED_INSTANCE_ID))
    assert link.is_fenced
    assert link.fatal is told[1].losses[0]
    with pytest.raises(DialError):
        link.begin_opening()


def test_a_consumer_that_gives_up_is_not_used_again(told: Told) -> None:
    link = _opened(told)
    link.note_error(KafkaError(KafkaError._INCONSISTENT, "out of order", fatal=True))
    assert not link.is_fenced
    assert "librdkafka gave up reading" in str(link.fatal)


@pytest.mark.parametrize(
    ("code", "lost", "final"),
    [
        (KafkaError._UNKNOWN_TOPIC, True, False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True, True),
        (KafkaError._FAIL, False, False),
    ],
)
def test_an_error_of_a_topic(told: Told, code: int, lost: bool, final: bool) -> None:
    link = _opened(told)
    link.knows_positions = True
    link.note_topic_error(KafkaError(code), "prices", 3)
    assert (not link.is_open, link.fatal is not None) == (lost, final)
    assert bool(told[1].warnings) is not lost
    if not lost:
        assert told[1].warnings[0].startswith("topic 'prices', partition 3: ")


def test_without_a_group_the_groups_rights_do_not_matter(told: Told) -> None:
    link = _opened(told)
    link.note_error(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert link.is_open
    assert told[1].warnings == []
    assert link.is_coordinator_search(KafkaError.GROUP_AUTHORIZATION_FAILED)
    grouped = _opened(told, "kafka://host:9092/prices?group=g")
    assert not grouped.is_coordinator_search(KafkaError.GROUP_AUTHORIZATION_FAILED)


def test_who_only_writes_hears_of_other_errors_in_the_log(told: Told) -> None:
    link = _opened(told, "kafka://host:9092?write_topic=prices")
    link.note_error(KafkaError(KafkaError._FAIL, "odd"))
    assert told[1].warnings == ["librdkafka: odd"]
