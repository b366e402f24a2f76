"""What must hold after a trial with a message broker or a database. Each check yields what does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.adversary.checks import Evidence

__all__ = ["faults_of_databases", "faults_of_messages"]

UNSURE = ("OutcomeUnknown", "OperationTimeout", "None", "interrupted", "ClosedError")
"""Outcomes of statements that may have taken effect: the program was told so, or not told."""


def faults_of_messages(evidence: Evidence) -> Iterator[str]:
    """All that was confirmed has been read; what came twice was said to come again; the figures add up."""
    done = [note for note in evidence.program if note[0] == "done"]
    read = list(evidence.all("m"))
    written = {f"w {note[1]}" for note in evidence.program if note[0] == "w"}
    strange = {note[3] for note in read} - written
    if len(strange) > evidence.unnoted:  # a program that is killed may not have noted its last one
        yield f"something was read that nobody wrote: {sorted(strange)[:5]}"
    if done:
        confirmed = {f"w {note[1]}" for note in evidence.program if note[0] == "w" and note[4]}
        missing = confirmed - {note[3] for note in read}
        if len(missing) > evidence.unnoted:
            yield f"{len(missing)} of {len(confirmed)} confirmed were never read: {sorted(missing)[:5]}"
    if evidence.trial.scheme != "kafka":
        seen: Counter[str] = Counter()
        for note in sorted(read, key=lambda note: bool(note[4])):
            seen[note[3]] += not note[4]
        twice = [text for text, times in seen.items() if times > 1]
        if len(twice) > evidence.killed:
            yield f"read twice without a word that it came again: {twice[:5]}, {len(twice)} in all"
    for note in done:
        yield from _sums(note[3])


def _sums(figures: dict[str, int]) -> Iterator[str]:
    names = ("read", "buffered", "dropped", "skipped", "returned")
    if figures["messages_in"] != sum(figures[name] for name in names):
        yield f"the figures do not add up: { {name: figures[name] for name in ('messages_in', *names)} }"


def faults_of_databases(evidence: Evidence) -> Iterator[str]:
    """What was done is there once, what was said not to be done is not, transactions are whole."""
    found = [note[1] for note in evidence.program if note[0] == "rows"]
    if not found:
        return
    rows = Counter((int(n), int(part)) for n, part in found[-1])
    twice = [row for row, times in rows.items() if times > 1]
    if twice:
        yield f"rows that are there twice: {twice[:5]}"
    known: set[tuple[int, int]] = set()
    for _, number, began, ended, outcome, why in (n for n in evidence.program if n[0] == "x"):
        known.add((number, 0))
        there = rows[number, 0] > 0
        if outcome == "ok" and not there:
            yield f"row {number} was inserted and is not there ({began:.2f} to {ended:.2f})"
        if there and outcome != "ok" and outcome not in UNSURE:
            yield f"row {number} is there and the program was told {outcome}: {why}"
    for _, number, began, ended, outcome in (n for n in evidence.program if n[0] == "t"):
        known |= {(number, 1), (number, 2)}
        count = (rows[number, 1] > 0) + (rows[number, 2] > 0)
        if count == 1:
            yield f"half of transaction {number} is there ({outcome})"
        if outcome == "ok" and count != 2:
            yield f"transaction {number} was committed and is not there ({began:.2f} to {ended:.2f})"
        if count and outcome not in ("ok", *UNSURE, "BrokenError"):
            yield f"transaction {number} is there and the program was told {outcome}"
    strange = set(rows) - known
    if strange and not evidence.unnoted:
        yield f"rows that nobody noted: {sorted(strange)[:5]}"
