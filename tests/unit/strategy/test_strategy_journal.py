"""The log: what is kept, what is filtered, and what the plain screen makes of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from trunkline.strategy.journal import KEPT, Journal, Relay, Row
from trunkline.strategy.plain import Plain


def _journal(shown: list[Row] | None = None, file: Path | None = None) -> Journal:
    rows: list[Row] = [] if shown is None else shown
    return Journal(rows.append, contextlib.nullcontext(), file)


def _stored(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]


def test_rows_are_shown_and_stored_as_lines_of_json(tmp_path: Path) -> None:
    shown: list[Row] = []
    journal = _journal(shown, tmp_path / "log")
    journal.add("log", "a\nb \x1b[2J 中")
    journal.add("profit", "1.5", 1.5)
    journal.close()
    assert [row.text for row in shown] == ["a\nb \x1b[2J 中", "1.5"]
    first, second = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert (first["type"], first["text"]) == ("log", "a\nb \x1b[2J 中")
    assert second["value"] == 1.5
    assert "\x1b" not in (tmp_path / "log").read_text()


def test_a_profit_that_json_cannot_name_is_null(tmp_path: Path) -> None:
    journal = _journal(file=tmp_path / "log")
    journal.add("profit", "nan", float("nan"))
    journal.close()
    row = (tmp_path / "log").read_text()
    assert '"text": "nan", "value": null' in row


def test_memory_is_bounded() -> None:
    journal = _journal()
    for number in range(KEPT + 10):
        journal.add("log", str(number))
    assert len(journal.rows) == KEPT


def test_reset_keeps_the_newest_rows_and_the_file_goes_on(tmp_path: Path) -> None:
    journal = _journal(file=tmp_path / "log")
    for number in range(5):
        journal.add("log", str(number))
    journal.reset(2)
    journal.add("log", "5")
    assert _stored(tmp_path / "log") == ["3", "4", "5"]
    assert [row.text for row in journal.rows] == ["3", "4", "5"]
    journal.reset()
    assert _stored(tmp_path / "log") == []
    journal.close()


def test_profit_reset_leaves_the_other_rows(tmp_path: Path) -> None:
    journal = _journal(file=tmp_path / "log")
    for number in range(3):
        journal.add("log", f"log {number}")
        journal.add("profit", f"profit {number}", float(number))
    journal.reset(1, profit=True)
    journal.close()
    assert _stored(tmp_path / "log") == ["log 0", "log 1", "log 2", "profit 2"]


def test_the_last_error_is_given_once() -> None:
    journal = _journal()
    assert journal.take_last_error() is None
    journal.error("one")
    journal.error("two")
    assert journal.take_last_error() == "two"
    assert journal.take_last_error() is None


def test_filters_accumulate_until_they_are_reset() -> None:
    shown: list[Row] = []
    journal = _journal(shown)
    journal.filter("timeout|EOF")
    journal.filter("^reset")
    for text in ("a timeout", "EOF", "reset by peer", "other"):
        journal.error(text)
    journal.add("log", "a timeout that is no error")
    assert [row.text for row in shown] == ["other", "a timeout that is no error"]
    journal.filter("")
    journal.error("a timeout")
    assert shown[-1].text == "a timeout"


def test_a_filtered_error_can_still_be_asked_for() -> None:
    journal = _journal()
    journal.filter("timeout")
    journal.error("a timeout")
    assert journal.take_last_error() == "a timeout"


def test_trunklines_own_warnings_become_error_rows() -> None:
    shown: list[Row] = []
    journal = _journal(shown)
    logger = logging.Logger("trunkline.test")
    logger.addHandler(Relay(journal))
    logger.info("connected")
    logger.warning("lost %s", "wss://x")
    assert [(row.kind, row.text) for row in shown] == [("error", "lost wss://x")]
    assert journal.take_last_error() == "lost wss://x"


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(
            "trunkline.strategy.plain.time", SimpleNamespace(monotonic=lambda: self.now)
        )


def test_a_status_is_printed_when_it_changed_and_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, stream = _Clock(monkeypatch), io.StringIO()
    monkeypatch.setattr(Plain, "_flush_later", lambda self: None)  # it goes by real time
    screen = Plain(stream, lambda: None)
    screen.status("one")
    screen.status("two")
    clock.now += 1
    screen.status("one")
    screen.status("three")
    clock.now += 1
    screen.status("three")
    screen.status("four")
    screen.status("five")
    screen.close()
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("|")]
    assert lines == ["| one", "| three", "| four", "| five"]


def test_a_status_is_shown_in_time_although_the_script_is_blocked() -> None:
    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            if "two" in text:
                seen.set()
            return super().write(text)

    seen = threading.Event()
    screen = Plain(Watched(), lambda: None)
    screen.status("one")
    screen.status("two")
    assert seen.wait(10)
    screen.close()


def test_text_that_the_stream_cannot_write_is_escaped() -> None:
    raw = io.BytesIO()
    screen = Plain(io.TextIOWrapper(raw, encoding="ascii"), lambda: None)
    screen.row(Row(0.0, "log", "中"))
    assert b"\\u4e2d" in raw.getvalue()


def test_a_reader_that_left_is_told_once() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    told: list[int] = []
    screen = Plain(Gone(), lambda: told.append(1))
    screen.row(Row(0.0, "log", "a"))
    screen.row(Row(0.0, "log", "b"))
    screen.out("c\n")
    screen.close()
    assert told == [1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_file_without_room_is_told_of_once_and_rows_go_on() -> None:
    shown: list[Row] = []
    journal = _journal(shown, Path("/dev/full"))
    journal.add("log", "a")
    journal.add("log", "b")
    journal.close()
    assert [row.text for row in shown if row.kind == "log"] == ["a", "b"]
    (told,) = (row.text for row in shown if row.kind == "error")
    assert told == "the log file /dev/full cannot be written (No space left on device)"
