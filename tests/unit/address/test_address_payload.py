"""The separator, and messages that arrive byte for byte."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trunkline.address import parse_address
from trunkline.errors import AddressError

MESSAGES = [
    "okokok",
    "a=b",
    "a=b&c=d",
    "instruction=subscribe&timestamp=1700000000&window=5000",
    "x|y",
    "|",
    "||",
    "a||b=c",
    '{"op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}',
    '{"op": "subscribe", "args": [{"channel": "tickers", "instId": "BTC-USDT"}]}',
    '{"a":"x&mode=send&payload=no","b":"|reconnect=true||x","c":{"d":["}","]","\\"&mode=dual"]}}',
    '["SUBSCRIBE&interval=5","|"]',
    ' {"padded": 1}\r\n',
    '"text & mode=recv"',
    '{"sign":"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="}',
    "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA==",
    "AQ+/8A==",
    "100%",
    "50% off & more",
    "%zz",
    "%41 is not decoded beside a space",
    "https://example.com/a?b=c&d=e#f|g",
    "größe 你好 🚀 ‮",
    "line one\nline two\t\x00end",
    '{"broken": ',
    '{"a":1}{"b":2}',
    '{"a":1}\n{"b":2}',
    '{"id":123456789012345678901234567890.10}',
    "{" * 3000,
    "",
]


@pytest.mark.parametrize("bar", ["|", "||"])
@pytest.mark.parametrize("message", MESSAGES)
def test_payload_written_last_arrives_byte_for_byte(bar: str, message: str) -> None:
    if bar == "|" and message.startswith("|"):
        bar = "|reconnect=true&"
    address = parse_address(f"wss://h.example/p?q=1{bar}payload={message}")
    assert address.options["payload"] == (message,)
    assert address.target == "wss://h.example/p?q=1"


@pytest.mark.parametrize("message", [m for m in MESSAGES if "=" not in m or m.lstrip()[:1] in "{["])
def test_payload_in_the_middle_ends_where_it_should(message: str) -> None:
    address = parse_address(f"wss://h||mode=send&payload={message}&reconnect=true")
    assert address.options == {"mode": "send", "payload": (message,), "reconnect": True}


@pytest.mark.parametrize("message", MESSAGES)
def test_payload_wholly_percent_encoded_is_decoded(message: str) -> None:
    encoded = quote(message, safe="")
    if "%" in encoded:
        address = parse_address(f"wss://h|payload={encoded}&interval=5")
        assert address.options == {"payload": (message,), "interval": 5}


def test_several_payloads_keep_their_order() -> None:
    address = parse_address('wss://h|payload={"a":1}&payload=two&mode=recv&payload=%33%26')
    assert address.options["payload"] == ('{"a":1}', "two", "3&")


def test_payload_of_the_address_replaces_those_given_beside_it() -> None:
    beside = {"payload": ["x", {"a": "ü"}], "mode": "send"}
    assert parse_address("ws://h|payload=y", beside).options == {"payload": ("y",), "mode": "send"}
    assert parse_address("ws://h", beside).options["payload"] == ("x", '{"a": "ü"}')


def test_payload_that_is_json_may_be_followed_by_a_misspelling() -> None:
    with pytest.raises(
        AddressError, match=r"^unknown option 'reconect': did you mean 'reconnect'$"
    ):
        parse_address('ws://h|payload={"a":1}&reconect=true')


def test_percent_encoding_that_is_not_utf8_is_taken_as_it_stands() -> None:
    assert parse_address("ws://h|payload=%ff%fe").options["payload"] == ("%ff%fe",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON.filter(lambda value: isinstance(value, (dict, list))), st.booleans(), st.booleans())
def test_any_json_document_round_trips_anywhere(
    value: object, ascii_only: bool, last: bool
) -> None:
    message = json.dumps(value, ensure_ascii=ascii_only)
    address = parse_address(f"wss://h/p||payload={message}{'' if last else '&mode=dual'}")
    assert address.options["payload"] == (message,)


OPTION_INSIDE = re.compile(r"&[A-Za-z_][\w.-]*=")
WHOLLY_ENCODED = re.compile(r"(?=.*%)(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*")


@given(st.text())
def test_any_text_round_trips_when_written_last(message: str) -> None:
    assume(not OPTION_INSIDE.search(message) and not WHOLLY_ENCODED.fullmatch(message))
    assert parse_address(f"wss://h/p||payload={message}").options["payload"] == (message,)


@given(st.text(min_size=1))
def test_any_text_round_trips_percent_encoded(message: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in message.encode())
    address = parse_address(f"wss://h/p|payload={encoded}&mode=dual")
    assert address.options == {"payload": (message,), "mode": "dual"}


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        ("wss://h/p?a=x|y|reconnect=true", "wss://h/p?a=x|y", {"reconnect": True}),
        ("wss://h/p?mode=1||mode=send", "wss://h/p?mode=1", {"mode": "send"}),
        ("wss://h/p|", "wss://h/p", {}),
        ("wss://h/p?x=a|b||", "wss://h/p?x=a|b", {}),
        ("wss://h/ws/a|b@trade", "wss://h/ws/a|b@trade", {}),
        ("wss://h|&&mode=send&", "wss://h", {"mode": "send"}),
        ("unix:///run/a|b", "unix:///run/a|b", {}),
        ("mysql://u:a|b@tcp(h:1)/d", "u:a|b@tcp(h:1)/d", {}),
        ("mysql://u:a|b@tcp(h:1)/d|timeout=5", "u:a|b@tcp(h:1)/d", {"timeout": 5.0}),
        ("mysql://u:a|mode=b@tcp(h:1)/d||timeout=5", "u:a|mode=b@tcp(h:1)/d", {"timeout": 5.0}),
        ("mysql://u:a|timeout=b@tcp(h:1)/d||", "u:a|timeout=b@tcp(h:1)/d", {}),
        ("mysql://u:a||b@tcp(h:1)/d|timeout=5", "u:a||b@tcp(h:1)/d", {"timeout": 5.0}),
        (
            "postgres://user=u password='a|b' host=h|linger=1",
            "user=u password='a|b' host=h",
            {"linger": 1.0},
        ),
        ("sqlite3://a|b.db|linger=0", "a|b.db", {"linger": 0.0}),
    ],
)
def test_where_the_target_ends(text: str, target: str, options: dict[str, object]) -> None:
    address = parse_address(text)
    assert (address.target, address.options) == (target, options)


def test_user_and_password_with_a_bar() -> None:
    address = parse_address("nats://u:pa|ss@h?topic=t|reconnect=true")
    assert (address.user, address.password, address.options) == ("u", "pa|ss", {"reconnect": True})
