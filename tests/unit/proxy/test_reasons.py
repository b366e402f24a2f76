"""Why the last call failed."""

from __future__ import annotations

from trunkline.proxy import reasons


def test_the_last_reason_stays_until_it_is_cleared() -> None:
    reasons.remember(ValueError("first"))
    reasons.remember(ValueError("second"))
    assert reasons.last() == "second"
    assert reasons.last(clear=True) == "second"
    assert reasons.last() is None
