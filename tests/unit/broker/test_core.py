"""All parts of the broker, put together."""

from __future__ import annotations

import pytest

from tests.support.brokers import StagedBroker
from trunkline.broker.core import Core
from trunkline.wire.envelope import Kind
from trunkline.wire.messages import MESSAGES


def handled(core: Core) -> list[Kind]:
    parts = (core.clients, core.dials, core.attachments, core.workers, core.inquiries)
    return [kind for part in parts for kind in part.handlers()]


def test_each_kind_that_is_sent_to_the_broker_has_one_module(staged: StagedBroker) -> None:
    senders = ("worker > broker", "client > broker", "worker or broker >")
    to_broker = {row.kind for row in MESSAGES if row.way.startswith(senders)}
    found = handled(staged.core)
    assert sorted(found) == sorted(set(found))
    assert set(found) == to_broker


def test_other_kinds_are_malformed(staged: StagedBroker) -> None:
    with pytest.raises(KeyError):
        staged.say(b"x", Kind.PUSH)
