"""Carries trials out, one after the other: `python -m tests.adversary.runner`; see scripts/adversary."""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.adversary import checks
from tests.adversary.checks_kept import faults_of_databases, faults_of_messages
from tests.adversary.faults import carry_out
from tests.adversary.steps import BROKERS, DATABASES, SCHEMES, STREAMS, Trial, generate, shrink
from tests.adversary.world import Failure, World

__all__ = ["failures"]

RECOVERY_S = 40
KAFKA_S = 200
"""A killed member of a group is missed after 45 s, and so is each attempt to dial that was given up."""
END_S = 25
LEFT_S = 15
READ_AFTER_S = 0.3
EVERY = 5
"""After so many trials of each scheme there is a line."""


def failures(trial: Trial, timed: bool = True) -> list[str]:
    """Carry the trial out; what did not hold. `timed`: deadlines of calls count, too."""
    with World(trial) as world:
        found: list[str] = []
        try:
            world.begin()
            for step in trial.steps:
                carry_out(step, world)
            world.heal()
            if world.pids("program"):
                _settle(world)
            _end(world)
        except Failure as failure:
            found.append(str(failure))
        evidence = checks.Evidence(
            trial,
            {name: world.notes(name) for name in world.holders()},
            world.notes("peer"),
            _logs(world),
            _killed(trial),
        )
        found += checks.faults_of_the_program(evidence)
        found += _JUDGES[trial.scheme](evidence)
        if timed:
            found += checks.deadlines(evidence)
        refusals = [str(note[1]) for note in evidence.program if note[0] == "undialled"]
        if found:
            found += [f"the last refusal of a dial: {text}" for text in refusals[-1:]]
            found += [
                f"the end of {name}'s log: {text[-600:]}"
                for name, text in evidence.logs.items()
                if text
            ]
        return found


_JUDGES: dict[str, Callable[[checks.Evidence], Iterable[str]]] = {
    **dict.fromkeys(STREAMS, checks.faults_of_streams),
    **dict.fromkeys(BROKERS, faults_of_messages),
    **dict.fromkeys(DATABASES, faults_of_databases),
}


def _killed(trial: Trial) -> int:
    """Readers that were killed at any moment, and may have had one more message."""
    return sum(
        step.whom in ("program", "second") and step.what in ("kill", "term", "int")
        for step in trial.steps
    )


def _logs(world: World) -> dict[str, str]:
    paths: Iterable[Path] = [*world.folder.glob("*.log"), *world.runtime.glob("*/broker.log")]
    return {path.name: path.read_text(errors="replace") for path in paths}


def _settle(world: World) -> None:
    """With all faults gone it works again; then the peer falls silent and all is read."""
    now = time.monotonic()
    limit = KAFKA_S if world.trial.scheme == "kafka" else RECOVERY_S
    world.wait(lambda: _flows(world, now), "reading and writing after the last fault", limit)
    world.hush()
    world.ask("program", "finish")
    world.wait(
        lambda: any(note[0] == "done" for note in world.notes("program")), "reading all", limit
    )


def _flows(world: World, since: float) -> bool:
    """Something written since then has come, and something was read since then."""
    if world.trial.scheme in DATABASES:
        return any(n[0] == "x" and n[2] > since and n[4] == "ok" for n in world.notes("program"))
    if world.trial.scheme in BROKERS:
        return _flows_through_broker(world, since)
    written = {
        note[1] for note in world.notes("program") if note[0] == "w" and note[2] > since and note[4]
    }
    got = {note[2] for note in world.notes("peer") if note[0] == "got" and note[3] > since}
    if not any(f"w {number}" in got for number in written):
        return False
    return any(
        note[0] == "m" and note[4] > since + READ_AFTER_S
        for name in world.holders()
        for note in world.notes(name)
    )


def _flows_through_broker(world: World, since: float) -> bool:
    read = {note[3] for name in world.holders() for note in world.notes(name) if note[0] == "m"}
    return any(
        f"w {note[1]}" in read
        for note in world.notes("program")
        if note[0] == "w" and note[2] > since and note[4]
    )


def _end(world: World) -> None:
    """Everybody ends; nothing is left."""
    for name, process in world.programs.items():
        world.ask(name, "end")
        with contextlib.suppress(OSError):
            assert process.stdin
            process.stdin.close()
    for name, process in world.programs.items():
        world.wait(lambda p=process: p.poll() is not None, f"the end of {name}", END_S)  # type: ignore[misc]
        if process.returncode > 0:
            raise Failure(f"{name} ended with exit code {process.returncode}")
    world.end_peer()
    try:
        world.wait(lambda: not world.left(), "the end of everything", LEFT_S)
    except Failure:
        raise Failure("left behind: " + "; ".join(world.left())) from None


def run_one(trial: Trial, timed: bool, say: Callable[[str], None]) -> bool:
    """Carry one out; one that fails is tried again, shrunk and printed."""
    found = failures(trial, timed)
    if not found:
        return True
    say(f"FAILED {trial}")
    for line in found:
        say("  " + line.replace("\n", "\n  "))
    again = failures(trial, timed)
    if not again:
        say("  (not again when it was repeated at once)")
        return False
    small = shrink(trial, lambda candidate: bool(failures(candidate, timed)), 25)
    say(f"  shrunk; replay it with: scripts/adversary --replay '{small}'")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/adversary", description=__doc__)
    parser.add_argument(
        "schemes", nargs="*", metavar="SCHEME", help=f"of {', '.join(SCHEMES)}; default: all"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument(
        "--trials", type=int, default=0, help="how many of each scheme, instead of how long"
    )
    parser.add_argument("--seed", type=int, help="of the first trial; the next have the next seeds")
    parser.add_argument("--replay", metavar="LINE", help="one trial, as it was printed")
    parser.add_argument("--untimed", action="store_true", help="deadlines of calls do not count")
    options = parser.parse_args()
    for scheme in options.schemes:
        if scheme not in SCHEMES:
            parser.error(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")

    def say(line: str) -> None:
        print(line, flush=True)

    if options.replay:
        found = failures(Trial.parse(options.replay), not options.untimed)
        for line in found:
            say(line)
        say("failed" if found else "held")
        return bool(found)
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    say(f"seed {seed}")
    schemes = options.schemes or list(SCHEMES)
    end = time.monotonic() + options.minutes * 60
    ran, failed = dict.fromkeys(schemes, 0), dict.fromkeys(schemes, 0)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)  # under nohup it would be ignored
    with contextlib.suppress(KeyboardInterrupt):
        number = 0
        while number < options.trials if options.trials else time.monotonic() < end:
            for scheme in schemes:
                if not options.trials and time.monotonic() >= end:
                    break
                held = run_one(generate(scheme, seed + number), not options.untimed, say)
                ran[scheme] += 1
                failed[scheme] += not held
            number += 1
            if number % EVERY == 0:
                say(
                    "so far: "
                    + ", ".join(
                        f"{scheme} {ran[scheme]}, {failed[scheme]} failed" for scheme in schemes
                    )
                )
    for scheme in schemes:
        say(f"{scheme}: {ran[scheme]} trials, {failed[scheme]} failed")
    return any(failed.values())


if __name__ == "__main__":
    sys.exit(main())
