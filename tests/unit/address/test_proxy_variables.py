"""Which proxy the environment names for an address."""

from __future__ import annotations

import pytest
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from trunkline.address import Address, Proxy, parse_address
from trunkline.address.proxy_variables import find_proxy, with_proxy
from trunkline.errors import AddressError


@pytest.fixture(autouse=True)
def _no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CGI program's http_proxy is a header of its client's; pytest may run under one."""
    monkeypatch.delenv("REQUEST_METHOD", raising=False)


def chosen(address: str) -> Proxy | None:
    found: Proxy | None = with_proxy(parse_address(address)).option("proxy")
    return found


SETTINGS: list[dict[str, str]] = [
    {},
    {"https_proxy": "http://p:1"},
    {"HTTPS_PROXY": "http://p:1"},
    {"http_proxy": "http://p:1"},
    {"https_proxy": "http://p:1", "http_proxy": "http://q:2"},
    {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"},
    {"wss_proxy": "socks5://p:1", "https_proxy": "http://q:2"},
    {"ws_proxy": "socks5h://p:1", "https_proxy": "http://q:2"},
    {"socks_proxy": "http://p:1", "https_proxy": "http://q:2"},
    {"https_proxy": "http://u:a%40b@p:1"},
    {"https_proxy": "http://p:1", "no_proxy": "*"},
    {"https_proxy": "http://p:1", "no_proxy": "example.com"},
    {"https_proxy": "http://p:1", "no_proxy": "other.org,.example.com"},
    {"https_proxy": "http://p:1", "NO_PROXY": "api.example.com:9443"},
    {"https_proxy": "http://p:1", "NO_PROXY": "api.example.com:1"},
    {"https_proxy": ""},
]


@pytest.mark.parametrize("environment", SETTINGS, ids=str)
@pytest.mark.parametrize("url", ["ws://api.example.com:9443/ws", "wss://api.example.com:9443/ws"])
def test_the_same_proxy_as_websockets(
    environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found, theirs = chosen(url), get_proxy(parse_uri(url))
    assert (found and found.url) == theirs


def test_all_proxy_is_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://p:1")
    assert chosen("wss://h") == Proxy("socks5", "p", 1, variable="ALL_PROXY")
    monkeypatch.setenv("https_proxy", "q:2")
    assert chosen("wss://h") == Proxy("http", "q", 2, variable="https_proxy")


@pytest.mark.parametrize(
    "address", ["tcp://h:1", "tls://h:1", "mqtt://h?topic=t", "nats://h?topic=t"]
)
def test_other_schemes_do_not_ask_the_environment(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://p:1")
    assert chosen(address) is None
    assert chosen("wss+mqtt://h/mqtt?topic=t") is not None


@pytest.mark.parametrize(
    ("option", "wanted"),
    [("none", None), ("NONE", None), ("http://own:1", Proxy("http", "own", 1))],
)
def test_the_address_wins(
    option: str, wanted: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    assert chosen(f"wss://h|proxy={option}") == wanted


@pytest.mark.parametrize("host", ["[::1]", "[2001:db8::7]"])
@pytest.mark.parametrize("form", ["{bare}", "{brackets}", "{brackets}:443", "x,{bare}"])
def test_no_proxy_knows_ipv6(host: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", form.format(bare=host.strip("[]"), brackets=host))
    assert chosen(f"wss://{host}:443/") is None


@pytest.mark.parametrize(
    "value", ["ftp://p:1", "http://", "http://p:x", "http://u:S3cret@p:99999", "quic://S3cret@p"]
)
def test_a_value_that_is_no_proxy_names_the_variable(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(AddressError) as caught:
        chosen("wss://h")
    assert "environment variable HTTPS_PROXY" in str(caught.value)
    assert "proxy=none" in str(caught.value)
    assert "S3cret" not in str(caught.value)


def test_the_wire_and_the_texts_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://u:S3cret@p:1")
    address = with_proxy(parse_address("wss://h"))
    back = Address.from_wire(address.to_wire())
    assert back == address
    proxy = back.option("proxy")
    assert proxy.place == "p:1 (from https_proxy)"
    assert "S3cret" not in f"{back} {back!r} {proxy!r} {proxy}"
    none = parse_address("wss://h|proxy=none")
    assert Address.from_wire(none.to_wire()) == none
    assert str(none) == "wss://h:443|proxy=none"


def test_find_proxy_without_a_place_asks_for_the_scheme_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", "*")
    assert find_proxy("wss") is not None
