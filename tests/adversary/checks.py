"""What must hold after a trial, judged by what everybody wrote down. Each check yields what does not hold."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.adversary.notes import Note
from tests.adversary.steps import Trial

__all__ = ["Evidence", "deadlines", "faults_of_streams", "faults_of_the_program"]

_NUMBERED = re.compile(r"<(\d+) (\d+)>")
SLACK_S = 0.5
AT_REST = 3
STARTS_IN_S = 0.4
"""A program's start takes so long on a machine that is not busy: by this, others are measured."""
LINES = ("tcp", "tls", "unix")


_ENDS = ("kill", "term", "int")


@dataclass
class Evidence:
    """The notes of a trial: of each holder (the program and the others), and of the peer."""

    trial: Trial
    holders: dict[str, list[Note]]
    peer: list[Note]
    logs: dict[str, str] = field(default_factory=dict)
    killed: int = 0
    """Readers that were killed: each may have had a message that it did not write down."""

    def all(self, kind: str) -> Iterator[Note]:
        for notes in self.holders.values():
            yield from (note for note in notes if note[0] == kind)

    @property
    def program(self) -> list[Note]:
        return self.holders.get("program", [])

    def left_by_others(self, who: str) -> int:
        """How many messages at most another reader was given and did not read before its end: this reader may
        have read later ones by then."""
        if len(self.holders) < 2 and not any(self.all("child")):
            return 0
        ends = {
            ("ask", "close"),
            ("ask", "fork"),
            *((w, h) for w in _ENDS for h in ("program", "second")),
        }
        return sum((step.what, step.whom) in ends and step.whom != who for step in self.trial.steps)

    @property
    def unnoted(self) -> int:
        """How many messages at most were read by somebody who was interrupted before writing it down."""
        return self.killed + sum(1 for _ in self.all("interrupted"))


def faults_of_the_program(evidence: Evidence) -> Iterator[str]:
    """What went wrong in the processes themselves."""
    for note in evidence.all("wrong"):
        yield f"the program: {note[1]}"
    for note in evidence.all("child"):
        if note[1]:
            yield "a forked child failed"
    yield from _outages_of_an_open_link(evidence)
    for name, text in evidence.logs.items():
        if "Traceback" in text:
            at = text.index("Traceback")
            yield f"a traceback in the log of {name}:\n{text[at : at + 3000]}"


def _outages_of_an_open_link(evidence: Evidence) -> Iterator[str]:
    """At the end, when no fault is left, hardly any outage is read: those of before may have waited."""
    kinds = [note[0] for note in evidence.program]
    if "finishing" in kinds and "done" in kinds:
        at_rest = kinds[kinds.index("finishing") : kinds.index("done")]
        told = at_rest[::-1].index("m") if "m" in at_rest else len(at_rest)
        count = at_rest[len(at_rest) - told :].count("l")
        state = next(note[2] for note in evidence.program if note[0] == "done")
        if count > AT_REST and state == "open":
            yield f"{count} outages were read at the end, and the link is {state}"


def deadlines(evidence: Evidence) -> Iterator[str]:
    """Calls that took longer than their limit, where the process itself ran in time. On a slow or busy
    machine the slack is longer, as the program's own start was."""
    started = max((note[1] for note in evidence.all("started")), default=0.0)
    slack = SLACK_S * max(1.0, started / STARTS_IN_S)
    late = [(note[2], note[1]) for note in evidence.program if note[0] == "late"]
    for _, what, took, limit, began, ended in evidence.all("slow"):
        own = sum(seconds for when, seconds in late if began - seconds - 0.1 <= when <= ended)
        if took > limit + slack + 2 * own:
            yield f"{what} took {took:.2f} s, its limit is {limit:g} s (the process was late by {own:.2f} s)"


Seen = tuple[int, int]


def _reading(evidence: Evidence) -> dict[int, dict[str, list[Seen | None]]]:
    """Per generation and reader what was read, (link, number), and None for an outage. A byte stream that
    several share cannot be put together; it has no entry."""
    raw: dict[int, dict[str, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    for name, notes in evidence.holders.items():
        for note in notes:
            if note[0] in "ml":
                number = _generation(evidence, name, note)
                raw[number][note[2]].append(note[3] if note[0] == "m" else None)
    lines = evidence.trial.scheme in LINES
    return {
        number: {who: list(_numbers(texts, lines)) for who, texts in readers.items()}
        for number, readers in raw.items()
        if not lines or len(readers) == 1
    }


def _generation(evidence: Evidence, name: str, note: Note) -> int:
    """The program's generation in which something was read. A further holder counts its own ones: it has been
    given the handle of one of the program's."""
    if name == "program":
        return int(note[1])
    handles = [each for each in evidence.program if each[0] == "handle" and each[1]]
    number = int(name.removeprefix("second"))
    return int(handles[min(number, len(handles)) - 1][2]) if handles else 0


def _numbers(texts: list[str | None], lines: bool) -> Iterator[Seen | None]:
    rest = ""
    for text in texts:
        if text is None:
            yield None
            continue
        rest = rest + text if lines else text
        end = 0
        for found in _NUMBERED.finditer(rest):
            yield int(found[1]), int(found[2])
            end = found.end()
        rest = rest[end:]


def faults_of_streams(evidence: Evidence) -> Iterator[str]:
    """Order, doubles, outages in place, losses, figures, writes."""
    reading = _reading(evidence)
    figures = _figures(evidence)
    for generation, readers in sorted(reading.items()):
        for who, entries in readers.items():
            yield from _order(generation, who, entries, evidence.left_by_others(who))
        yield from _doubles(generation, readers, evidence)
        if len(readers) == 1 and _marks_are_sure(evidence.trial):
            for entries in readers.values():
                yield from _outages(generation, entries)
        yield from _losses(generation, readers, evidence, figures.get(generation))
    yield from _last_link(evidence, reading)
    for generation, found in figures.items():
        yield from _sums(generation, found, evidence)
    yield from _writes(evidence)


def _order(generation: int, who: str, entries: list[Seen | None], late: int) -> Iterator[str]:
    """`late`: messages that may come behind later ones, as others had them and ended without reading them."""
    last: Seen = (0, 0)
    for entry in filter(None, entries):
        if entry > last:
            last = entry
        elif late and entry < last:
            late -= 1
        else:
            yield f"out of order (generation {generation}, {who}): {last} and then {entry}"
            return


def _doubles(
    generation: int, readers: dict[str, list[Seen | None]], evidence: Evidence
) -> Iterator[str]:
    times = Counter(entry for entries in readers.values() for entry in entries if entry)
    twice = [entry for entry, count in times.items() if count > 1]
    if len(twice) > evidence.killed:  # what a killed reader had not acknowledged is read again
        yield f"read twice (generation {generation}): {twice[:5]}, {len(twice)} in all"


def _marks_are_sure(trial: Trial) -> bool:
    """Whether the program can tell an outage from a read that found nothing in time."""
    return trial.scheme == "ws" or (
        trial.scheme != "udp" and trial.settings.get("form") == "connect"
    )


def _outages(generation: int, entries: list[Seen | None]) -> Iterator[str]:
    link = 0
    told = True
    for entry in entries:
        if entry is None:
            told = True
        elif entry[0] != link:
            if not told and link:
                yield f"no outage was read between links {link} and {entry[0]} (generation {generation})"
            link, told = entry[0], False
        else:
            told = False


def _losses(
    generation: int,
    readers: dict[str, list[Seen | None]],
    evidence: Evidence,
    figures: dict[str, Any] | None,
) -> Iterator[str]:
    """What is missing before the last that was read of a link was dropped and counted."""
    if evidence.trial.scheme == "udp" or figures is None:
        return  # the system drops datagrams, and nobody can count them
    seen: dict[int, set[int]] = defaultdict(set)
    for entries in readers.values():
        for link, number in filter(None, entries):
            seen[link].add(number)
    missing = sum(max(numbers) - len(numbers) for numbers in seen.values())
    dropped = int(figures["dropped"])
    if evidence.trial.scheme in LINES:
        if missing and not dropped and not evidence.unnoted:
            yield f"{missing} messages are missing and none was counted as dropped (generation {generation})"
    elif missing > dropped + evidence.unnoted:
        yield f"{missing} messages are missing, {dropped} were counted as dropped (generation {generation})"


def _last_link(
    evidence: Evidence, reading: dict[int, dict[str, list[Seen | None]]]
) -> Iterator[str]:
    """The link that was open at the end: its last message has been read."""
    done = [note for note in evidence.program if note[0] == "done"]
    if not done or evidence.trial.scheme == "udp":
        return
    readers = reading.get(done[-1][1], {})
    last = max((entry[0] for entries in readers.values() for entry in entries if entry), default=0)
    if not last or done[-1][2] != "open":
        return
    sent = max(
        (note[2] for note in evidence.peer if note[0] == "sent" and note[1] == last), default=0
    )
    seen = max(
        (
            entry[1]
            for entries in readers.values()
            for entry in entries
            if entry and entry[0] == last
        ),
        default=0,
    )
    if sent > seen and not evidence.unnoted:
        yield f"the peer sent {sent} messages on the last link, {last}, and the last read is {seen}"


def _figures(evidence: Evidence) -> dict[int, dict[str, Any]]:
    """The last figures of each generation that the program saw to its end, at rest."""
    return {note[1]: note[3] for note in evidence.program if note[0] == "done"}


def _sums(generation: int, figures: dict[str, Any], evidence: Evidence) -> Iterator[str]:
    parts = sum(figures[name] for name in ("read", "buffered", "dropped", "skipped", "returned"))
    if figures["messages_in"] != parts:
        yield f"the figures do not add up (generation {generation}): {_short(figures)}"
    read = sum(
        1
        for name, notes in evidence.holders.items()
        for note in notes
        if note[0] == "m" and _generation(evidence, name, note) == generation
    )
    if abs(figures["read"] - read) > evidence.unnoted:
        yield f"{read} messages were read, and the figures say {figures['read']}: {_short(figures)}"


def _short(figures: dict[str, Any]) -> str:
    names = (
        "messages_in",
        "read",
        "buffered",
        "dropped",
        "skipped",
        "returned",
        "incarnation",
        "outages",
    )
    return ", ".join(f"{name} {figures[name]}" for name in names)


def _writes(evidence: Evidence) -> Iterator[str]:
    began = {note[1]: note[2] for note in evidence.peer if note[0] == "link"}
    got: dict[int, list[tuple[int, float]]] = defaultdict(list)
    last: dict[int, int] = defaultdict(int)
    for _, link, text, when in (note for note in evidence.peer if note[0] == "got"):
        if not text.startswith("w "):
            yield f"the peer was sent what nobody wrote: {text!r}"
            continue
        number = int(text[2:])
        if number <= last[link]:
            yield f"the peer got {number} after {last[link]} on link {link}"
        last[link] = number
        got[number].append((link, when))
    final = max(began.values(), default=0.0)
    stood_still = any(step.what in ("stop", "stall", "slow") for step in evidence.trial.steps)
    done = any(note[0] == "done" for note in evidence.program)
    for _, number, start, end, taken, why in (note for note in evidence.program if note[0] == "w"):
        where = got.get(number, [])
        if len(where) > 1:
            yield f"write {number} came {len(where)} times: links {[link for link, _ in where]}"
        if not taken and where and began[where[0][0]] > end and not stood_still:
            later = began[where[0][0]] - end
            yield f"write {number} gave 0 ({why}) and came over a link made {later:.2f} s later"
        if taken and not where and done and start > final and evidence.trial.scheme != "udp":
            yield f"write {number} was taken by the last link and never came"
