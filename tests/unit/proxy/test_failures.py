"""How an object answers failure: by an exception, or by a value and a line in the log."""

from __future__ import annotations

import pytest

from trunkline.errors import BrokenError, ClosedError, Unsupported
from trunkline.proxy import reasons
from trunkline.proxy.about import About
from trunkline.proxy.failures import Failures, closed_by


def failures(*, raising: bool) -> Failures:
    return Failures(
        About.of({"scheme": "ws", "peer": "ws://there", "kind": "stream"}, raising=raising)
    )


def test_an_object_of_connect_raises() -> None:
    with pytest.raises(BrokenError, match="gone"):
        failures(raising=True).failed(BrokenError("gone"), 0)


def test_an_object_of_dial_answers_with_a_value_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert failures(raising=False).failed(BrokenError("gone"), 0) == 0
    assert (reasons.last(), caplog.messages) == ("gone", ["ws://there: gone"])


def test_the_log_names_the_connection_once(caplog: pytest.LogCaptureFixture) -> None:
    failures(raising=False).failed(BrokenError("ws://there is gone"), 0)
    assert caplog.messages == ["ws://there is gone"]


def test_a_quiet_failure_is_only_remembered(caplog: pytest.LogCaptureFixture) -> None:
    assert failures(raising=False).failed(BrokenError("hush"), None, quiet=True) is None
    assert (reasons.last(), caplog.messages) == ("hush", [])


def test_a_closed_object_says_so_once_for_each_call(caplog: pytest.LogCaptureFixture) -> None:
    closed = failures(raising=False)
    for what in ("read", "read", "write"):
        closed.after_close(what, program_ends=False)
    read, write = caplog.messages
    assert read == "ws://there: read on a connection that you have closed; dial again"
    assert write.startswith("ws://there: write on")
    assert (
        closed_by("read", program_ends=True)
        == "read after the program's end has closed the connection"
    )


def test_misuse_names_the_call_to_make_instead() -> None:
    with pytest.raises(Unsupported, match="ws:// has no exec: use write"):
        failures(raising=True).misuse("exec", "use write")


def test_a_word_of_the_log_hides_no_reason() -> None:
    closed = failures(raising=False)
    closed.after_close("seek", program_ends=False)
    closed.failed(ClosedError("later"), None)
    closed.after_close("seek", program_ends=False)
    assert reasons.last() == "later"
