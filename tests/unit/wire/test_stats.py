"""The figures of a connection on their way."""

from __future__ import annotations

from dataclasses import fields

import pytest

from trunkline.wire.ledger import COUNTERS
from trunkline.wire.stats import Stats


def test_all_figures_travel() -> None:
    sent = Stats(id="3", scheme="ws", messages_in=7, lag=4, last_error="x", last_message_at=1.5)
    assert Stats.from_wire(sent.to_wire()) == sent
    assert set(sent.to_wire()) == {field.name for field in fields(Stats)}


def test_figures_of_another_release_are_passed_over_and_missing_ones_are_zero() -> None:
    came = Stats.from_wire({"messages_in": 5, "a figure of tomorrow": 1})
    assert (came.messages_in, came.read) == (5, 0)


def test_each_counter_of_the_ledger_is_a_whole_number_among_the_figures() -> None:
    kinds = {field.name: field.type for field in fields(Stats)}
    assert len(set(COUNTERS)) == len(COUNTERS)
    assert {kinds[name] for name in COUNTERS} == {"int"}


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Stats().read = 7  # type: ignore[misc]
