"""A few fixed trials of the adversary: the long runs are scripts/adversary's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversary import backends
from tests.adversary.runner import failures
from tests.adversary.steps import Trial, generate
from tests.servers.fixtures import or_skip

SHORT = ("tcp", "ws", "udp", "sqlite3", "nats")


@pytest.fixture(autouse=True)
def _no_server_stays() -> Iterator[None]:
    yield
    backends.end_all()


@pytest.mark.parametrize("scheme", SHORT)
@pytest.mark.parametrize("seed", [1])
def test_a_short_trial_holds(scheme: str, seed: int) -> None:
    with or_skip():
        backends.backend(scheme)
    trial = generate(scheme, seed, steps=4)
    assert failures(trial, timed=False) == [], str(trial)


FOUND = [
    "ws reconnect=1 form=connect rate=3000 / wait:100 term:worker",
    "tcp reconnect=1 form=connect rate=300 / cut:link wait:10 kill:broker+worker",
    "tcp reconnect=1 form=connect rate=300 / wait:200 kill:worker wait:200 kill:worker kill:broker+worker",
    "unix reconnect=1 form=connect rate=300 size=0 / wait:0 term:broker wait:0 kill:broker",
    "tls reconnect=1 form=dial rate=300 size=0 / wait:200 ask:fork wait:100 kill:broker+worker wait:200",
]
"""What the adversary has found, shrunk; it holds since."""


@pytest.mark.parametrize("line", FOUND)
def test_what_was_found_holds(line: str) -> None:
    assert failures(Trial.parse(line), timed=False) == []
