"""The mark of a lost link and its cause."""

from __future__ import annotations

import pytest

from trunkline.wire.envelope import Mark
from trunkline.wire.loss import Loss


def test_it_counts_as_its_mark() -> None:
    loss = Loss.of(Mark.DOWN, "closed by the peer", 1006)
    assert loss == Mark.DOWN
    assert loss != Mark.END
    assert {Mark.DOWN: "found"}[loss] == "found"


@pytest.mark.parametrize("code", [None, 1001, "ECONNRESET"])
@pytest.mark.parametrize("reason", [None, "", "maintenance"])
def test_its_cause_travels(code: int | str | None, reason: str | None) -> None:
    sent = Loss.of(Mark.END, "why", code, reason)
    came = Loss.from_wire(Mark.END, sent.to_wire())
    assert (came, came.text, came.code, came.reason) == (Mark.END, "why", code, reason)


def test_a_long_text_is_cut() -> None:
    assert len(Loss.of(Mark.DOWN, "x" * 10_000).text) == 500


def test_what_a_stranger_sends_becomes_text_or_nothing() -> None:
    came = Loss.from_wire(Mark.DOWN, [b"bytes", 1.5, 7])
    assert (came.text, came.code, came.reason) == ("b'bytes'", None, "7")
    with pytest.raises(TypeError, match="missing 2 required"):
        Loss.from_wire(Mark.DOWN, ["too short"])
