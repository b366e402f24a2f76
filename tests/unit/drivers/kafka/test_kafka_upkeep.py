"""What is done now and then while a link is open, by a clock of the test's."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.unit.drivers.kafka.owner import KeepingOwner, at_once
from trunkline.actors.drivers.kafka.link_state import LinkState
from trunkline.actors.drivers.kafka.plan import Plan, plan_of
from trunkline.actors.drivers.kafka.upkeep import Upkeep
from trunkline.address import parse_address
from trunkline.errors import DialError


class Parts:
    """A session whose parts only keep what they were asked to do."""

    def __init__(self, *, has_group: bool) -> None:
        self.done: list[Any] = []
        self.silent: DialError | None = None
        self.fetcher = SimpleNamespace(is_held=False)
        self.group = SimpleNamespace(assigned=True, commit=self._commit) if has_group else None
        self.places = SimpleNamespace(
            note_ends=lambda *, ask: self.done.append(("ends", ask)),
            find_new_partitions=lambda *, held: self.done.append(("partitions", held)),
        )
        self.silence = SimpleNamespace(begin_anew=lambda: None, look=lambda: self.silent)

    def _commit(self) -> None:
        self.done.append("commit")
        raise KafkaException(
            KafkaError(KafkaError._TIMED_OUT)
        )  # which is tried again with the next one


Bench = tuple[Parts, Upkeep, LinkState, KeepingOwner]


@pytest.fixture
def plan(request: pytest.FixtureRequest) -> Plan:
    group = "?group=g" if getattr(request, "param", False) else ""
    return plan_of(parse_address(f"kafka://host:9092/prices{group}", {"pingInterval": 2000}))


@pytest.fixture
def bench(plan: Plan) -> Iterator[Bench]:
    with at_once() as (loop_side, owner):
        parts = Parts(has_group=plan.group is not None)
        link = LinkState(plan, loop_side, knows_positions=False)
        link.finish_opening()
        upkeep = Upkeep(plan, parts, link)  # type: ignore[arg-type]
        upkeep.begin_link(100.0, is_first=True)
        yield parts, upkeep, link, owner


grouped = pytest.mark.parametrize("plan", [True], indirect=True)


def test_each_task_has_its_interval(bench: Bench) -> None:
    parts, upkeep, _, _ = bench
    for tenths in range(25):
        upkeep.run(100 + tenths / 10)
    assert parts.done.count(("ends", False)) == 5
    assert parts.done.count(("partitions", False)) == 1


def test_after_an_outage_partitions_are_looked_for_at_once(bench: Bench) -> None:
    parts, upkeep, _, _ = bench
    upkeep.begin_link(100.0, is_first=False)
    upkeep.run(100.0)
    assert ("partitions", False) in parts.done


def test_while_partitions_are_paused_the_broker_is_asked_seldom(bench: Bench) -> None:
    parts, upkeep, _, _ = bench
    parts.fetcher.is_held = True
    parts.silent = DialError("silent")  # says nothing: nothing is fetched
    for second in range(11):
        upkeep.run(100.0 + second)
    assert parts.done.count(("ends", True)) == 3


def test_a_silent_partition_ends_the_link(bench: Bench) -> None:
    parts, upkeep, link, owner = bench
    parts.silent = DialError("silent")
    upkeep.run(100.0)
    assert not link.is_open
    assert owner.losses == [parts.silent]


@grouped
def test_a_group_commits_and_finds_partitions_by_itself(bench: Bench) -> None:
    parts, upkeep, link, _ = bench
    for tenths in range(25):
        upkeep.run(100 + tenths / 10)
    assert parts.done.count("commit") == 5
    assert ("partitions", False) not in parts.done
    assert link.is_open


@grouped
def test_a_member_without_partitions_waits_for_a_minute(bench: Bench) -> None:
    parts, upkeep, link, owner = bench
    assert parts.group is not None
    parts.group.assigned = False
    upkeep.run(100.0)
    upkeep.run(159.0)
    assert link.is_open
    parts.group.assigned = True
    upkeep.run(159.5)
    parts.group.assigned = False
    upkeep.run(160.0)
    upkeep.run(220.5)
    assert not link.is_open
    assert "gives this member no partitions any more" in str(owner.losses[0])
