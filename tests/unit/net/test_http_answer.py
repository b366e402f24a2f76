"""An HTTP answer is read as the RFCs have it, however it is cut and spelled, and never without bound."""

from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.actors.net.http_answer import (
    MAX_HEAD,
    Answer,
    AnswerReader,
    Malformed,
    body_is_complete,
    body_words,
)
from trunkline.actors.net.peer_words import first_line, own_secrets, without_secrets
from trunkline.address import parse_address

HEAD = (
    b"\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 101\r\nUpgrade: WebSocket\nConnection: keep-alive\r\nconnection:Upgrade , x\r\n"
    b"X-Empty:\r\nX-Folded: a\r\n\t b\r\nX-City: Montr\xe9al\r\nX-Nul: a\x00b\r\n\r\n"
)


def read(data: bytes) -> Answer | None:
    return AnswerReader().feed(data)


@given(st.lists(st.integers(min_value=0, max_value=len(HEAD)), max_size=6), st.binary(max_size=9))
def test_an_answer_is_the_same_however_it_is_cut(places: list[int], rest: bytes) -> None:
    data = HEAD + rest
    edges = [0, *sorted(places), len(data)]
    reader, found = AnswerReader(), []
    for start, end in itertools.pairwise(edges):
        if found:
            found.append(data[start:end])
        elif (answer := reader.feed(data[start:end])) is not None:
            found += [answer, answer.rest]
    answer = found[0]
    assert isinstance(answer, Answer)
    assert b"".join(piece for piece in found[1:] if isinstance(piece, bytes)) == rest
    assert (answer.status, answer.phrase) == (101, "")
    assert answer.tokens("Upgrade") == {"websocket"}
    assert answer.tokens("connection") == {"keep-alive", "upgrade", "x"}
    assert (answer.get("x-empty"), answer.get("x-folded")) == ("", "a b")
    assert (answer.get("x-city"), answer.get("x-nul"), answer.get("absent")) == (
        "Montréal",
        "a b",
        None,
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH", "it does not speak HTTP; its answer begins with 'SSH-2.0-OpenSSH'"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS"),
        (b"HTTP/2.0 101 x\r\n\r\n", "it answers in HTTP/2"),
        (b"HTTP/1.1 abc\r\n\r\n", "its status line is 'HTTP/1.1 abc'"),
        (b"HTTP/1.1 101 x\r\nno colon\r\n\r\n", "has no colon: 'no colon'"),
        (b"HTTP/1.1 101 x\r\n: empty\r\n\r\n", "has no valid name"),
        (b"HTTP/1.1 101 x\r\n folded\r\n\r\n", "begins with a space"),
        (b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * (MAX_HEAD // 5), "longer than 256 KB"),
        (b"HTTP/1.1 100 x\r\n\r\n" * 101, "more than 100 informational"),
        (b"HTTP/1.1 " + b"1" * 20_000, "status line is longer"),
        (b"\r\n" * MAX_HEAD, "longer than 256 KB"),
    ],
)
def test_what_is_no_answer_is_named(data: bytes, words: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(data)
    assert words in caught.value.said(())


def test_what_is_quoted_holds_no_secret() -> None:
    with pytest.raises(Malformed) as caught:
        read(b"GET /?token=Zq1Secret&x=" + b"y" * 30 + b"Zq1Secret HTTP/1.1\r\n")
    assert "Zq1" not in caught.value.said(["Zq1Secret"])
    assert "token=***&x=y" in caught.value.said(["Zq1Secret"])


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for piece in (data, b"HTTP/1.1 " + data, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n"):
        try:
            answer = read(piece)
        except Malformed:
            continue
        if answer is not None:
            body_words(answer, answer.rest)
            body_is_complete(answer, answer.rest)


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        (b"Content-Length: 9\r\n", b"\r\n banned\n", "banned"),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nban\r\n4;x=y\r\nned!\r\n0\r\n\r\n", "banned!"),
        (
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n",
            gzip.compress(b"banned", mtime=0),
            "banned",
        ),
        (b"Content-Length: 5\r\n", b"a\x1b[1m\x00", "a [1m"),
        (b"Content-Length: 0\r\n", b"", ""),
        (b"Content-Encoding: br\r\nContent-Length: 2\r\n", b"xx", ""),
        (
            b"Content-Length: %d\r\n",
            b"<html><head><title>\n Blocked </title></head><p>x</p>",
            "Blocked",
        ),
        (b"Content-Length: %d\r\n", b"<!doctype html><style>b{}</style><h1>No &</h1>", "No &"),
        (b"Content-Length: %d\r\n", b"x" * 500, "x" * 197 + "..."),
    ],
)
def test_the_first_line_of_a_body(headers: bytes, body: bytes, words: str) -> None:
    headers = headers % len(body) if b"%d" in headers else headers
    answer = read(b"HTTP/1.1 403 forbidden\r\n" + headers + b"\r\n")
    assert answer is not None
    assert body_is_complete(answer, body)
    assert body_words(answer, body) == words
    assert not (body and body_is_complete(answer, body[:1]))


def test_a_body_without_a_length_lasts_to_the_end_and_is_bounded() -> None:
    answer = read(b"HTTP/1.1 403 No\r\n\r\n")
    assert answer is not None
    assert body_words(answer, b"") == "No"  # no body, but a phrase of its own
    assert not body_is_complete(answer, b"x" * 100)
    assert body_is_complete(answer, b"x" * 10_000)


def test_what_a_peer_repeats_of_our_secrets_is_hidden() -> None:
    url = "wss://name:p%40ssword@h/ws?apiKey=abcd1234&x=plain"
    secrets = own_secrets(
        parse_address(
            url, {"headers": {"X-K": "Bearer t0pS3cret"}, "payload": '{"op":"login","sign":"zzzz"}'}
        )
    )
    said = 'p@ssword p%40ssword t0pS3cret abcd1234 plain {"op":"login","sign":"zzzz"}'
    assert without_secrets(said, secrets) == "*** *** *** *** plain ***"
    assert first_line(b"\xff\xfe\n") == "\ufffd\ufffd"
