"""Recorded lives of the pure machines: kept as files, and replayed against the machines.

The recordings come from the end-to-end suite. To make them anew, after a change of a machine's methods:

    export PYTHONPATH=tests/support/recording TRUNKLINE_TEST_EVENT_LOG=/tmp/events
    mkdir /tmp/events
    scripts/test tests/e2e tests/contract
    python -m tests.support.replays /tmp/events

A recording is a line of JSON: the first item has the machine's arguments, each other item a call, what it was
called with, and what was seen after it. Of recordings that differ by their times alone one is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["FILES", "Waits", "differences", "recordings"]

_ROOT = Path(__file__).parents[2]
FILES = {
    "Life": _ROOT / "tests/unit/broker/recorded_lives.jsonl",
    "LinkLife": _ROOT / "tests/unit/stream/recorded_links.jsonl",
}
MOST_CALLS = 60
MOST_RECORDINGS = 150
_TIMES = ("now", "due", "outage_s", "seconds", "wait_s")
_CLOCK = ("now", "due")
_TOLERANCE_S = 0.005

Recording = list[dict[str, Any]]


class Waits:
    """Gives recorded answers, in place of a helper whose answers depend on chance or on other processes."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def __call__(self, *_: object) -> Any:
        return self.answers.pop(0)


def recordings(machine: str) -> Iterator[Recording]:
    """Those that are kept of a machine."""
    for line in FILES[machine].read_text().splitlines():
        yield json.loads(line)


def differences(
    machine: Any, recording: Recording, prepare: Callable[[list[Any]], None]
) -> list[str]:
    """Call the machine as it was called, and say where it now acts otherwise. `prepare` is told before each
    call what the machine's helpers are to answer."""
    found = []
    for number, step in enumerate(recording[1:], 1):
        prepare(step["waits"])
        actions = getattr(machine, step["call"])(**step["with"])
        seen = {
            "phase": str(machine.phase),
            "state": str(machine.state),
            "actions": as_data(actions),
        }
        wanted = {name: step[name] for name in seen}
        if not _is_alike(seen, wanted):
            found.append(f"step {number}, {step['call']}: {seen} instead of {wanted}")
    return found


def as_data(value: Any) -> Any:
    """What a method returned, as it is in a recording."""
    if isinstance(value, (list, tuple)):
        return [as_data(item) for item in value]
    if value is None or type(value) in (bool, int, float, str, dict):
        return value
    if isinstance(value, str):
        return str(value)
    fields = {name: as_data(getattr(value, name)) for name in type(value).__match_args__}
    return {"action": type(value).__name__, **fields}


def _is_alike(seen: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return seen.keys() == wanted.keys() and all(
            _is_alike(seen[name], wanted[name]) for name in wanted
        )
    if isinstance(wanted, list):
        return len(seen) == len(wanted) and all(map(_is_alike, seen, wanted))
    if type(wanted) is float:
        return bool(seen == pytest.approx(wanted, abs=_TOLERANCE_S))
    return bool(seen == wanted)


def _changed(value: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _changed(item, change, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change, name) for item in value]
    return change(name, value)


def _from_zero(recording: Recording) -> Recording:
    """Times begin at the first one and are in whole milliseconds."""
    start = next((step["with"]["now"] for step in recording[1:] if "now" in step["with"]), 0.0)

    def change(name: str, value: Any) -> Any:
        if type(value) is not float:
            return value
        return round(value - start if name in _CLOCK else value, 3)

    return [_changed(step, change) for step in recording]


def _without_quiet_looks(recording: Recording) -> Recording:
    """Without the looks at the clock after which nothing is different."""
    kept = recording[:1]
    for step in recording[1:]:
        is_quiet = step["call"] == "look_at_time" and not step["actions"]
        if not is_quiet:
            kept.append(step)
    return kept


def _key(recording: Recording) -> str:
    """The same for recordings that differ by their times alone."""
    return json.dumps(
        _changed(recording, lambda name, value: None if type(value) is float else value)
    )


def _condense(folder: Path, machine: str) -> list[Recording]:
    found: dict[str, Recording] = {}
    for path in sorted(folder.glob(f"{machine}-*.jsonl")):
        recording = [json.loads(line) for line in path.read_text().splitlines()]
        recording = _from_zero(_without_quiet_looks(recording))
        if 1 < len(recording) <= MOST_CALLS:
            found.setdefault(_key(recording), recording)
    return sorted(found.values(), key=len)[-MOST_RECORDINGS:]


def main() -> None:
    for machine, path in FILES.items():
        kept = _condense(Path(sys.argv[1]), machine)
        path.write_text("".join(json.dumps(recording) + "\n" for recording in kept))
        print(f"{len(kept)} recordings of {machine}")


if __name__ == "__main__":
    main()
