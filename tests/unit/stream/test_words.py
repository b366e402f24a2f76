"""The sentences about a link that fails name the peer once, and hold no secret."""

from __future__ import annotations

import pytest

from trunkline.actors.driver import PeerClosed
from trunkline.actors.stream.words import LinkWords
from trunkline.address import parse_address
from trunkline.errors import DialError, DialTimeout, RefusedError
from trunkline.wire.envelope import Mark

WORDS = LinkWords(parse_address("ws://user:topsecret@peer:81/feed"))


def test_an_end_in_good_order_is_a_loss_too() -> None:
    loss = WORDS.describe_loss(Mark.END, None)
    assert (int(loss), loss.text, loss.code, loss.reason) == (
        Mark.END,
        "closed by the peer",
        None,
        None,
    )


def test_a_loss_has_the_code_and_the_words_of_the_peer_without_the_secret() -> None:
    loss = WORDS.describe_loss(Mark.DOWN, PeerClosed(4001, "no topsecret here"))
    assert loss.code == 4001
    assert loss.reason is not None
    assert "topsecret" not in loss.reason + loss.text
    assert "no " in loss.reason


def test_a_loss_has_the_number_of_the_system_and_its_words_without_it() -> None:
    loss = WORDS.describe_loss(Mark.DOWN, ConnectionResetError(104, "Connection reset by peer"))
    assert (loss.text, loss.code) == ("Connection reset by peer", 104)


def test_an_error_without_words_is_named_by_its_class() -> None:
    assert WORDS.describe_loss(Mark.DOWN, EOFError()).text == "EOFError"


def test_a_call_that_finds_no_link_is_told_the_cause() -> None:
    error = WORDS.broken(
        "the link is down", WORDS.describe_loss(Mark.DOWN, PeerClosed(1001, "bye"))
    )
    assert str(error) == "the link is down: closed by the peer: 1001 bye"
    assert (error.code, error.reason) == (1001, "bye")
    assert str(WORDS.broken("the link is down", None)) == "the link is down"
    assert (
        str(WORDS.broken("the link broke", OSError(32, "Broken pipe")))
        == "the link broke: Broken pipe"
    )


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (TimeoutError(), DialTimeout, "could not be opened: no answer in the time allowed"),
        (
            DialTimeout("the server kept silent"),
            DialTimeout,
            "could not be opened: the server kept silent",
        ),
        (
            ConnectionRefusedError(111, "Connection refused"),
            DialError,
            "could not be opened: Connection refused",
        ),
        (EOFError(), DialError, "could not be opened: EOFError"),
        (RefusedError("HTTP 403"), RefusedError, "HTTP 403"),
    ],
)
def test_a_failed_attempt_is_an_error_for_programs(error: Exception, kind: type, text: str) -> None:
    described = WORDS.describe_failure(error, "")
    assert type(described) is kind
    assert str(described).endswith(text)


def test_an_error_of_the_code_itself_stays_as_it_is() -> None:
    error = ZeroDivisionError("x")
    assert WORDS.describe_failure(error, "") is error


def test_the_last_words_of_the_peer_are_told_without_the_secret() -> None:
    error = WORDS.describe_failure(ConnectionResetError(104, "reset"), "bad login topsecret")
    assert "reset; it said last: bad login " in str(error)
    assert "topsecret" not in str(error)


def test_a_sentence_that_names_the_peer_does_not_name_it_twice() -> None:
    assert WORDS.name_peer("could not be reached", "peer:81 said no") == "peer:81 said no"
    named = WORDS.name_peer("could not be reached", "no route")
    assert named.endswith("could not be reached: no route")
    assert WORDS.name_peer("could not be reached", named) == named
