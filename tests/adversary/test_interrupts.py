"""The suite's own part of `tests.adversary.interrupts`: 60 real SIGINTs from outside, always the same
choices."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.adversary.interrupts import KINDS, faults

COUNT = 60 // len(KINDS)


@pytest.mark.own_broker
@pytest.mark.parametrize("kind", KINDS)
def test_a_strategy_that_is_interrupted_goes_on(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_BROKER", raising=False)
    done = faults(kind, COUNT, random.Random(kind), tmp_path)
    assert not done.faults, "\n".join(done.faults)
    assert done.raised == COUNT
