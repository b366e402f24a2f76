"""The table of `ps` and `top` on short lines, colors, and hints that are said once."""

from __future__ import annotations

import io
import logging
from dataclasses import replace

import pytest

from trunkline.address import parse_address
from trunkline.cli.rows import COLUMNS, Row, table_of
from trunkline.cli.texts import output_width, wants_color
from trunkline.proxy import hints

PEER = "wss://stream.exchange.example:9443/ws/some-rather-long-stream-name"
ROW = Row(
    id="abcd:1234567", broker="", scheme="wss", peer=PEER, state="open", pid=1234567, uptime_s=90061.0,
    messages_in=123_456_789, messages_out=17, bytes_in=0, bytes_out=0, rate_in=12_345.6, rate_out=0.5,
    buffered=1999, peak=2000, dropped=98_765, skipped=0, statements=0, rows=0, queries=0, reconnects=12,
    incarnation=1, holders=3, users=[1234567, 1234568, 1234569], shared=False, responsive=True,
    memory=21_500_000, last_error=None, lag=None,
)  # fmt: skip


def test_a_line_fits_and_ids_and_numbers_are_whole_or_not_there() -> None:
    rows = [ROW, replace(ROW, id="9", peer="tcp://10.0.0.1:7", users=[1], state="dialing, hangs")]
    whole = {column.name: column.show(ROW) for column in COLUMNS}
    for width in (10, 20, 40, 60, 80, 100, 120, 200):
        heading, first, second = table_of(rows, width)
        assert max(map(len, (heading, first, second))) <= max(width, len(ROW.id)), width
        names = [name for name in whole if f" {name} " in f" {heading} "]
        assert names[0] == "ID"
        for name in names:
            assert name == "PEER" or whole[name] in first, (width, name)
    everything = table_of(rows)
    assert all(text in everything[1] for text in whole.values())
    assert len(table_of(rows, 500)[1]) == len(everything[1])


def test_on_80_columns_what_matters_most_is_there() -> None:
    heading, line = table_of([ROW], 80)
    assert heading.split() == ["ID", "PEER", "STATE", "PID", "IN/s", "OUT/s"]
    assert line.split()[0] == ROW.id
    assert line.split()[1].startswith("wss://stream.exchange.example:9443/")
    assert line.split()[1].endswith("…")
    assert line.split()[2:] == ["open", "1234567", "12.3k", "0.5"]


def test_a_line_that_is_too_short_for_the_peer_has_the_state() -> None:
    heading, line = table_of([ROW], 40)
    assert heading.split() == ["ID", "STATE", "PID", "IN/s"]
    assert line.split() == [ROW.id, "open", "1234567", "12.3k"]
    assert table_of([ROW], 1) == ["ID", ROW.id]


def test_the_width_is_the_terminals_or_what_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert output_width(io.StringIO()) == 72
    monkeypatch.delenv("COLUMNS")
    assert output_width(io.StringIO()) is None


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_a_timeout_in_milliseconds_is_hinted_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hints, "_said", set())
    with caplog.at_level(logging.WARNING, "trunkline"):
        for seconds in (0.5, 30, 600, 5000, 5000):
            hints.hint_at_seconds(seconds)
    assert [record.getMessage() for record in caplog.records] == [
        "Dial's timeout counts in seconds: 5000 is 83 minutes; for 5000 ms write 5"
    ]


@pytest.mark.parametrize(
    ("address", "hinted"),
    [
        ("ws://h/p?reconnect=true", "reconnect"),
        ("wss://h/p?retry=3&x=1", "retry"),
        ("ws://h/p?interval=1m", None),
        ("ws://h/p?x=reconnect", None),
        ("ws://h/p?reconnect=true|reconnect=false", None),
        ("ws://h/p|reconnect=true", None),
    ],
)
def test_an_option_in_the_query_is_hinted_at(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str,
    hinted: str | None,
) -> None:
    monkeypatch.setattr(hints, "_said", set())
    with caplog.at_level(logging.WARNING, "trunkline"):
        hints.hint_at_options(parse_address(address))
        hints.hint_at_options(parse_address(address))
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == (hinted is not None)
    assert all(f"|{hinted}=" in text for text in texts)
