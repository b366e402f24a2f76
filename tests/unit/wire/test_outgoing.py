"""How one message is addressed: what `write` takes, and what travels."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.errors import RefusedError, RemoteError
from trunkline.wire import values
from trunkline.wire.outgoing import Outgoing


def test_nothing_given_is_nothing_on_the_way() -> None:
    assert Outgoing().checked().pack() == b""
    assert Outgoing().fields() == frozenset()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Outgoing("orders"), {"topic"}),
        (Outgoing("orders", key=b"\xff\x00"), {"topic", "key"}),
        (Outgoing(headers={"n": 1, "raw": b"x", "list": [1, "two"]}), {"headers"}),
        (
            Outgoing(expiry_ms=0.5, reply_to="answers", correlation="7"),
            {"expiry_ms", "reply_to", "correlation"},
        ),
        (Outgoing("answers", answers=True), {"topic", "answers"}),
        (Outgoing(null=True), {"null"}),
    ],
)
def test_what_is_given_travels_and_has_its_names(given: Outgoing, names: set[str]) -> None:
    assert Outgoing.unpack(given.checked().pack()) == given
    assert given.fields() == names


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"topic": 7}, TypeError, "write takes topic as str, not int"),
        ({"topic": ""}, ValueError, "a topic or reply_to that is not empty"),
        ({"reply_to": ""}, ValueError, "a topic or reply_to that is not empty"),
        ({"key": True}, TypeError, "write takes key as str or bytes, not bool"),
        ({"headers": [("a", "b")]}, TypeError, "write takes headers as Mapping, not list"),
        ({"headers": {1: "x"}}, TypeError, "headers whose names are str"),
        ({"expiry_ms": "5"}, TypeError, "write takes expiry_ms as int or float, not str"),
        ({"expiry_ms": 0}, ValueError, "expiry_ms above 0"),
        ({"expiry_ms": 1 << 32}, ValueError, "up to 4294967295 milliseconds"),
        ({"expiry_ms": float("nan")}, ValueError, "expiry_ms above 0"),
        ({"correlation": 5}, TypeError, "write takes correlation_id as str or bytes, not int"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Outgoing(**given).checked()


def test_half_of_a_surrogate_pair_is_refused_by_the_name_that_users_know() -> None:
    with pytest.raises(RefusedError, match="the message's topic has half of a surrogate pair"):
        Outgoing("\ud800").pack()
    with pytest.raises(RefusedError, match="the message's correlation_id"):
        Outgoing(correlation="\udfff").pack()
    with pytest.raises(RefusedError, match="the message's headers"):
        Outgoing(headers={"a": ["\ud800"]}).pack()


def test_what_is_too_long_for_a_header_is_refused() -> None:
    with pytest.raises(RefusedError, match="and 60000 is the most: nothing was sent"):
        Outgoing(headers={"a": "x" * 60_000}).pack()


@pytest.mark.parametrize(
    "data",
    [b"no msgpack at all", values.pack(7), values.pack({"unknown": 1}), values.pack({"topic": 7})],
)
def test_what_pack_did_not_make_is_malformed(data: bytes) -> None:
    with pytest.raises(RemoteError, match="a malformed WRITE arrived"):
        Outgoing.unpack(data)
