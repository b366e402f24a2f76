"""The adversary's trials: the same for a seed, one line each, shrunk to what matters."""

from __future__ import annotations

import pytest

from tests.adversary.steps import SCHEMES, Step, Trial, generate, shrink


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_seed_gives_the_same_trial_and_its_line_reads_back(scheme: str) -> None:
    for seed in range(200):
        trial = generate(scheme, seed)
        assert trial == generate(scheme, seed)
        assert Trial.parse(str(trial)) == trial
        assert trial.steps
    assert len({str(generate(scheme, seed)) for seed in range(200)}) > 150


def test_every_kind_of_fault_comes_up() -> None:
    steps = {str(step) for seed in range(2000) for step in generate("ws", seed).steps}
    for fault in (
        "kill:worker",
        "term:broker",
        "kill:broker+worker",
        "stop:program",
        "cont:program",
    ):
        assert fault in steps
    for fault in (
        "reset:link",
        "hole-up:link",
        "slow:link",
        "kill:server",
        "ask:fork",
        "int:program",
        "clock:30",
    ):
        assert fault in steps


def test_what_does_not_matter_is_left_out() -> None:
    trial = Trial("tcp", tuple(Step("wait", str(number)) for number in range(20)))
    needed = {Step("wait", "3"), Step("wait", "17")}
    tried: list[Trial] = []

    def fails(candidate: Trial) -> bool:
        tried.append(candidate)
        return needed <= set(candidate.steps)

    assert set(shrink(trial, fails, 200).steps) == needed
    assert len(tried) <= 200


def test_shrinking_has_an_end_and_may_leave_nothing() -> None:
    trial = generate("ws", 5)
    assert shrink(trial, lambda _: True).steps == ()
    assert shrink(trial, lambda _: False) == trial
    assert shrink(trial, lambda _: True, 0) == trial


@pytest.mark.parametrize(
    "line", ["", "tcp wait:3", "nosuch / wait:3", "tcp rate / wait:3", "tcp / :3"]
)
def test_a_line_that_is_none_is_refused_in_words(line: str) -> None:
    with pytest.raises(ValueError, match="look"):
        Trial.parse(line)
