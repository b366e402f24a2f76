"""The handshake's decisions: what is asked, where a redirect leads, what a refusal means."""

from __future__ import annotations

import pytest

from trunkline.actors.driver import FatalError
from trunkline.actors.drivers.ws.request import check_subprotocol, redirected, refusal, target_of
from trunkline.address import parse_address


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("ws://h", "/"),
        ("ws://h/", "/"),
        ("ws://h?a=1", "/?a=1"),
        ("ws://h/a;b=c/d?x=/&y=%20%2F+z&", "/a;b=c/d?x=/&y=%20%2F+z&"),
        ("ws://h:81/päth?q=日", "/p%C3%A4th?q=%E6%97%A5"),
        ("wss://u:p@h/real?compress=true", "/real?compress=true"),
    ],
)
def test_path_and_query_are_sent_as_written(url: str, resource: str) -> None:
    assert target_of(parse_address(url)).resource == resource


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("ws://h", "h"),
        ("ws://h:443", "h:443"),
        ("wss://h:443", "h"),
        ("wss://[::1]:8443", "[::1]:8443"),
    ],
)
def test_the_host_header_has_the_port_unless_it_is_the_schemes_own(url: str, header: str) -> None:
    assert target_of(parse_address(url)).host_header == header


def test_options_become_headers_and_the_users_own_headers_win() -> None:
    options = {
        "headers": {"Host": "other", "X-Key": "ünï", "origin": "https://mine", "Upgrade": "h2c"},
        "origin": "https://option",
        "subprotocols": ["chat", "v2"],
    }
    target = target_of(parse_address("ws://h", options))
    assert target.host_header == "other"
    assert target.extra_headers == [
        ("X-Key", "ünï"),
        ("origin", "https://mine"),
        ("Sec-WebSocket-Protocol", "chat, v2"),
    ]
    assert target.subprotocols == ["chat", "v2"]
    assert target.ignored == ("Upgrade",)


def test_the_urls_user_becomes_basic_auth_and_is_not_shown() -> None:
    target = target_of(parse_address("ws://user:p%40ss@h/x"))
    assert target.extra_headers == [("Authorization", "Basic dXNlcjpwQHNz")]
    assert "dXNlcjpwQHNz" not in repr(target)
    assert "ss@" not in repr(target)


def test_a_given_authorization_is_not_doubled() -> None:
    target = target_of(parse_address("ws://user@h", {"headers": {"authorization": "Bearer t"}}))
    assert target.extra_headers == [("authorization", "Bearer t")]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/new?x=1", "ws://h:8080/new?x=1"),
        ("http://other/", "ws://other:80/"),
        ("wss://other/a", "wss://other:443/a"),
        ("https://[::1]:9/a", "wss://[::1]:9/a"),
    ],
)
def test_where_a_redirect_leads(location: str, url: str) -> None:
    assert redirected(target_of(parse_address("ws://h:8080/old")), location).url == url


def test_another_host_gets_no_secrets_but_the_same_host_does() -> None:
    headers = {"Cookie": "c", "Host": "h", "OK-ACCESS-KEY": "k", "User-Agent": "me"}
    target = target_of(parse_address("ws://u:p@h/", {"headers": headers}))
    assert redirected(target, "ws://elsewhere/").headers == (("User-Agent", "me"),)
    assert redirected(target, "/there").headers == target.headers


@pytest.mark.parametrize(
    "location",
    [
        "ws://[::1/x", "ws://h:99999/", "ws://h:port/", "ws://h:-1/", "wss://", "mailto:x", "ws://a b/",
        "ws://[zz]/", "ws://" + "h" * 300, "ws://\x00h/", "http://", "http:///x", "//", "///x", "ws://h:0/",
    ],
)  # fmt: skip
def test_a_redirect_to_no_address_is_refused_in_our_words(location: str) -> None:
    with pytest.raises(FatalError) as caught:
        redirected(target_of(parse_address("ws://h/")), location)
    assert str(caught.value) == "h:80 redirects to something that is no WebSocket address"


@pytest.mark.parametrize("location", ["ws://h/", "http://h/", "ftp://h/"])
def test_a_redirect_that_may_not_be_followed(location: str) -> None:
    with pytest.raises(FatalError, match="redirects"):
        redirected(target_of(parse_address("wss://h/")), location)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 426, 451])
def test_a_refusal_that_stays(status: int) -> None:
    error = refusal(status, "h:80")
    assert isinstance(error, FatalError)
    assert f"HTTP {status}; " in str(error)
    assert error.code == status


@pytest.mark.parametrize("status", [200, 408, 425, 429, 500, 502, 503, 521])
def test_a_refusal_that_may_pass(status: int) -> None:
    assert not isinstance(refusal(status, "h:80"), FatalError)


def test_the_server_may_choose_what_was_offered_or_nothing() -> None:
    target = target_of(parse_address("ws://h", {"subprotocols": "chat"}))
    check_subprotocol(target, None)
    check_subprotocol(target, "chat")
    with pytest.raises(FatalError, match="'other', which was not offered"):
        check_subprotocol(target, "other")
