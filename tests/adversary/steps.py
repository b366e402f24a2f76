"""A trial: what is dialled, and the faults that come at which moments. Pure: made from a seed, written as one
line, read back from it, shrunk by leaving steps out.

    ws reconnect=1 form=dial rate=300 size=0 / wait:120 kill:worker wait:40 reset:link
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["BROKERS", "DATABASES", "SCHEMES", "STREAMS", "Step", "Trial", "generate", "shrink"]

STREAMS = ("tcp", "ws", "tls", "unix", "udp")
BROKERS = ("mqtt", "nats", "amqp", "kafka")
DATABASES = ("sqlite3", "postgres", "mysql", "clickhouse")
SCHEMES = (*STREAMS, *DATABASES, *BROKERS)

_SIGNALS = ("kill", "term", "int")
_LINK = ("reset", "cut", "hole-up", "hole-down", "hole", "stall", "slow")
_MOMENTS_MS = (0, 1, 3, 10, 30, 80, 200, 400)
"""Waits between steps: many short ones, so that faults meet in the middle of each other's repair."""
_JUMPS_S = ("-86400", "-30", "-1", "1", "30", "400")
"""How far the wall clock jumps. Kafka refuses what comes from more than an hour ahead."""
_LONGEST = 9
_KILLABLE = ("postgres", "mysql", "clickhouse", "amqp", "kafka")
"""Real servers that lose nothing of what they have confirmed with SIGKILL. mosquitto writes its store when it
ends in good order only, JetStream some milliseconds after it has confirmed."""


@dataclass(frozen=True)
class Step:
    """One thing that is done: `what` is done to `whom` (a process, the link), or asked of the program, or
    milliseconds to wait."""

    what: str
    whom: str = ""

    def __str__(self) -> str:
        return f"{self.what}:{self.whom}" if self.whom else self.what

    @classmethod
    def parse(cls, text: str) -> Step:
        what, _, whom = text.partition(":")
        if not what:
            raise ValueError(f"a step looks like kill:worker or wait:30, not {text!r}")
        return cls(what, whom)


@dataclass(frozen=True)
class Trial:
    """A scheme, how it is used (`settings`), and the steps in their order."""

    scheme: str
    steps: tuple[Step, ...]
    settings: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        head = [self.scheme, *(f"{name}={value}" for name, value in self.settings.items())]
        return " ".join([*head, "/", *map(str, self.steps)])

    @classmethod
    def parse(cls, line: str) -> Trial:
        """The trial that `str` wrote; ValueError says what is wrong with the line."""
        head, slash, tail = line.partition("/")
        words = head.split()
        if not slash or not words or words[0] not in SCHEMES:
            raise ValueError(
                f"a trial looks like `tcp rate=300 / wait:30 kill:worker`, not {line!r}"
            )
        pairs = [word.partition("=") for word in words[1:]]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError(f"the settings of a trial look like rate=300: {head!r}")
        settings = {name: value for name, _, value in pairs}
        return cls(words[0], tuple(map(Step.parse, tail.split())), settings)

    def setting(self, name: str, default: int = 0) -> int:
        return int(self.settings.get(name, default))

    def has(self, what: str, whom: str) -> bool:
        return Step(what, whom) in self.steps


def generate(scheme: str, seed: int, steps: int = _LONGEST) -> Trial:
    """The trial of this seed: always the same one for a scheme. `steps` is the most faults that it has."""
    rng = random.Random(f"{scheme} {seed}")
    settings = _settings(scheme, rng)
    made: list[Step] = [Step("wait", str(rng.choice(_MOMENTS_MS)))]
    stopped: list[str] = []
    for _ in range(rng.randint(1, steps)):
        made += _fault(scheme, rng, stopped)
        made.append(Step("wait", str(rng.choice(_MOMENTS_MS))))
    if rng.random() < 0.15:  # the end of the program is the end of the trial
        made.append(Step(rng.choice(("kill", "term")), "program"))
    return Trial(scheme, tuple(made), settings)


def _settings(scheme: str, rng: random.Random) -> dict[str, str]:
    settings = {"reconnect": rng.choice("1110"), "form": rng.choice(("dial", "connect"))}
    if scheme in STREAMS:
        settings["rate"] = rng.choice(("20", "300", "300", "3000"))
        settings["size"] = rng.choice(("0", "0", "2000"))
    return settings


def _targets(scheme: str) -> Sequence[str]:
    found = ["worker", "worker", "broker", "broker", "zygote", "broker+worker"]
    return found if scheme == "sqlite3" else [*found, "server"]


def _fault(scheme: str, rng: random.Random, stopped: list[str]) -> list[Step]:
    """One fault, or something that the program is asked to do meanwhile."""
    kinds = ["signal"] * 5 + ["stop"] * 2 + ["ask"] * 4 + ["clock"]
    if scheme == "sqlite3":
        kinds.append("lock")
    else:
        kinds += ["link"] * 4
    kind = rng.choice(kinds)
    if kind == "signal":
        target = rng.choice(_targets(scheme))
        if target == "server":
            return [Step("kill" if scheme in (*STREAMS, *_KILLABLE) else "term", target)]
        return [Step(rng.choice(_SIGNALS), target)]
    if kind == "stop":
        if stopped:
            return [Step("cont", stopped.pop())]
        target = rng.choice([*_targets(scheme), "program"])
        stopped.append(target)
        return [Step("stop", target)]
    if kind == "link":
        fault = rng.choice(_LINK)
        if fault in ("reset", "cut"):
            return [Step(fault, "link")]
        return [
            Step(fault, "link"),
            Step("wait", str(rng.choice(_MOMENTS_MS))),
            Step("heal", "link"),
        ]
    if kind == "clock":
        return [Step("clock", rng.choice(_JUMPS_S))]
    if kind == "lock":
        return [
            Step("stall", "link"),
            Step("wait", str(rng.choice(_MOMENTS_MS))),
            Step("heal", "link"),
        ]
    return [_asked(scheme, rng)]


def _asked(scheme: str, rng: random.Random) -> Step:
    asked = [
        Step("ask", "close"),
        Step("ask", "fork"),
        Step("int", "program"),
        Step("ask", "second"),
    ]
    asked += [Step(how, "second") for how in ("kill", "term")]
    asked += [Step("ask", "transaction")] * 3 if scheme in DATABASES else [Step("ask", "read")] * 2
    return rng.choice(asked)


def shrink(trial: Trial, fails: Callable[[Trial], bool], tries: int = 40) -> Trial:
    """A trial with fewer steps that still fails: halves are left out first, then single steps. `fails`
    carries a trial out; it is asked `tries` times at most."""
    size = max(1, len(trial.steps) // 2)
    while tries > 0:
        shorter = None
        for start in range(0, len(trial.steps), size):
            if tries <= 0:
                break
            rest = (*trial.steps[:start], *trial.steps[start + size :])
            tries -= 1
            candidate = replace(trial, steps=rest)
            if fails(candidate):
                shorter = candidate
                break
        if shorter is not None:
            trial = shorter
            size = min(size, max(1, len(trial.steps)))
        elif size > 1:
            size //= 2
        else:
            break
    return trial
